"""Values and gradients where formulas break: NaN, infinities, zeros, corners and ties, beside PyTorch."""
import itertools

import numpy as np
import pytest
import torch

import deepseek
from deepseek import _core, nn
from deepseek.nn import functional as F
from torch_reference_misc import REFERENCE

POINTS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, 88.0, -88.0, 150.0, -150.0, 1e5, 3e38, -3e38, 1e-40], np.float32)
UNARY = ["neg", "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf", "floor", "ceil", "round", "relu",
         "silu", "hard_swish", "hard_sigmoid", "elu", "leaky_relu", "clamp", "gelu"]
BINARY = ["add", "sub", "mul", "div", "pow", "maximum", "minimum"]
COMPARISONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
ATTRS = {"clamp": {"min": -1.0, "max": 0.5}}


def run(function, *arrays):
    return deepseek.compile(deepseek.trace(function, *arrays)).run(list(arrays))


def gradients(function, *arrays):
    graph = deepseek.trace(lambda *a: function(*a).sum(), *arrays)
    return deepseek.compile(_core.autodiff(graph, "y0", [f"x{i}" for i in range(len(arrays))])).run(list(arrays))[1:]


def torch_gradients(function, *arrays):
    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    function(*inputs).sum().backward()
    return [t.grad.numpy() for t in inputs]


def emit(name):
    return lambda *inputs: getattr(deepseek.ops, name)(*inputs, **ATTRS.get(name, {}))


def reference(name):
    return lambda *inputs: REFERENCE[name](list(inputs), ATTRS.get(name, {}))


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    points = POINTS[np.abs(POINTS) != np.float32(3e38)] if name == "hard_swish" else POINTS  # PyTorch's overflows there
    for x in (points, np.tile(points, 40)):  # whole vectors, and what is left of one
        np.testing.assert_allclose(run(emit(name), x)[0], reference(name)(torch.tensor(x)).numpy(), rtol=2e-6, atol=1e-30 if name != "erf" else 2e-7)


