"""Tensors without elements: layers, losses and attention beside PyTorch. Each axis of each op's samples is tests/ops/samples_test.cc's."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn
from deepseek.nn import functional as F


def zeros(*dims):
    return np.zeros(dims, np.float32)


def run(function, *arrays):
    return deepseek.compile(deepseek.trace(function, *arrays)).run(list(arrays))[0]


LAYERS = {
    "softmax": (lambda m: m.Softmax(1), (2, 0)), "log_softmax": (lambda m: m.LogSoftmax(1), (2, 0)), "softmax_rows": (lambda m: m.Softmax(1), (0, 3)),
    "silu": (lambda m: m.SiLU(), (0, 3)), "gelu": (lambda m: m.GELU(), (3, 0)), "linear": (lambda m: m.Linear(3, 4), (0, 3)),
    "conv": (lambda m: m.Conv2d(3, 4, 3, padding=1), (0, 3, 5, 5)), "layer_norm": (lambda m: m.LayerNorm(4), (0, 4)), "group_norm": (lambda m: m.GroupNorm(2, 4), (0, 4, 3)),
    "instance_norm": (lambda m: m.InstanceNorm2d(3), (0, 3, 4, 4)), "batch_norm": (lambda m: m.BatchNorm1d(3).eval(), (0, 3)), "batch_norm_2d": (lambda m: m.BatchNorm2d(3).eval(), (2, 3, 0, 4)),
    "max_pool": (lambda m: m.MaxPool2d(2), (0, 3, 4, 4)), "avg_pool": (lambda m: m.AvgPool2d(2), (0, 3, 4, 4)), "adaptive": (lambda m: m.AdaptiveAvgPool2d(2), (0, 3, 5, 5)),
    "dropout": (lambda m: m.Dropout(0.5), (0, 3)), "flatten": (lambda m: m.Flatten(), (0, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, shape = LAYERS[name]
    expected = make(torch.nn)(torch.zeros(shape)).detach().numpy()
    ours = make(nn)
    assert ours(zeros(*shape)).shape == expected.shape
    frozen = deepseek.freeze(ours.eval())
    assert frozen(zeros(*shape)).shape == expected.shape


LOSSES = {"mse_loss": lambda f: (lambda a: f.mse_loss(a, a)), "l1_loss": lambda f: (lambda a: f.l1_loss(a, a * 2)), "huber_loss": lambda f: (lambda a: f.huber_loss(a, a)),
          "bce": lambda f: (lambda a: f.binary_cross_entropy_with_logits(a, a)), "cross_entropy": lambda f: (lambda a: f.cross_entropy(a, a)), "sum": lambda f: (lambda a: f.mse_loss(a, a, reduction="sum"))}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    expected = LOSSES[name](torch.nn.functional)(torch.zeros(0, 5)).numpy()
    np.testing.assert_array_equal(run(LOSSES[name](F), zeros(0, 5)), expected)


@pytest.mark.parametrize("name,ours,theirs", [
    ("mean", lambda a: a.mean(), lambda a: a.mean()), ("mean of rows", lambda a: a.mean(1), lambda a: a.mean(1)), ("sum", lambda a: a.sum(1), lambda a: a.sum(1)),
    ("prod", lambda a: a.prod(1), lambda a: a.prod(1)), ("var", lambda a: a.var(), lambda a: a.var()), ("std", lambda a: a.std(1), lambda a: a.std(1)),
    ("cumsum", lambda a: a.cumsum(1), lambda a: a.cumsum(1)), ("topk", lambda a: a.topk(0, 1).values, lambda a: a.topk(0, 1).values), ("max of columns", lambda a: a.max(0).values, lambda a: a.max(0).values),
    ("broadcast", lambda a: a + a[:, :0], lambda a: a + a[:, :0]), ("matmul", lambda a: a @ a.mT, lambda a: a @ a.mT), ("reshape", lambda a: a.reshape(0, 7), lambda a: a.reshape(0, 7)),
])
def test_reductions(name, ours, theirs):
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run(ours, zeros(3, 0)), theirs(torch.zeros(3, 0)).numpy())


@pytest.mark.parametrize("q,k", [((1, 2, 3, 4), (1, 2, 0, 4)), ((1, 2, 0, 4), (1, 2, 5, 4)), ((0, 2, 3, 4), (0, 2, 5, 4))])
def test_attention(q, k):
    expected = torch.nn.functional.scaled_dot_product_attention(torch.zeros(q), torch.zeros(k), torch.zeros(k)).numpy()
    np.testing.assert_array_equal(run(F.scaled_dot_product_attention, zeros(*q), zeros(*k), zeros(*k)), np.nan_to_num(expected))


def test_mistakes():
    for function, message in ((lambda a: a.max(1).values, "at least one element"), (lambda a: a.argmax(1), "at least one element"), (lambda a: a.reshape(-1, 0), "cannot reshape")):
        with pytest.raises(ValueError, match=message):
            run(function, zeros(3, 0))
