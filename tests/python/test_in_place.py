"""Kernels whose result lies over an operand that dies there, and a step that scripts hold in a circle."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import deepseek
from deepseek import ops


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 130, 70), (600, 3, 2)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_over_its_operand(name, shape, axis):
    x = np.random.default_rng(3).standard_normal(shape, np.float32)

    class Model(deepseek.nn.Module):
        def __init__(self):
            super().__init__()
            self.values = deepseek.nn.Parameter(x.copy())

        def forward(self, scale):  # the cumulative sums, which no loop takes in, die in the softmax
            return getattr(ops, name)(ops.cumsum(self.values * scale, axis=0), axis=axis) + 0.0

    model = Model()
    weight = np.cos(np.arange(x.size, dtype=np.float32)).reshape(shape)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = getattr(torch, name)(torch.cumsum(leaf * 0.5, 0), axis)
    (expected * torch.tensor(weight)).sum().backward()
    half = np.array(0.5, np.float32)
    np.testing.assert_allclose(model(half), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    deepseek.compile(model, lambda p, t: ops.sum(p * t), deepseek.optim.SGD(lr=1.0))(half, weight)
    np.testing.assert_allclose(x - model.state_dict()["values"], leaf.grad.numpy(), rtol=1e-3, atol=2e-4)


def test_a_script_ends_quietly():
    code = """
import numpy as np, deepseek
model = deepseek.nn.Linear(4, 2)
step = deepseek.compile(model, lambda p, t: deepseek.ops.mean(p * t))
step(np.ones((3, 4), np.float32), np.ones((3, 2), np.float32))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