@pytest.mark.parametrize("name", UNARY)
def test_unary_gradient(name):
    x = POINTS[np.isfinite(POINTS)]
    np.testing.assert_allclose(gradients(emit(name), x)[0], torch_gradients(reference(name), x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BINARY + COMPARISONS)
def test_binary(name):
    a, b = np.array(list(itertools.product(POINTS, POINTS)), np.float32).T.copy()
    np.testing.assert_allclose(run(emit(name), a, b)[0], reference(name)(torch.tensor(a), torch.tensor(b)).numpy(), rtol=2e-6)


@pytest.mark.parametrize("name", BINARY)
def test_binary_gradient(name):
    points = POINTS[np.abs(POINTS) <= 6]
    a, b = np.array(list(itertools.product(points, points)), np.float32).T.copy()
    for ours, theirs in zip(gradients(emit(name), a, b), torch_gradients(reference(name), a, b)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_arg_extremes_of_nan():
    for v in ([1, np.nan, 3, 2], [np.nan, 1, 3], [1, 2, np.nan], [np.inf, np.nan, -np.inf], [np.nan, np.nan]):
        for dtype in (np.float32, np.float64, np.float16):
            x = np.tile(np.array(v, dtype)[:, None], (1, 70))
            for name in ("argmax", "argmin"):
                np.testing.assert_array_equal(run(lambda a: getattr(a, name)(0), x)[0], getattr(torch.tensor(x.astype(np.float64)), name)(0).numpy())
            graph = deepseek.trace(lambda a: a.argmax(0), x)
            np.testing.assert_array_equal(graph.evaluate_reference([x])[0], np.argmax(x, 0))


@pytest.mark.parametrize("values", [[2, 3, 4], [2, 0, 3, 4], [2, 0, 3, 0], [0, 0], [-1, 0, 5]])
def test_gradient_of_products(values):
    x = np.array(values, np.float32)
    np.testing.assert_allclose(gradients(lambda a: a.prod(), x)[0], torch_gradients(lambda a: a.prod(), x)[0])
    rows = np.stack([x, np.full(len(x), 2, np.float32)])
    np.testing.assert_allclose(gradients(lambda a: a.prod(1), rows)[0], torch_gradients(lambda a: a.prod(1), rows)[0])


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_ties_of_extremes(name):
    x = np.array([[1, 2, 2], [3, 3, 3]], np.float32)
    np.testing.assert_allclose(gradients(lambda a: getattr(a, name)(1), x)[0], torch_gradients(lambda a: getattr(a, name)(1), x)[0])


@pytest.mark.parametrize("power", [0, 1, 2, -1, 0.5, 3])
def test_gradient_of_constant_powers(power):
    x = np.array([0, 2, 1e-3], np.float32)
    np.testing.assert_allclose(gradients(lambda a: a ** power, x)[0], torch_gradients(lambda a: a ** power, x)[0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("correction", [0, 1, 2, 3, 7])
def test_variance_by_correction(correction):
    for x in (np.array([1, 2], np.float32), np.array([3, 3, 3], np.float32), np.array([5], np.float32)):
        for name in ("var", "std"):
            function = lambda a: getattr(a, name)(correction=correction)  # noqa: E731
            np.testing.assert_allclose(run(function, x)[0], function(torch.tensor(x)).numpy(), rtol=1e-6)
            if correction < len(x):
                np.testing.assert_allclose(gradients(function, x)[0], torch_gradients(function, x)[0], rtol=1e-5)
    x = np.ones((2, 3), np.float32)  # one row is still, the other isn't
    x[1, 0] = 4
    np.testing.assert_allclose(gradients(lambda a: a.std(1), x)[0], torch_gradients(lambda a: a.std(1), x)[0], rtol=1e-5)


@pytest.mark.parametrize("hidden", [(1,), (0, 1, 2), ()])
@pytest.mark.parametrize("width", [3, 40])
def test_attention_rows_that_see_nothing(hidden, width):
    random = np.random.default_rng(3)
    q, k, v = (random.normal(size=(1, 2, width, 4)).astype(np.float32) for _ in range(3))
    mask = np.where(random.random((width, width)) < 0.3, -np.inf, 0).astype(np.float32)
    mask[:, 0] = 0
    mask[list(hidden)] = -np.inf
    seen = [i for i in range(width) if i not in hidden]
    ours = lambda a, b, c: F.scaled_dot_product_attention(a, b, c, attn_mask=mask)  # noqa: E731
    y = run(ours, q, k, v)[0]
    np.testing.assert_allclose(y[:, :, list(hidden)], np.repeat(v.mean(2, keepdims=True), len(hidden), 2), rtol=1e-4, atol=1e-6)  # evenly
    expected = torch.nn.functional.scaled_dot_product_attention(*(torch.tensor(x) for x in (q, k, v)), attn_mask=torch.tensor(mask)).numpy()
    np.testing.assert_allclose(y[:, :, seen], expected[:, :, seen], rtol=1e-4, atol=1e-5)
    if not seen:
        return
    theirs = lambda a, b, c: torch.nn.functional.scaled_dot_product_attention(a, b, c, attn_mask=torch.tensor(mask))[:, :, seen]  # noqa: E731
    weight = np.zeros((width, 1), np.float32)
    weight[seen] = 1
    for g, e in zip(gradients(lambda a, b, c: ours(a, b, c) * weight, q, k, v), torch_gradients(theirs, q, k, v)):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-5)
    # The mask as a variable, of which a gradient is wanted, and half floats.
    mask_grad = gradients(lambda a, b, c, m: F.scaled_dot_product_attention(a, b, c, attn_mask=m) * weight, q, k, v, mask)[3]
    assert np.isfinite(mask_grad).all()
    half = run(lambda a, b, c: F.scaled_dot_product_attention(a.to("f16"), b.to("f16"), c.to("f16"), attn_mask=mask.astype(np.float16)), q, k, v)[0]
    np.testing.assert_allclose(half.astype(np.float32), y, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("scale", [0.0, 0.3, -0.7, None])
def test_attention_scale(scale):
    random = np.random.default_rng(4)
    q, k, v = (random.normal(size=(2, 2, 5, 4)).astype(np.float32) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(*(torch.tensor(x) for x in (q, k, v)), scale=scale).numpy()
    np.testing.assert_allclose(run(lambda a, b, c: F.scaled_dot_product_attention(a, b, c, scale=scale), q, k, v)[0], expected, rtol=1e-4, atol=1e-5)


def test_masks_of_modules_are_independent():
    x = np.ones(2000, np.float32)
    deepseek.manual_seed(5)
    a, b = nn.Dropout(0.5), nn.Dropout(0.5)
    first, second = a(x), b(x)
    for one, other in ((first, second), (first, a(x)), (second, b(x))):
        assert 0.45 < (one == other).mean() < 0.55
    deepseek.manual_seed(5)
    np.testing.assert_array_equal(nn.Dropout(0.5)(x), first)


@pytest.mark.parametrize("loss,keywords,message", [
    (F.huber_loss, {"delta": 0.0}, "delta > 0"), (F.huber_loss, {"delta": float("nan")}, "delta > 0"), (F.quantile_loss, {"quantile": 1.0}, r"quantile in \(0, 1\)"),
    (F.quantile_loss, {"quantile": -0.1}, r"quantile in \(0, 1\)"), (F.sigmoid_focal_loss, {"gamma": -1.0}, "gamma >= 0")])
def test_bounds_of_losses(loss, keywords, message):
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=message):
        deepseek.trace(lambda a: loss(a, a, **keywords), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape,dim", [((3, 300), 1), ((300, 3), 0), ((7, 40, 9), 1), ((5, 70, 33), 2), ((1, 2000), 1), ((2000,), 0)])
def test_extremes_of_nan(shape, dim, dtype):
    random = np.random.default_rng(6)
    x = random.standard_normal(shape).astype(dtype)
    x[random.random(shape) < 2 / shape[dim]] = np.nan
    x[random.random(shape) < 1 / shape[dim]] = np.inf
    x[random.random(shape) < 1 / shape[dim]] = -np.inf
    t = torch.tensor(x)
    for name in ("amax", "amin", "argmax", "argmin"):
        np.testing.assert_array_equal(run(lambda a: getattr(a, name)(dim), x)[0], getattr(t, name)(dim).numpy())
    for largest in (True, False):
        values = run(lambda a: a.topk(3, dim, largest).values, x)[0]
        np.testing.assert_array_equal(values, torch.topk(t, 3, dim, largest).values.numpy())


def test_pools_of_nan():
    x = np.random.default_rng(7).standard_normal((2, 3, 8, 9)).astype(np.float32)
    x[0, 0, 2, 3] = x[1, 2, 7, 8] = np.nan
    x[1, 0, 0, 0] = -np.inf
    for ours, theirs in ((F.max_pool2d, torch.nn.functional.max_pool2d), (F.avg_pool2d, torch.nn.functional.avg_pool2d)):
        for size in (2, 3):
            np.testing.assert_allclose(run(lambda a: ours(a, size), x)[0], theirs(torch.tensor(x), size).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(lambda a: F.adaptive_max_pool2d(a, 3), x)[0], torch.nn.functional.adaptive_max_pool2d(torch.tensor(x), 3).numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("name", ["neg", "abs", "sign", "add", "sub", "mul", "maximum", "minimum", "less", "equal"])
def test_integers_wrap(name, dtype):
    info = np.iinfo(dtype)
    points = np.array([info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max], dtype)
    a, b = np.array(list(itertools.product(points, points)), dtype).T.copy()
    arrays = (a,) if name in ("neg", "abs", "sign") else (a, b)
    np.testing.assert_array_equal(run(emit(name), *arrays)[0], reference(name)(*map(torch.tensor, arrays)).numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_division_of_integers(dtype):
    info = np.iinfo(dtype)
    points = np.array([info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max], dtype)
    a, b = np.array([(x, y) for x, y in itertools.product(points, points) if y != 0 and not (x == info.min and int(y) == -1)], dtype).T.copy()
    np.testing.assert_array_equal(run(emit("div"), a, b)[0], torch.div(torch.tensor(a), torch.tensor(b), rounding_mode="trunc").numpy())
    # By 0: as far as the type reaches, as the cast of an infinity.
    np.testing.assert_array_equal(run(emit("div"), points, np.zeros_like(points))[0], np.where(points > 0, info.max, np.where(points < 0, info.min, 0)))
