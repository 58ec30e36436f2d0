"""Devices by name: what there is, and the same training on another one."""

import numpy as np
import pytest

import deepseek
from deepseek import nn, optim


def test_devices_are_listed_with_what_they_are():
    devices = deepseek.devices()
    assert list(devices)[:2] == ["cpu", "null"]
    assert devices["cpu"]["usable"] and devices["cpu"]["isa"] == deepseek.isa() and int(devices["cpu"]["threads"]) >= 1
    assert devices["null"]["kernels"] == "reference"


def _data():
    random = np.random.default_rng(3)
    x = random.normal(size=(24, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def _model():
    deepseek.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def test_training_is_the_same_on_a_device_whose_memory_is_its_own():
    """The null device copies on its way in and out: state stays there between steps and comes back where it is asked for."""
    x, y = _data()
    models, histories, scores = [], [], []
    for device in ("cpu", "null"):
        model = _model()
        trainer = deepseek.Trainer(model, loss="cross_entropy", optimizer=optim.SGD(lr=0.2, momentum=0.9), epochs=3, batch_size=8, ema_decay=0.5, seed=1, device=device)
        histories.append(trainer.fit((x, y), validation=(x, y), progress=False))
        scores.append((trainer.evaluate((x, y))["loss"], trainer.predict(x[:4])))
        models.append(model.state_dict())
    for a, b in zip(*histories):
        assert a["training"]["loss"] == pytest.approx(b["training"]["loss"], rel=1e-4)
        assert a["validation"]["loss"] == pytest.approx(b["validation"]["loss"], rel=1e-4)
    assert scores[0][0] == pytest.approx(scores[1][0], rel=1e-4)
    np.testing.assert_allclose(scores[0][1], scores[1][1], rtol=1e-3, atol=1e-5)
    for name, value in models[0].items():
        np.testing.assert_allclose(models[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_steps_of_ones_own_and_their_state():
    x, y = _data()
    states = []
    for device in ("cpu", "null"):
        model = _model()
        step = deepseek.compile(model, "cross_entropy", optim.SGD(lr=0.1, momentum=0.9), device=device)
        losses = [step(x, y) for _ in range(3)]
        assert losses[2] < losses[0]
        states.append({name: np.array(value) for name, value in step.state().items()})
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_graph_compiles_for_a_device():
    graph = deepseek.trace(lambda a: deepseek.ops.exp(a) * 2.0, np.zeros(3, np.float32))
    x = np.array([0, 1, -1], np.float32)
    for device in ("cpu", "null"):
        np.testing.assert_allclose(deepseek.compile(graph, device=device).run([x])[0], 2 * np.exp(x), rtol=1e-6)


def test_an_unknown_device_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match="there is no device 'cup'.*did you mean 'cpu'"):
        deepseek.compile(_model(), "cross_entropy", device="cup")
    trainer = deepseek.Trainer(_model(), loss="cross_entropy", device="gpu")
    with pytest.raises(ValueError, match="there is no device 'gpu'; there are: cpu, null"):
        trainer.fit(_data(), progress=False)
