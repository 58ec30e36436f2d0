"""What is told of users' mistakes: what, where, what was expected, what was given, and what to do."""

import json
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

import deepseek
from deepseek import Trainer, nn, optim

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLI = ROOT / "build" / "deepseek"

x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
y = np.arange(64) % 3


def mlp():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


def told(error, call, *parts):
    """The message of what `call` raises holds all parts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "overload" not in message and "incompatible function arguments" not in message, message
    return message


def run(*arguments, folder=None, code=2):
    done = subprocess.run([CLI, *map(str, arguments)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


CONFIG = """\
data: {{name: table, file: {table}, target: kind}}
model: {{name: mlp, width: 8}}
optimizer: {{name: adam}}
train: {{epochs: 2, batch_size: 16, output: {output}}}
"""


@pytest.fixture
def config(tmp_path):
    rows = "\n".join(f"{a:.3f},{b:.3f},{'ab'[int(a > b)]}" for a, b in np.random.default_rng(0).normal(size=(90, 2)))
    (tmp_path / "t.csv").write_text("one,two,kind\n" + rows + "\n")
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(table=tmp_path / "t.csv", output=tmp_path / "runs"))
    return path


# Names of other frameworks.


@pytest.mark.parametrize("given, expected", [("lr", "'optimizer.learning_rate'"), ("betas", "'optimizer.beta1' and 'optimizer.beta2'"), ("eps", "'optimizer.epsilon'"),
                                             ("wd", "'optimizer.weight_decay'"), ("momentun", "'optimizer.momentum'")])
def test_settings_of_optimizers(given, expected):
    told(ValueError, lambda: Trainer(mlp(), optimizer={"name": "sgd", given: 0.1}), f"unknown key 'optimizer.{given}'; did you mean {expected}?")


@pytest.mark.parametrize("given, expected", [("n_epochs", "train.epochs"), ("num_epochs", "train.epochs"), ("batch", "train.batch_size"), ("random_state", "train.seed"),
                                             ("gradient_accumulation_steps", "train.accumulate"), ("learning_rate", "optimizer.learning_rate"),
                                             ("lr", "optimizer.learning_rate"), ("weight_decay", "optimizer.weight_decay"), ("label", None)])
def test_settings_of_training(given, expected):
    told(ValueError, lambda: Trainer(mlp(), **{given: 3}), f"unknown key 'train.{given}'; " + (f"did you mean '{expected}'?" if expected else "known here: "))


@pytest.mark.parametrize("given, expected", [("hidden_size", "width"), ("vocab_size", "vocabulary"), ("num_layers", "layers"), ("nhead", "heads"), ("widht", "width")])
def test_parameters_of_models(given, expected):
    told(ValueError, lambda: deepseek.models.create("transformer", input=[16, 8], **{given: 4}), f"model.{given}", "it has: width, layers, heads, vocabulary",
         f"did you mean '{expected}'?")


def test_names_of_models():
    told(ValueError, lambda: deepseek.models.create("resnet19", input=[3, 8, 8]), "there is no model 'resnet19'", "did you mean 'resnet18'?")


def test_keys_of_a_config(config):
    message = run("train", config, "--set", "optimizer.lr=0.1", "--set", "train.n_epochs=3", "--set", "optimizer.betas=3")
    assert "did you mean 'optimizer.learning_rate'?" in message and "did you mean 'train.epochs'?" in message
    assert "did you mean 'optimizer.beta1' and 'optimizer.beta2'?" in message
    assert "did you mean 'width'?" in run("train", config, "--set", "model.hidden_size=8")
    config.write_text(config.read_text() + "tune: {parameters: {optimizer.lr: [0.1, 0.2]}}\n")
    assert "did you mean 'optimizer.learning_rate'?" in run("tune", config)


# The command line.


def test_commands():
    assert "unknown command 'trian'; did you mean 'train'? There are: train, predict" in run("trian", "run.yaml")
    assert "unknown command 'frobnicate'. There are: " in run("frobnicate")
    assert "did you mean 'clean'?" in run("data", "cleen", "t.csv")
    assert "--sett; did you mean '--set'?" in run("train", "run.yaml", "--sett", "a=b")
    assert re.fullmatch(r"deepseek \d+\.\d+\.\d+\n", run("--version", code=0))


def test_a_config_in_the_place_of_a_command(config):
    assert f"to train by it: deepseek train {config}" in run(config)


@pytest.mark.parametrize("name, content, expected", [
    ("t.csv", b"a,b\n1,2\n" * 9, "is text, a table it seems, expected a config; write one with data: {name: table, file: "),
    ("t.parquet", b"PAR1" + bytes(40), "is a Parquet table, expected a config"),
    ("m.pt", b"PK\x03\x04" + bytes(20) + b"archive/data.pkl" + bytes(99), "is a PyTorch file, whose pickle could run any code"),
    ("m.onnx", b"\x08\x07\x12\x07pytorch", "is an ONNX model, which is not read, expected a config"),
    ("m.dsk", struct.pack("<Q", 2) + b"{}", "`deepseek predict "),
    ("empty.yaml", b"", "is empty, expected a config"),
    ("only.yaml", b"# nothing\n\n", "the config says nothing; name at least data and model"),
    ("tab.yaml", b"model:\n\tname: mlp\n", "tab.yaml:2: not valid YAML: the line is indented by a tab; indent by spaces"),
])
def test_files_in_the_place_of_a_config(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    for command in ("train", "explain"):
        assert expected in run(command, tmp_path / name, folder=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_folders_and_paths_in_the_place_of_a_config(tmp_path, config):
    assert f"'{tmp_path}' is a folder, expected a config; give '{config}'" in run("train", tmp_path)
    (tmp_path / "inner").mkdir()
    assert "is a folder, expected a config; a config is YAML" in run("train", tmp_path / "inner")
    assert f"no such file; did you mean '{config}'?" in run("train", tmp_path / "run.yml")
    assert "its folder '/no/such' isn't there either" in run("train", "/no/such/run.yaml")


@pytest.mark.parametrize("wrong, expected", [("train.metrics=[acuracy]", "unknown metric 'acuracy'"), ("train.monitor=acuracy", "'acuracy' is neither loss nor"),
                                             ("memory.limit=8XB", "memory.limit"), ("device=gpux", "gpux"), ("model.width=-1", "model.width"),
                                             ("loss.label_smoothing=7", "label_smoothing")])
def test_a_wrong_config_leaves_the_good_run_alone(config, wrong, expected):
    run("train", config, code=0)
    before = sorted(p.name for p in config.parent.iterdir())
    kept = (config.parent / "runs/last.safetensors").read_bytes()
    assert expected in run("train", config, "--set", wrong)
    assert sorted(p.name for p in config.parent.iterdir()) == before
    assert (config.parent / "runs/last.safetensors").read_bytes() == kept
    run("train", config, "--set", wrong, "--set", f"train.output={config.parent}/new")
    assert not (config.parent / "new").exists()


def test_resuming(config):
    run("train", config, code=0)
    assert "train.batch_size: 16 when the run began, 8 now" in run("train", config, "--resume", "--set", "train.batch_size=8")
    assert "all 2 epochs are done; set train.epochs higher to go on" in run("train", config, "--resume", code=0)
    stopping = ["--set", "optimizer.learning_rate=1e-30", "--set", "train.epochs=6", "--set", "train.patience=1", "--set", "train.monitor=loss"]
    run("train", config, *stopping, code=0)
    assert "stopped early" in run("train", config, "--resume", *stopping, code=0)
    message = run("train", config, "--resume", *stopping, "--set", "train.patience=50", code=0)
    assert "epoch 6/6" in message


def test_evaluating_a_run_made_in_python(tmp_path):
    Trainer(mlp(), epochs=1, output=str(tmp_path / "run")).fit((x, y), progress=False)
    message = run("evaluate", tmp_path / "run")
    assert "was trained from Python" in message and "Trainer.evaluate()" in message and message.count("\n") == 1


def test_doctor(tmp_path):
    done = subprocess.run([CLI, "doctor"], capture_output=True, text=True, cwd=tmp_path)
    lines = done.stdout.splitlines()
    for subject in ("version", "device cpu", "threads", "memory", "disk", "tables", "tuning", "training on cpu"):
        assert any(line[5:].startswith(subject) for line in lines), done.stdout + done.stderr
    assert done.returncode == any(line.startswith("BAD") for line in lines), done.stdout
    losses = re.search(r"training on cpu +40 updates .* loss ([\d.]+) to ([\d.]+)", done.stdout)
    assert float(losses[2]) < float(losses[1]) and str(tmp_path) in done.stdout


# Weights in files.


def test_names_of_weights():
    state = mlp().state_dict()
    wrapped = {"model." + name: value for name, value in state.items()}
    message = told(ValueError, lambda: mlp().load_state_dict(wrapped), "'0.weight' is missing", "the names fit without the prefix 'model.'")
    code = message.rpartition("load_state_dict(")[2].removesuffix(")")
    mlp().load_state_dict(eval(code, {"state_dict": wrapped}))
    told(ValueError, lambda: mlp().load_state_dict(wrapped, strict=False), "none of the 4 names given ('model.0.weight'", "without the prefix 'model.'")
    told(ValueError, lambda: nn.Sequential(mlp()).load_state_dict(state), "the names fit with the prefix '0.'")
    mlp().load_state_dict({"0.weight": state["0.weight"]}, strict=False)
    mlp().load_state_dict({}, strict=False)


def test_bfloat16_weights_are_read(tmp_path):
    values = np.arange(32, dtype=np.float32).reshape(4, 8) / 4
    bits = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, len(bits)]}}).encode()
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bits)
    layer = nn.Linear(8, 4, bias=False)
    layer.load_state_dict(deepseek.load(tmp_path / "b.safetensors"))
    np.testing.assert_array_equal(layer.state_dict()["weight"], values)
    code = (f"import sys; sys.modules['ml_dtypes'] = None\nimport deepseek\nw = deepseek.load({str(tmp_path / 'b.safetensors')!r})['weight']\n"
            "print(w.dtype, w.sum())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in ("float32", "bfloat16") and float(done.stdout.split()[1]) == values.sum()


@pytest.mark.parametrize("name, content, expected", [("m.pt", b"PK\x03\x04" + bytes(20) + b"archive/data.pkl" + bytes(99), "safetensors.torch.save_file"),
                                                     ("t.csv", b"a,b\n1,2\n" * 9, "deepseek.data.read() reads tables"),
                                                     ("m.onnx", b"\x08\x07\x12\x07pytorch" + bytes(60), "is an ONNX model"),
                                                     ("a.npy", b"\x93NUMPY\x01\x00" + bytes(60), "numpy.load() reads it"),
                                                     ("e.safetensors", b"", "is empty, expected a file of safetensors")])
def test_other_files_in_the_place_of_weights(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert "claims a header" not in told(ValueError, lambda: deepseek.load(tmp_path / name), name, expected)


def test_paths_of_files(tmp_path):
    deepseek.save(mlp(), tmp_path / "model.safetensors")
    told(FileNotFoundError, lambda: deepseek.load(tmp_path / "modle.safetensors"), f"did you mean '{tmp_path / 'model.safetensors'}'?")
    told(FileNotFoundError, lambda: deepseek.load("/no/such/m.safetensors"), "its folder '/no/such' isn't there either")
    told(FileNotFoundError, lambda: deepseek.load("nothing.like.it"), "looked for from '")
    told(FileNotFoundError, lambda: deepseek.load(tmp_path / "other.safetensors"), "No such file or directory; check the path")
    told(FileNotFoundError, lambda: deepseek.InferenceSession(tmp_path / "no.dsk"), "No such file or directory")


# Arrays.


@pytest.mark.parametrize("values", [x.astype(np.float64), np.ones((4, 8), np.int64)])
def test_dtypes_of_inputs(values):
    told(ValueError, lambda: mlp()(values), "expected two float inputs of one dtype", "array.astype(np.float32)")
    told(ValueError, lambda: deepseek.freeze(mlp().eval())(values), "array.astype(np.float32)")
    told(ValueError, lambda: deepseek.compile(mlp(), "cross_entropy")(values, y[:len(values)]), "array.astype(np.float32)")


def test_frames_with_text():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x).assign(kind="a", colour="b")
    told(TypeError, lambda: Trainer(mlp()).fit((frame, y)), "inputs: expected numbers, got a DataFrame whose columns 'kind', 'colour' are not of numbers", "one_hot")
    told(TypeError, lambda: Trainer(mlp()).predict(frame[["kind"]]), "whose column 'kind' is not of numbers")
    told(TypeError, lambda: mlp()(frame), "got DataFrame; give its numbers: x.to_numpy(np.float32)")


def test_lists():
    told(TypeError, lambda: mlp()(x.tolist()), "Sequential: expected arrays, got list; make an array of it: np.asarray(x, np.float32)")
    assert Trainer(mlp(), epochs=1).fit((x.tolist(), y.tolist()), progress=False)


def test_labels_of_text():
    told(TypeError, lambda: deepseek.compile(mlp())(x, np.array(["a"] * 64)), "'y': expected an array of numbers, got ndarray of <U1", "return_inverse=True")
    told(TypeError, lambda: Trainer(mlp()).fit((x, np.array(["a", 1] * 32, object))), "targets: expected an array of numbers, got ndarray of objects (int, str)")
    assert Trainer(mlp(), epochs=1).fit((x, ["a", "b"] * 32), progress=False)


def test_samples_without_a_pair():
    told(TypeError, lambda: Trainer(mlp()).fit(x), "a pair (inputs, targets)", "fit((x, y))")


def test_one_hot_labels_get_a_hint():
    one_hot = np.eye(3, dtype=np.float32)[y]
    with pytest.warns(UserWarning, match='say loss="cross_entropy"'):
        Trainer(mlp(), epochs=1).fit((x, one_hot), progress=False)


# PyTorch's things.


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(64, 8, requires_grad=True)
    told(TypeError, lambda: Trainer(mlp()).fit((tensor, y)), "give inputs.detach()")
    told(TypeError, lambda: Trainer(mlp()).predict(tensor), "give inputs.detach()")
    assert Trainer(mlp(), epochs=1).fit((tensor.detach(), y), progress=False)


def test_modules_of_torch():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(8, 3)
    for call in (lambda: Trainer(layer), lambda: deepseek.compile(layer), lambda: deepseek.freeze(layer), lambda: nn.Sequential(layer)):
        told(TypeError, call, "got PyTorch's Linear; build it of deepseek.nn's layers")
    told(TypeError, lambda: Trainer(mlp(), loss=torch.nn.CrossEntropyLoss()), "loss: PyTorch's CrossEntropyLoss can't be traced", "deepseek.nn.CrossEntropyLoss()")
    told(TypeError, lambda: Trainer(mlp(), optimizer=torch.optim.SGD(layer.parameters(), lr=0.1)), "optimizer: expected one of deepseek.optim", "got PyTorch's SGD")


# Modules, optimizers, schedules, losses.


def test_modules():
    told(TypeError, lambda: Trainer(nn.Linear), "model: expected a module, got the class Linear; make one: Linear(...)")
    told(TypeError, lambda: Trainer("mlp"), "model: expected a deepseek.nn.Module, got str")


@pytest.mark.parametrize("call, expected", [(lambda: nn.Linear(10), "Linear: 'out_features' is missing. It takes Linear(in_features: int, out_features: int, bias: bool = True)"),
                                            (lambda: nn.Linear(), "Linear: 'in_features' and 'out_features' are missing"),
                                            (lambda: nn.Linear("10", 3), "Linear: the arguments in_features='10', out_features=3 are not of the types"),
                                            (lambda: nn.Linear(10, 3, use_bias=False), "Linear: no argument is called 'use_bias'; did you mean 'bias'?"),
                                            (lambda: nn.Linear(10, 3, zzzzzz=False), "Linear: no argument is called 'zzzzzz'. It takes"),
                                            (lambda: nn.Linear(10, 3, biass=False), "did you mean 'bias'?"),
                                            (lambda: nn.Linear(1, 2, True, 4), "expected at most 3 arguments, got 4"),
                                            (lambda: nn.Dropout("a"), "Dropout: the arguments p='a'"),
                                            (lambda: nn.LSTM(3), "LSTM: 'hidden_size' is missing")])
def test_arguments_of_layers(call, expected):
    told(TypeError, call, expected)


def test_layers_still_are_what_they_were():
    assert nn.Linear(np.int64(8), 3, bias=False).weight.shape == (3, 8) and type(nn.Linear(1, 1)) is nn.Linear
    told(ValueError, lambda: nn.Linear(-1, 3), "features")


def test_a_module_without_super_init():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(8, 3)

        def forward(self, x):
            return self.layer(x)

    class Plain(nn.Module):
        def __init__(self):
            self.width = 3

        def forward(self, x):
            return x

    told(TypeError, Forgot, "Forgot.__init__() did not call super().__init__()")
    told(TypeError, lambda: Trainer(Plain()), "Plain.__init__() did not call super().__init__()")
    told(TypeError, lambda: Plain()(x), "Plain.__init__() did not call super().__init__()")


def test_optimizers():
    for optimizer in (lambda: optim.AdamW(mlp().parameters()), lambda: optim.AdamW(mlp()), lambda: optim.AdamW(mlp().parameters(), lr=0.1)):
        told(TypeError, lambda: Trainer(mlp(), optimizer=optimizer()), "learning rate", "Trainer and compile give it the model's")
    told(TypeError, lambda: Trainer(mlp(), optimizer=lambda p: p), "optimizer: expected one of deepseek.optim, such as AdamW(lr=1e-3), a name or a dict with a name, got function")
    assert Trainer(mlp(), optimizer=optim.AdamW, epochs=1).fit((x, y), progress=False)


def test_schedules_and_metrics_of_ones_own():
    for schedule in (lambda epoch: 0.1, object()):
        told(TypeError, lambda: Trainer(mlp(), schedule=schedule), "schedule: expected a name", "step = deepseek.compile(...) and set step.learning_rate")
    for metrics in ([lambda a, b: 0], lambda a, b: 0):
        told(TypeError, lambda: Trainer(mlp(), metrics=metrics), "train.metrics: expected", "fit(callback=...)")
    told(TypeError, lambda: Trainer(mlp(), batch_size=np.zeros(3)), "batch_size: expected numbers, text, or lists of them, got array")


def test_losses():
    assert Trainer(mlp(), loss=nn.CrossEntropyLoss(), epochs=1).fit((x, y), progress=False)
    told(TypeError, lambda: Trainer(mlp(), loss=nn.CrossEntropyLoss), "loss: expected a module or a function, got the class CrossEntropyLoss; make one: CrossEntropyLoss()")
    told(TypeError, lambda: Trainer(mlp(), loss=3), "loss: expected a name, a dict with a name, or a function of outputs and targets, got int")
    other = Trainer(mlp(), loss=lambda out, target: deepseek.ops.mean(out), metrics=[], epochs=1)  # outputs of another shape than targets
    assert other.fit((x, np.ones((64, 2), np.float32)), validation=(x, np.ones((64, 2), np.float32)), progress=False)


def test_a_last_batch_of_one():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    message = told(ValueError, lambda: Trainer(model, epochs=1, batch_size=63).fit((x, y), progress=False), "expected more than one element per channel",
                   "leave out a smaller last one (train.drop_last)")
    assert "f32[1,4]" in message
    updates = []
    with pytest.raises(ValueError):  # before the first epoch, not at its end
        Trainer(model, epochs=1, batch_size=63).fit((x, y), progress=False, callback=updates.append)
    assert not updates
    zoo = deepseek.models.create("small_resnet", input=[1, 4, 4], classes=3, width=4)
    pictures = np.zeros((5, 1, 4, 4), np.float32)
    told(ValueError, lambda: Trainer(zoo, epochs=1, batch_size=4).fit((pictures, y[:5]), progress=False), "in the last batch of an epoch, which has 1 of the 5 samples",
         "train.batch_size 4; set train.drop_last to leave it out")
    assert Trainer(model, epochs=1, batch_size=63, drop_last=True).fit((x, y), progress=False)
