"""freeze(): equal to PyTorch and to the module, for all the zoo; what is promised of later changes; errors."""
import os

import numpy as np
import pytest
import torch
from test_zoo import CASES

import deepseek
from deepseek import nn, ops


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_model_predicts_as_torch(case):
    name, parameters, build, make_inputs = CASES[case]
    torch.manual_seed(5)
    theirs = build()
    arrays = make_inputs(np.random.default_rng(4))
    model = deepseek.models.create(name, arrays[0].shape[1:], 5, **parameters).eval()
    model.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    inputs = [torch.from_numpy(a) for a in arrays]
    with torch.no_grad():
        expected = theirs.double().eval()(*(x.double() if x.is_floating_point() else x for x in inputs)).numpy()
    frozen = deepseek.freeze(model)
    for _ in range(2):
        assert np.abs(frozen(*arrays) - expected).max() <= 1e-4 * np.abs(expected).max()


class Pair(nn.Module):
    """A dict of two results, from arguments by place and by name."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, scale=None):
        y = self.linear(x)
        return {"y": y if scale is None else y * scale, "mean": ops.mean(y)}


def test_structures_shapes_and_later_changes():
    model = Pair().eval()
    frozen = deepseek.freeze(model)
    x, scale = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32), np.float32([1, 2, 3])
    before = {key: value.copy() for key, value in model(x, scale=scale).items()}
    np.testing.assert_allclose(frozen(x, scale=scale)["y"], before["y"], rtol=1e-6)
    np.testing.assert_allclose(frozen(x[:2])["y"], model(x[:2])["y"], rtol=1e-6)
    model.linear.weight.data[...] = 0
    model.linear.bias.data[...] = 0
    np.testing.assert_allclose(frozen(x, scale=scale)["mean"], before["mean"], rtol=1e-6)
    with pytest.raises(RuntimeError, match=r"weights have changed since freeze\(\).*\(3, 4\).*call freeze"):
        frozen(x[:3])
    frozen = deepseek.freeze(model)
    assert not np.any(frozen(x)["y"])
    frozen = deepseek.freeze(model)
    model.linear.bias.data[...] = 1
    with pytest.raises(RuntimeError, match="weights have changed"):
        frozen(x)


def test_measured_kernels_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSEEK_CACHE", str(tmp_path))
    deepseek.set_num_threads(1)  # choices are per number of threads; no other test asks for those of one
    try:
        model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1)).eval()
        x = np.random.default_rng(0).standard_normal((2, 32, 24, 24)).astype(np.float32)
        expected = model(x)
        chosen = []
        for _ in range(2):
            frozen = deepseek.freeze(model, kernels="measured")
            np.testing.assert_allclose(frozen(x), expected, rtol=1e-4, atol=1e-5)
            chosen.append([node["implementation"] for node in frozen.profile(x)])
        assert chosen[0] == chosen[1]
    finally:
        deepseek.set_num_threads(os.cpu_count())
    with pytest.raises(ValueError, match="expected 'listed' or 'measured', got 'fast'"):
        deepseek.freeze(model, kernels="fast")


def test_a_module_in_training_mode_is_refused():
    model = Pair()
    with pytest.raises(ValueError, match="Pair or a part of it is in training mode; call eval"):
        deepseek.freeze(model)
    frozen = deepseek.freeze(model.eval())
    model.train()
    with pytest.raises(RuntimeError, match="training mode again"):
        frozen(np.zeros((1, 4), np.float32))
    with pytest.raises(TypeError, match="expected arrays"):
        frozen(3)
