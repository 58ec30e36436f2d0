"""Attention without the matrix of scores: beside PyTorch, forward and backward, at lengths of several blocks of queries."""

import numpy as np
import pytest
import torch

import deepseek
from deepseek import ops


def check(q, k, v, mask=None, causal=False):
    """Compares y and the gradients of sum(y * weight) by all float operands with PyTorch in float64."""
    weight = np.cos(np.arange(q.shape[0] * q.shape[1] * q.shape[2] * v.shape[3], dtype=np.float32)).reshape(*q.shape[:3], v.shape[3])

    class Model(deepseek.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (deepseek.nn.Parameter(x.copy()) for x in (q, k, v))
            if mask is not None and mask.dtype == np.float32:
                self.mask = deepseek.nn.Parameter(mask.copy())

        def forward(self, x):
            operands = [self.q, self.k, self.v]
            if mask is not None:
                operands.append(self.mask if mask.dtype == np.float32 else ops.not_equal(x, 0.0))
            return ops.attention(*operands, causal=causal)

    model = Model()
    x = np.zeros(1, np.float32) if mask is None or mask.dtype == np.float32 else mask.astype(np.float32)
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    y = model(x)
    step = deepseek.compile(model, lambda p, t: ops.sum(p * t), deepseek.optim.SGD(lr=1.0))
    step(x, weight)
    grads = {name: before[name] - value for name, value in model.state_dict().items()}

    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in before.items()}
    seen = leaves["mask"] if "mask" in leaves else None if mask is None else torch.tensor(mask)
    if causal and seen is not None:
        lower = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        seen = seen & lower if seen.dtype == torch.bool else seen.masked_fill(~lower, -np.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(leaves["q"], leaves["k"], leaves["v"], attn_mask=seen,
                                                                is_causal=causal and seen is None)
    (expected * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(grads[name], leaf.grad.numpy(), rtol=1e-3, atol=2e-4, err_msg=name)


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def has_native(step, op):
    return any(node["op"] == op and node["implementation"].startswith("native") for node in step)


@pytest.mark.parametrize("lengths", [(1, 1), (32, 32), (33, 65), (100, 7), (64, 200)])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(lengths, causal):
    queries, keys = lengths
    check(normal(2, 3, queries, 16), normal(2, 3, keys, 16), normal(2, 3, keys, 24), causal=causal)


@pytest.mark.parametrize("shape", [(2, 3, 40, 50), (1, 3, 40, 50), (2, 1, 1, 50), (40, 1), (3, 1, 1)])
def test_masks_broadcast(shape):
    random = np.random.default_rng(1)
    seen = random.random(shape) < 0.7
    if seen.shape[-1] == 1:
        seen[...] = True  # a row without a key is another test's
    check(normal(2, 3, 40, 8), normal(2, 3, 50, 8), normal(2, 3, 50, 8), mask=seen)
    check(normal(2, 3, 40, 8), normal(2, 3, 50, 8), normal(2, 3, 50, 8), mask=normal(*shape))


def test_causal_with_mask():
    seen = np.random.default_rng(2).random((2, 1, 1, 40)) < 0.8
    seen[..., 0] = True
    check(normal(2, 2, 40, 8), normal(2, 2, 40, 8), normal(2, 2, 40, 8), mask=seen, causal=True)


def test_a_row_without_keys_attends_evenly():
    q, k, v = normal(1, 2, 5, 4), normal(1, 2, 6, 4), normal(1, 2, 6, 4)

    class Blind(deepseek.nn.Module):
        def forward(self, q, k, v):
            return ops.attention(q, k, v, ops.greater(v[:, :1, :1, :1], 1e9))

    np.testing.assert_allclose(Blind()(q, k, v), np.broadcast_to(v.mean(2, keepdims=True), (1, 2, 5, 4)), rtol=1e-5, atol=1e-6)


def test_memory_grows_with_the_length_not_with_its_square():
    class Attend(deepseek.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = deepseek.nn.Parameter(np.ones((1, 1, 1, 32), np.float32))

        def forward(self, x):
            return ops.attention(x * self.scale, x, x)

    def memory(length):
        step = deepseek.compile(Attend(), lambda p, t: ops.mean(p * t), deepseek.optim.SGD(lr=0.1))
        x = normal(1, 2, length, 32)
        step(x, x)
        kernels = step.profile(x, x)
        return step.memory_bytes, kernels

    (small, _), (large, kernels) = memory(256), memory(2048)
    if not (has_native(kernels, "attention") and has_native(kernels, "attention_grad")):
        pytest.skip("no code generator for this CPU: attention runs in parts")
    assert large < 9 * small
