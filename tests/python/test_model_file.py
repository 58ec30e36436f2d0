"""Model files: saved by a trainer, used in another process without the code and the data."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import safetensors.numpy

import deepseek
from deepseek import nn, ops, optim

from test_named_batches import Both, two_terms

RNG = np.random.default_rng(3)
N = 40
BATCH = {"image": RNG.normal(size=(N, 1, 6, 6)).astype(np.float32), "table": RNG.normal(size=(N, 5)).astype(np.float32),
         "kind": RNG.choice(["red", "green", "blue"], N), "value": RNG.normal(size=N)}
INPUTS = {"image": BATCH["image"], "table": BATCH["table"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.dsk"
    deepseek.manual_seed(0)
    trainer = deepseek.Trainer(Both(), loss=two_terms, metrics=None, epochs=2, batch_size=8)
    trainer.fit(BATCH, progress=False)
    trainer.save(path)
    return path, trainer.predict(INPUTS), trainer


def test_a_session_gives_the_trainers_bits(saved):
    path, expected, _ = saved
    session = deepseek.InferenceSession(path)
    kind, = session.run(["kind"], INPUTS)
    np.testing.assert_array_equal(kind, expected["kind"])
    value, kind = session.run(["value", "kind"], {name: values[:7] for name, values in INPUTS.items()})
    np.testing.assert_allclose(kind, expected["kind"][:7], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, expected["value"][:7], rtol=1e-5, atol=1e-6)
    assert [(p.name, p.dtype, p.shape) for p in session.inputs] == [("image", "f32", (None, 1, 6, 6)), ("table", "f32", (None, 5))]
    assert {p.name: p.shape for p in session.outputs} == {"kind": (None, 3), "value": (None,)}
    assert session.class_names == {"kind": ["blue", "green", "red"]}
    assert session.provenance["framework_version"] == deepseek.__version__
    assert len(session.run(None, INPUTS)) == 2


def test_another_process_needs_neither_code_nor_data(saved, tmp_path):
    path, expected, _ = saved
    np.savez(tmp_path / "in.npz", **INPUTS)
    code = f"""
import numpy as np, deepseek
x = dict(np.load({str(tmp_path / 'in.npz')!r}))
kind, value = deepseek.InferenceSession({str(path)!r}).run(["kind", "value"], x)
np.savez({str(tmp_path / 'out.npz')!r}, kind=kind, value=value)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
    out = np.load(tmp_path / "out.npz")
    for name in ("kind", "value"):
        np.testing.assert_array_equal(out[name], expected[name])


def test_any_reader_of_safetensors_sees_the_weights(saved):
    path, _, trainer = saved
    weights = safetensors.numpy.load_file(path)
    state = trainer.model.state_dict()
    assert set(state) <= set(weights)
    for name, value in state.items():
        np.testing.assert_array_equal(weights[name], value)


def test_threads_share_a_session(saved):
    path, expected, _ = saved
    session = deepseek.InferenceSession(path, warm_up=[N])
    assert session._core.programs == 1
    wrong = []

    def work():
        for _ in range(5):
            kind, = session.run(["kind"], INPUTS)
            if not np.array_equal(kind, expected["kind"]):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(64)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_mistakes_are_told(saved, tmp_path):
    path, _, trainer = saved
    session = deepseek.InferenceSession(path)
    with pytest.raises(ValueError, match="did you mean 'image'"):
        session.run(["kind"], {"imag": INPUTS["image"], "table": INPUTS["table"]})
    with pytest.raises(ValueError, match="'table'"):
        session.run(["kind"], {"image": INPUTS["image"]})
    with pytest.raises(ValueError, match="kinds"):
        session.run(["kinds"], INPUTS)
    with pytest.raises(TypeError, match="expected a dict of arrays by name \\(image, table\\)"):
        session.run(None, [1])
    with pytest.raises(FileNotFoundError):
        deepseek.InferenceSession(tmp_path / "none.dsk")
    deepseek.save(trainer.model, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="weights"):
        deepseek.InferenceSession(tmp_path / "weights.safetensors")
    (tmp_path / "half.dsk").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="half.dsk"):
        deepseek.InferenceSession(tmp_path / "half.dsk")
    with pytest.raises(ValueError, match="call fit\\(\\) before it is saved"):
        deepseek.Trainer(Both()).save(tmp_path / "m.dsk")
    with pytest.raises(ValueError, match="arrays"):
        session.predict("new.csv")


def test_a_session_is_pickled_by_its_path(saved):
    path, expected, _ = saved
    session = pickle.loads(pickle.dumps(deepseek.InferenceSession(path)))
    np.testing.assert_array_equal(session.run(["kind"], INPUTS)[0], expected["kind"])


def test_convolutions_and_norms_give_the_trainers_bits(tmp_path):
    """Also where weights of a norm could be folded into others."""
    deepseek.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 4))
    x, y = RNG.normal(size=(64, 3, 12, 12)).astype(np.float32), RNG.integers(0, 4, 64)
    trainer = deepseek.Trainer(model, optimizer=optim.Adam(lr=0.01), epochs=2)
    trainer.fit((x, y), progress=False)
    trainer.save(tmp_path / "conv.dsk")
    out, = deepseek.InferenceSession(tmp_path / "conv.dsk").run(None, {"x": x})
    np.testing.assert_array_equal(out, trainer.predict(x))


def test_a_run_keeps_its_model(tmp_path):
    deepseek.manual_seed(2)
    x, y = RNG.normal(size=(30, 4)).astype(np.float32), RNG.integers(0, 2, 30)
    trainer = deepseek.Trainer(nn.Linear(4, 2), epochs=3, output=str(tmp_path / "run"))
    history = trainer.fit((x, y), validation=(x, y), progress=False)
    run = deepseek.load_run(tmp_path / "run")
    assert [e["validation"] for e in run.history] == [e["validation"] for e in history]
    np.testing.assert_array_equal(run.session.run(None, {"x": x})[0], trainer.predict(x))
    np.testing.assert_array_equal(run.state_dict()["weight"], trainer.model.state_dict()["weight"])
    assert "epochs: 3" in run.config
    with pytest.raises(FileNotFoundError, match="is '.*none' a run folder"):
        deepseek.load_run(tmp_path / "none")


def test_a_model_that_draws_when_it_evaluates_is_told_while_training(tmp_path, capfd):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x) + ops.sum(self.fc(x)) * 0

    trainer = deepseek.Trainer(Noisy(), epochs=1, output=str(tmp_path / "run"))
    trainer.fit((RNG.normal(size=(8, 4)), RNG.integers(0, 2, 8)), progress=False)
    assert (tmp_path / "run" / "model.dsk").exists()
