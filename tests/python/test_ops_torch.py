"""Every op sample: our reference kernel (double) and the CPU program (float) against PyTorch."""
import numpy as np
import pytest

import torch  # the independent source of these tests
import deepseek

from torch_reference_conv import REFERENCE as CONV
from torch_reference_misc import REFERENCE as MISC

REFERENCE = {**MISC, **CONV}
# fused has no meaning of its own: it runs a body of other ops.
WITHOUT_TORCH = {"fused"}
NUMPY = {"f32": np.float32, "f64": np.float64, "i64": np.int64, "i32": np.int32, "u8": np.uint8, "i8": np.int8, "bool": np.bool_}
CASES = [(op, *sample) for op in deepseek.op_names() if op not in WITHOUT_TORCH for sample in deepseek.samples(op)]


def make(spec, random):
    dtype, dims, fill, limit = spec
    if fill == "normal":
        data = random.standard_normal(dims)
    elif fill == "uniform01":
        data = random.uniform(0.01, 0.99, dims)
    elif fill == "positive":
        data = random.uniform(0.5, 2.0, dims)
    elif fill == "indices":
        data = random.integers(0, limit, dims)
    elif fill == "bool":
        data = random.integers(0, 2, dims)
    else:
        data = random.uniform(0.1, 1.0, dims)
        data = data / data.sum()
    return np.array(data, dtype=NUMPY[dtype])


def test_every_op_has_a_torch_reference():
    assert set(deepseek.op_names()) - set(REFERENCE) == WITHOUT_TORCH


@pytest.mark.parametrize("op,name,specs,attrs,tolerance,graph", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_equals_torch(op, name, specs, attrs, tolerance, graph):
    random = np.random.default_rng(5)
    arrays = [make(spec, random) for spec in specs]
    wide = [torch.from_numpy(a.astype(np.float64) if a.dtype == np.float32 else a) for a in arrays]
    expected = REFERENCE[op](wide, attrs)
    expected = [e.detach().numpy() for e in (expected if isinstance(expected, (tuple, list)) else [expected])]
    ours = graph.evaluate_reference(arrays)
    actual = deepseek.compile(graph).run(arrays)
    assert len(ours) >= len(expected)
    for e, r, a in zip(expected, ours, actual):
        np.testing.assert_allclose(r, e.astype(np.float64), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(a.astype(np.float64), e.astype(np.float64), rtol=max(tolerance, 1e-5) * 4, atol=max(tolerance, 1e-5) * 4)


# batch_norm_grad ends the process in PyTorch; our references of blocked channels divide by them.
NOT_EMPTY = ("batch_norm_grad", "blocked_", "depthwise_")
EMPTY = [case for case in CASES if not case[0].startswith(NOT_EMPTY)]


@pytest.mark.parametrize("op,name,specs,attrs,tolerance,graph", EMPTY, ids=[f"{c[0]}-{c[1]}" for c in EMPTY])
def test_empty_axes_equal_torch(op, name, specs, attrs, tolerance, graph):
    """Each size of the inputs as 0: what both take gives the same shapes and values."""
    for size in {n for spec in specs for n in spec[1]} - {0}:
        random = np.random.default_rng(5)
        arrays = [make((dtype, [0 if n == size else n for n in dims], fill, limit), random) for dtype, dims, fill, limit in specs]
        try:
            variant = deepseek.trace(lambda *x: getattr(deepseek.ops, op)(*x, **attrs), *arrays)
        except ValueError:
            continue
        if op in ("conv", "cross_entropy") and arrays[0].shape[1] == 0:
            continue  # of no channels PyTorch makes no channels, of no classes NaN; sums of nothing are 0
        try:
            expected = REFERENCE[op]([torch.from_numpy(a.astype(np.float64) if a.dtype == np.float32 else a) for a in arrays], attrs)
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError):
            expected = []
        try:
            actual = deepseek.compile(variant).run(arrays)
        except (ValueError, RuntimeError):
            continue  # an index out of range
        expected = [e.detach().numpy() for e in (expected if isinstance(expected, (tuple, list)) else [expected])]
        for e, a in zip(expected, actual):
            assert a.shape == e.shape
            np.testing.assert_allclose(a.astype(np.float64), e.astype(np.float64), rtol=max(tolerance, 1e-5) * 4, atol=max(tolerance, 1e-5) * 4)
