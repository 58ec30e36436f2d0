"""Integers and sums that a narrow type, or double, does not hold: beside PyTorch and NumPy."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import _core

HALVES = {"f16": torch.float16, "bf16": torch.bfloat16}


def run(function, *arrays):
    return deepseek.compile(deepseek.trace(function, *arrays)).run(list(arrays))[0]


def gradient(function, x):
    return deepseek.compile(_core.autodiff(deepseek.trace(function, x), "y0", ["x0"])).run([x])[1]


@pytest.mark.parametrize("dtype,value,n", [(np.uint8, 200, 400), (np.int8, -100, 400), (np.int32, 2**30, 5), (np.int64, 2**62, 3), (np.bool_, True, 300)])
@pytest.mark.parametrize("name", ["sum", "prod", "cumsum"])
def test_totals_of_integers(name, dtype, value, n):
    for x, dim in ((np.full(n, value, dtype), 0), (np.full((3, n), value, dtype), 1), (np.full((n, 40), value, dtype), 0)):
        got, expected = run(lambda a: getattr(a, name)(dim), x), getattr(torch.tensor(x), name)(dim).numpy()
        assert got.dtype == expected.dtype == np.int64
        np.testing.assert_array_equal(got, expected)
    for name in ("amax", "amin"):
        if dtype != np.bool_:
            assert run(lambda a: getattr(a, name)(0), np.full(n, value, dtype)).dtype == dtype


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0, 7])
def test_integer_constants_are_exact(number):
    a = np.array([0, 1, 2**53, -5], np.int64)
    for function in (lambda x: x + number, lambda x: number - x, lambda x: x == number, lambda x: x < number, lambda x: x * 1 + number):
        np.testing.assert_array_equal(run(function, a), function(torch.tensor(a)).numpy())
    np.testing.assert_array_equal(run(lambda x: x + number, np.zeros(1, np.int64)), [number])
    np.testing.assert_array_equal(run(lambda x: x + (np.array([number]) + np.array([0])), np.zeros(1, np.int64)), [number])


def test_constants_of_constants_are_exact():
    big = np.array([2**53 + 1, 2**60 + 3], np.int64)

    def function(x):
        constant = deepseek.ops.add(deepseek.ops.constant(value=big), deepseek.ops.constant(value=np.ones(2, np.int64)))
        return x + constant

    np.testing.assert_array_equal(run(function, np.zeros(2, np.int64)), big + 1)


@pytest.mark.parametrize("dtype,number", [(np.uint8, -1), (np.uint8, 300), (np.int8, 128), (np.int32, 2**31), (np.int64, 2**63), (np.int64, 10**30)])
def test_numbers_that_do_not_fit(dtype, number):
    with pytest.raises((ValueError, OverflowError), match="fit|out of bounds"):
        run(lambda a: a + number, np.ones(1, dtype))


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", ["mean", "amax", "amin", "var", "std"])
def test_half_floats_of_many_elements(name, kind):
    x = np.random.default_rng(0).standard_normal(70_001).astype(np.float32)
    x[:66_000] = np.round(x[:66_000])
    if name in ("amax", "amin"):
        x[:66_000] = 4 if name == "amax" else -4  # ties
        x = np.clip(x, -4, 4)
    t = torch.tensor(x).to(HALVES[kind]).requires_grad_()
    expected = getattr(t, name)()
    expected.backward()
    half = lambda a: getattr(a.to(kind), name)()  # noqa: E731
    tolerance = {"rtol": 1e-3, "atol": 1e-7} if kind == "f16" else {"rtol": 8e-3, "atol": 1e-8}
    np.testing.assert_allclose(run(lambda a: half(a).to("f32"), x), expected.detach().float().numpy(), **tolerance)
    np.testing.assert_allclose(gradient(lambda a: half(a).to("f32"), x), t.grad.float().numpy(), **tolerance)


@pytest.mark.parametrize("kind", HALVES)
def test_half_float_losses_of_many_targets(kind):
    random = np.random.default_rng(1)
    x, target = random.standard_normal((70_000, 3)).astype(np.float32), random.integers(0, 3, 70_000)
    expected = torch.nn.functional.cross_entropy(torch.tensor(x), torch.tensor(target)).item()
    got = run(lambda a: deepseek.nn.functional.cross_entropy(a.to(kind), target).to("f32"), x)
    np.testing.assert_allclose(got, expected, rtol=1e-2)
    p, t = random.random((1, 1, 300, 300)).astype(np.float32), (random.random((1, 1, 300, 300)) < 0.5).astype(np.float32)
    wide = run(deepseek.nn.functional.dice_loss, p, t)
    np.testing.assert_allclose(run(lambda a, b: deepseek.nn.functional.dice_loss(a.to(kind), b.to(kind)).to("f32"), p, t), wide, rtol=1e-2)


def test_sin_and_cos_of_large_numbers():
    x = np.array([1e6, 3e7, 1e8, 1.7e9, 1e10, 3e38, np.inf, 38_999, 39_001, 0.5], np.float32)
    for x in (x, np.tile(x, 7), -x):
        for name in ("sin", "cos"):
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(run(lambda a: getattr(a, name)(), x), getattr(np, name)(x.astype(np.float64)), atol=2e-6, equal_nan=True)
