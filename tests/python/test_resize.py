"""A new batch size needs no new trace where the code treats all sizes alike, and gets one where it does not."""

import numpy as np
import pytest

import deepseek
from deepseek import nn, ops


class Counted(nn.Module):
    """Calls `function(self, x)` and counts how often."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.function, self.traces = function, 0

    def forward(self, x):
        self.traces += 1
        return self.function(self, x)


def halves(m, x):
    y = x.reshape(x.shape[0], 2, -1)[:, 0].unsqueeze(1).expand(x.shape[0], 2, 3).flatten(1)
    return m.layer(y) + np.zeros(4, np.float32)


def looks(m, x):
    return m.layer(x) if x.shape[0] > 5 else m.layer(x) * 2.0


def looks_by_int(m, x):
    return m.layer(x) if int(x.shape[0]) > 5 else m.layer(x) * 2.0


def scales(m, x):
    return m.layer(x) / float(x.shape[0])


def scales_by_value(m, x):
    return m.layer(x) * x.shape[0]


def counts(m, x):
    return m.layer(x) + np.arange(x.shape[0], dtype=np.float32)[:, None]


def half_of_it(m, x):
    return m.layer(x[:x.shape[0] // 2])


def loops(m, x):
    y = m.layer(x)
    for _ in range(len(x)):
        y = y + 1.0
    return y


SIZES = (4, 8, 6, 5, 1, 7, 2, 6, 4)


@pytest.mark.parametrize("function, alike", [(halves, True), (looks, False), (looks_by_int, False), (scales, False), (scales_by_value, False),
                                             (counts, False), (half_of_it, False), (loops, False)])
def test_results_are_those_of_a_fresh_trace(function, alike):
    model = Counted(function).eval()
    for n in SIZES:
        x = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
        fresh = Counted(function).eval()
        fresh.load_state_dict(model.state_dict())
        np.testing.assert_allclose(model(x), fresh(x), rtol=1e-6, err_msg=f"batch {n}")
    assert model.traces == 2 if alike else model.traces > 2


def test_a_training_step_traces_twice():
    deepseek.manual_seed(3)
    inner = Counted(lambda m, x: m.layer(x[:, :6]))
    step = deepseek.compile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), inner),
                            lambda p, y: ops.cross_entropy(p, y), "adam")
    for n in SIZES:
        step(np.random.default_rng(n).normal(size=(n, 3, 6, 6)).astype(np.float32), np.arange(n) % 4)
        nn.Linear(2, 2)  # another module changes nothing
    assert inner.traces == 2


def test_a_trainer_traces_twice_for_training_and_once_or_twice_else():
    inner = Counted(lambda m, x: m.layer(x))
    trainer = deepseek.Trainer(inner, loss="cross_entropy", optimizer="sgd", epochs=3, batch_size=8)
    x, y = np.random.default_rng(0).normal(size=(29, 6)).astype(np.float32), np.arange(29) % 4
    trainer.fit((x, y), progress=False)  # batches of 8 and of 5
    assert inner.traces == 2
    for n in (1, 2, 3, 5, 7, 11):
        assert trainer.predict(x[:n]).shape == (n, 4)
    assert inner.traces == 4


def test_the_step_of_a_third_size_equals_a_traced_one():
    def run(sizes):
        deepseek.manual_seed(5)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        losses = {}
        for n in sizes:
            step = step if n != sizes[0] else deepseek.compile(model, "cross_entropy", "sgd")
            step.learning_rate = 0.0
            losses[n] = step(np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32), np.arange(n) % 4)
        return losses, np.array(step.prediction)

    mixed, prediction = run((4, 8, 6))
    assert mixed[6] == pytest.approx(run((6,))[0][6], rel=1e-6)
    np.testing.assert_allclose(prediction, run((6,))[1], rtol=1e-5, atol=1e-6)


def test_programs_are_kept_up_to_a_bound():
    model = Counted(halves).eval()
    for n in (*range(1, 41), 40, 39, 30):
        assert model(np.ones((n, 6), np.float32)).shape == (n, 4)
    assert model.traces == 2
    assert model._calls.programs == 40
    for n in range(1, 301):
        model(np.ones((n, 6), np.float32))
    assert model._calls.programs == 256


def test_a_changed_module_is_traced_anew():
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)).eval()
    x = np.ones((3, 6), np.float32)
    first = model(x)
    np.testing.assert_array_equal(model(x), first)
    model[0].load_state_dict({"weight": np.zeros((4, 6), np.float32), "bias": np.ones(4, np.float32)})
    np.testing.assert_array_equal(model(x), np.ones((3, 4)))
    model.train()
    assert set(np.unique(np.concatenate([model(x) for _ in range(8)]))) == {0.0, 2.0}
    model.eval()
    np.testing.assert_array_equal(model(x), np.ones((3, 4)))
    model[0].weight = nn.Parameter(np.ones((4, 6), np.float32))
    np.testing.assert_array_equal(model(x), np.full((3, 4), 7.0))
