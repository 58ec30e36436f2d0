"""Trainer, compile(), data sets and files from Python."""
import os
import signal
import threading

import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, ops, optim, tune


def blobs(n=300, seed=0):
    """Three groups of points that a line nearly separates."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    return (np.array([[0, 3], [3, 0], [-3, -3]])[y] + random.standard_normal((n, 2))).astype(np.float32), y


def net():
    deepseek.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))


def test_fit_evaluate_predict():
    x, y = blobs()
    trainer = deepseek.Trainer(net(), optimizer=optim.AdamW(lr=0.01), metrics=["accuracy", "f1", "auc", "top2"], batch_size=32, epochs=3)
    history = trainer.fit((x, y), validation=blobs(100, 1), progress=False)
    assert [e["epoch"] for e in history] == [1, 2, 3]
    assert history[-1]["training"]["loss"] < history[0]["training"]["loss"]
    test = trainer.evaluate(blobs(200, 2))
    assert test["accuracy"] > 0.95 and test["auc"] > 0.98 and test["top2"] >= test["accuracy"]
    assert test["confusion"].shape == (3, 3) and test["confusion"].sum() == 200
    xt, yt = blobs(200, 2)
    assert (trainer.predict(xt).argmax(1) == yt).mean() == pytest.approx(test["accuracy"])
    # The model that was given is the trained one.
    np.testing.assert_allclose(trainer.model.eval()(xt), trainer.predict(xt), rtol=1e-5, atol=1e-6)


def test_a_module_and_a_loss_of_ones_own():
    class Polynomial(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.Parameter(np.zeros(3, np.float32))

        def forward(self, x):
            return self.weights[0] + self.weights[1] * x + self.weights[2] * x * x

    def absolute(prediction, target):
        return ops.mean(ops.abs(prediction - target))

    x = np.linspace(-1, 1, 64, dtype=np.float32)
    trainer = deepseek.Trainer(Polynomial(), loss=absolute, optimizer=optim.Adam(lr=0.05), schedule="cosine", epochs=60, batch_size=8)
    trainer.fit((x, 1 - 2 * x + 3 * x * x), progress=False)
    np.testing.assert_allclose(trainer.model.state_dict()["weights"], [1, -2, 3], atol=0.1)
    assert set(trainer.evaluate((x, x))) == {"loss", "mae", "rmse", "r2"}


def test_what_the_loss_raises_reaches_the_caller():
    def broken(prediction, target):
        raise KeyError("of mine")

    with pytest.raises(KeyError, match="of mine"):
        deepseek.Trainer(net(), loss=broken).fit(blobs(), progress=False)
    with pytest.raises(ValueError, match=r"the loss must be a float scalar, got f32\[64,3\]"):
        deepseek.Trainer(net(), loss=lambda p, t: p).fit(blobs(), progress=False)


def test_values_do_not_outlive_their_trace():
    kept = []

    def loss(prediction, target):
        kept.append(prediction)
        return ops.mean(prediction * prediction)

    deepseek.Trainer(net(), loss=loss, epochs=1).fit(blobs(), progress=False)
    with pytest.raises(ValueError, match="trace that has ended"):
        kept[0].shape
    with pytest.raises(ValueError):
        kept[0] + 1


@pytest.mark.parametrize("rule, theirs", [
    (optim.SGD(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (optim.AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, 0.01)),
    (optim.Adagrad(lr=0.1), lambda p: torch.optim.Adagrad(p, 0.1)),
    (optim.RMSprop(), lambda p: torch.optim.RMSprop(p)),
])
def test_defaults_are_pytorchs(rule, theirs):
    x, y = blobs(64)
    model = net()
    twin = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in model.state_dict().items()})
    update = theirs(twin.parameters())
    step = deepseek.compile(model, optimizer=rule)
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y))
        update.zero_grad()
        loss.backward()
        update.step()
        assert step(x, y) == pytest.approx(loss.item(), rel=1e-4)
    assert step.steps == 5
    assert "optimizer/0.weight" in str(step.graph)


# Algorithm 2 of You et al., 2019 and algorithm 2 of Chen et al., 2023, as they are printed.
def lamb(w, g, state, t, lr, decay):
    m, v = state.get("m", 0), state.get("v", 0)
    state["m"], state["v"] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * w
    norm, length = np.linalg.norm(w), np.linalg.norm(u)
    return w - lr * (norm / length if norm > 0 and length > 0 else 1) * u


def lion(w, g, state, t, lr, decay):
    m = state.get("m", 0)
    state["m"] = 0.99 * m + 0.01 * g
    return w - lr * (np.sign(0.9 * m + 0.1 * g) + decay * w)


@pytest.mark.parametrize("rule, paper, lr, decay", [(optim.LAMB(lr=0.02, weight_decay=0.1), lamb, 0.02, 0.1),
                                                    (optim.Lion(lr=0.01, weight_decay=0.1), lion, 0.01, 0.1)])
@pytest.mark.parametrize("clip_value", [0.0, 0.05])
def test_rules_that_pytorch_lacks_follow_their_papers(rule, paper, lr, decay, clip_value):
    x, y = blobs(64)
    deepseek.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    twin.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in model.state_dict().items()})
    states = {name: {} for name, _ in twin.named_parameters()}
    step = deepseek.compile(model, optimizer=rule, clip_value=clip_value)
    clipped = 0
    for t in range(1, 11):
        loss = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x).double()), torch.from_numpy(y))
        twin.zero_grad()
        loss.backward()
        assert step(x, y) == pytest.approx(loss.item(), rel=1e-4), f"step {t}"
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                gradient = parameter.grad.numpy()
                if clip_value:
                    clipped += (abs(gradient) > clip_value).sum()
                    gradient = gradient.clip(-clip_value, clip_value)
                parameter.copy_(torch.from_numpy(paper(parameter.numpy().copy(), gradient, states[name], t, lr, decay)))
    assert not clip_value or clipped > 0
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, twin.state_dict()[name].numpy(), rtol=1e-3, atol=1e-5, err_msg=name)


def test_resume_in_a_folder_equals_an_uninterrupted_run(tmp_path):
    def trainer(folder, epochs):
        return deepseek.Trainer(net(), optimizer="adamw", schedule="constant", epochs=epochs, batch_size=64, output=str(folder))

    whole = trainer(tmp_path / "whole", 4)
    whole.fit(blobs(), progress=False)
    trainer(tmp_path / "parts", 2).fit(blobs(), progress=False)
    parts = trainer(tmp_path / "parts", 4)
    history = parts.fit(blobs(), resume=True, progress=False)
    assert len(history) == 4
    a, b = (deepseek.load(tmp_path / f / "last.safetensors") for f in ("whole", "parts"))
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert (tmp_path / "parts" / "config.yaml").read_text().startswith('device: "cpu"\nloss:')


def test_ctrl_c_saves_and_raises(tmp_path, capsys):
    trainer = deepseek.Trainer(net(), epochs=100000, batch_size=64, output=str(tmp_path / "run"))
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(blobs())
    finally:
        signal.signal(signal.SIGINT, before)
    assert "saved to" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_a_callback_after_each_epoch():
    seen = []
    history = deepseek.Trainer(net(), epochs=5, batch_size=64).fit(blobs(), blobs(seed=1), progress=False, callback=seen.append)
    assert len(history) == 5 and seen == history


def test_what_a_callback_raises_saves_and_ends(tmp_path):
    def fit(folder, **how):
        return deepseek.Trainer(net(), epochs=4, batch_size=64, output=str(tmp_path / folder)).fit(blobs(), blobs(seed=1), progress=False, **how)

    def stop(epoch):
        raise tune.PrunedTrial(f"after {epoch['epoch']}")

    whole = fit("whole")
    with pytest.raises(tune.PrunedTrial, match="after 1"):
        fit("parts", callback=stop)
    with pytest.raises(tune.PrunedTrial, match="after 2"):
        fit("parts", callback=stop, resume=True)
    assert [e["validation"] for e in fit("parts", resume=True)] == [e["validation"] for e in whole]


def test_mistakes_are_told_together():
    with pytest.raises(ValueError) as error:
        deepseek.Trainer(net(), optimizer=optim.SGD(momentun=0.9), batch_size=0, loss="cross_entrpy")
    for text in ("did you mean 'optimizer.momentum'?", "'train.batch_size' expected an integer >= 1, got '0'", "did you mean 'cross_entropy'?"):
        assert text in str(error.value)
    with pytest.raises(ValueError, match="unknown metric 'acc'"):
        deepseek.Trainer(net(), metrics=["acc"]).fit(blobs(), progress=False)
    with pytest.raises(ValueError, match="the data has 7 classes, the model predicts 3"):
        deepseek.Trainer(net()).fit((np.zeros((9, 2), np.float32), np.arange(9) % 7), progress=False)


@pytest.mark.parametrize("data, message", [
    ((np.zeros((0, 2), np.float32), np.zeros(0, int)), "the data set is empty"),
    ((np.array([[0, 1], [np.nan, 2]], np.float32), np.array([0, 1])), "'x' of sample 1 holds nan"),
    ((np.zeros((3, 2), np.float32), np.array([0, 1])), "'x' has 3 samples but 'y' 2"),
    ((np.zeros((3, 2), np.float32), np.array([0, -1, 2])), "label of sample 1 is -1"),
])
def test_bad_data_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        deepseek.Trainer(net()).fit(data, progress=False)


def test_wrong_shapes_name_the_layer():
    with pytest.raises(ValueError, match="matmul"):
        deepseek.Trainer(net()).fit((np.zeros((8, 5), np.float32), np.zeros(8, int)), progress=False)


def test_arrays_go_in_and_out_without_a_copy():
    x, y = blobs(10)
    data = deepseek.data.Dataset(x, y)
    assert np.shares_memory(data.inputs, x) and np.shares_memory(data.targets, y)
    t = torch.from_numpy(x)
    assert np.shares_memory(deepseek.data.Dataset(t, y).inputs, x)
    model = net()
    weight = model.state_dict()["0.weight"]
    assert torch.from_dlpack(weight).data_ptr() == weight.ctypes.data
    weight[...] = 0
    assert not model.state_dict()["0.weight"].any()


def test_files_round_trip_with_pytorchs(tmp_path):
    import safetensors.numpy

    model = net()
    deepseek.save(model, tmp_path / "m.safetensors", {"made": "here"})
    theirs = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    for name, value in deepseek.load(tmp_path / "m.safetensors").items():
        np.testing.assert_array_equal(value, theirs[name])
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        deepseek.load(tmp_path / "none.safetensors")
    (tmp_path / "bad").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="bad"):
        deepseek.load(tmp_path / "bad")


def test_profile_of_a_step_and_of_a_program():
    random = np.random.default_rng(2)
    x, y = random.standard_normal((64, 40)).astype(np.float32), random.integers(0, 5, 64)
    step = deepseek.compile(deepseek.models.create("mlp", [40], 5, width=64), optimizer=deepseek.optim.SGD(0.1))
    loss = step(x, y)
    nodes = step.profile(x, y)
    assert step.steps == 2 and step(x, y) < loss  # a profiled step trains as any other
    assert {"matmul", "fused"} < {n["op"] for n in nodes}
    assert all(n["seconds"] >= 0 and n["implementation"] for n in nodes)
    assert any(n["scope"].endswith("3") and n["types"] == "f32[64,64] f32[64,64] -> f32[64,64]" for n in nodes)
    program = deepseek.compile(deepseek.trace(lambda a: ops.tanh(a @ a), x[:40]))
    assert [n["op"] for n in program.profile([x[:40]])] == ["matmul", "tanh", "copy of states and outputs"]


def test_threads_may_run_programs_while_others_work():
    # The GIL is released: a Python thread counts on while a step runs.
    x = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    program = deepseek.compile(deepseek.trace(lambda a: ops.tanh(a @ a @ a @ a @ a @ a @ a @ a), x))
    count, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            count[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    results = [program.run([x])[0] for _ in range(5)]
    stop.set()
    thread.join()
    assert count[0] > 100
    for r in results:
        np.testing.assert_array_equal(r, results[0])
