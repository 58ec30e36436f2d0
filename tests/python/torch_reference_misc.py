"""What the ops outside convolution, pooling and normalisation mean, by PyTorch.

REFERENCE maps an op's name to function(inputs, attrs) -> tensor or tuple of the op's outputs. `attrs` holds plain Python
values by name; one that is missing takes the op's default.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

REFERENCE = {}


def reference(function):
    REFERENCE[function.__name__.rstrip("_")] = function
    return function


def _dtype(attrs, default="f32"):
    """An attribute that names an element type, as its name or as a NumPy dtype."""
    names = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64, "i8": torch.int8,
             "u8": torch.uint8, "i32": torch.int32, "i64": torch.int64, "bool": torch.bool}
    value = attrs.get("dtype", default)
    if isinstance(value, torch.dtype):
        return value
    return names[value] if isinstance(value, str) and value in names else torch.from_numpy(np.zeros(0, value)).dtype


# Constants


@reference
def constant(inputs, attrs):
    return torch.as_tensor(attrs["value"])


@reference
def iota(inputs, attrs):
    dims, axis = list(attrs["dims"]), attrs.get("axis", 0)
    shape = [1] * len(dims)
    shape[axis] = -1
    return torch.arange(dims[axis], dtype=_dtype(attrs, "i64")).reshape(shape).expand(dims)


# Element-wise

REFERENCE |= {
    name: (lambda function: lambda inputs, attrs: function(*inputs))(function)
    for name, function in {
        "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "exp": torch.exp, "expm1": torch.expm1, "log": torch.log,
        "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "sin": torch.sin,
        "cos": torch.cos, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "floor": torch.floor,
        "ceil": torch.ceil, "round": torch.round, "relu": torch.relu, "add": torch.add, "sub": torch.sub, "mul": torch.mul,
        "div": torch.div, "pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum, "equal": torch.eq,
        "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le, "greater": torch.gt, "greater_equal": torch.ge,
        "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_not": torch.logical_not,
        "select": torch.where, "silu": F.silu, "hard_swish": F.hardswish, "hard_sigmoid": F.hardsigmoid,
    }.items()
}  # fmt: skip


@reference
def cast(inputs, attrs):
    return inputs[0].to(_dtype(attrs))


@reference
def gelu(inputs, attrs):
    return F.gelu(inputs[0], approximate=attrs.get("approximate", "none"))


@reference
def elu(inputs, attrs):
    return F.elu(inputs[0], attrs.get("alpha", 1.0))


@reference
def leaky_relu(inputs, attrs):
    return F.leaky_relu(inputs[0], attrs.get("slope", 0.01))


@reference
def softplus(inputs, attrs):
    return torch.logaddexp(inputs[0], torch.zeros_like(inputs[0]))


@reference
def clamp(inputs, attrs):
    return torch.clamp(inputs[0], attrs.get("min", -math.inf), attrs.get("max", math.inf))


@reference
def softmax(inputs, attrs):
    return torch.softmax(inputs[0], attrs.get("axis", -1))


@reference
def log_softmax(inputs, attrs):
    return torch.log_softmax(inputs[0], attrs.get("axis", -1))


@reference
def softmax_grad(inputs, attrs):
    y, dy = inputs
    return torch.ops.aten._softmax_backward_data(dy, y, attrs.get("axis", -1), y.dtype)


@reference
def log_softmax_grad(inputs, attrs):
    y, dy = inputs
    return torch.ops.aten._log_softmax_backward_data(dy, y, attrs.get("axis", -1), y.dtype)


@reference
def silu_grad(inputs, attrs):
    x, dy = inputs
    return torch.ops.aten.silu_backward(dy, x)


# Reductions


def _axes(x, attrs):
    return tuple(attrs.get("axes") or range(x.dim()))


def _reduction(function):
    def reduce(inputs, attrs):
        x, axes, keep = inputs[0], _axes(inputs[0], attrs), attrs.get("keepdims", False)
        return function(x, dim=axes, keepdim=keep) if axes else x.clone()

    return reduce


REFERENCE["sum"] = _reduction(torch.sum)
REFERENCE["mean"] = _reduction(torch.mean)
REFERENCE["max"] = _reduction(torch.amax)
REFERENCE["min"] = _reduction(torch.amin)


@reference
def prod(inputs, attrs):
    x = inputs[0]
    axes = sorted((axis % x.dim() for axis in _axes(x, attrs)), reverse=True)
    for axis in axes:
        x = torch.prod(x, axis, keepdim=attrs.get("keepdims", False))
    return x


@reference
def argmax(inputs, attrs):
    return torch.argmax(inputs[0], attrs.get("axis", -1), keepdim=attrs.get("keepdims", False))


@reference
def argmin(inputs, attrs):
    return torch.argmin(inputs[0], attrs.get("axis", -1), keepdim=attrs.get("keepdims", False))


@reference
def cumsum(inputs, attrs):
    return torch.cumsum(inputs[0], attrs.get("axis", -1))


# Products and shapes


@reference
def matmul(inputs, attrs):
    a, b = inputs
    return torch.matmul(a.mT if attrs.get("transpose_a") else a, b.mT if attrs.get("transpose_b") else b)


@reference
def reshape(inputs, attrs):
    return inputs[0].reshape(list(attrs["dims"]))


@reference
def transpose(inputs, attrs):
    return inputs[0].permute(list(attrs["permutation"]))


@reference
def broadcast_to(inputs, attrs):
    return inputs[0].broadcast_to(list(attrs["dims"]))


@reference
def concat(inputs, attrs):
    return torch.cat(list(inputs), attrs.get("axis", 0))


@reference
def slice_(inputs, attrs):
    x = inputs[0]
    index = [slice(None)] * x.dim()
    index[attrs.get("axis", 0)] = slice(attrs.get("start", 0), attrs["stop"], attrs.get("step", 1))
    return x[tuple(index)]


@reference
def flip(inputs, attrs):
    return torch.flip(inputs[0], [attrs.get("axis", 0)])


@reference
def pad(inputs, attrs):
    x, low, high = inputs[0], list(attrs["low"]), list(attrs["high"])
    inner = list(attrs.get("interior") or [0] * x.dim())
    spread = [n + gap * max(n - 1, 0) for n, gap in zip(x.shape, inner)]
    y = torch.full([a + n + b for a, n, b in zip(low, spread, high)], attrs.get("value", 0.0), dtype=x.dtype)
    y[tuple(slice(a, a + n, gap + 1) for a, n, gap in zip(low, spread, inner))] = x
    return y


# Indexing


def _take(x, indices, axis):
    axis %= x.dim()
    flat = torch.index_select(x, axis, indices.reshape(-1))
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@reference
def gather(inputs, attrs):
    return _take(*inputs, attrs.get("axis", 0))


@reference
def scatter_add(inputs, attrs):
    updates, indices = inputs
    rank = updates.dim() - indices.dim() + 1
    axis = attrs.get("axis", 0) % rank
    tail = updates.shape[axis + indices.dim() :]
    y = torch.zeros(*updates.shape[:axis], attrs["dim_size"], *tail, dtype=updates.dtype)
    return y.index_add(axis, indices.reshape(-1), updates.reshape(*updates.shape[:axis], indices.numel(), *tail))


@reference
def take_along_axis(inputs, attrs):
    return torch.gather(inputs[0], attrs.get("axis", -1), inputs[1].long())


@reference
def put_along_axis_add(inputs, attrs):
    updates, indices = inputs
    axis = attrs.get("axis", -1)
    dims = list(updates.shape)
    dims[axis] = attrs["dim_size"]
    return torch.zeros(dims, dtype=updates.dtype).scatter_add(axis, indices.long(), updates)


@reference
def embedding(inputs, attrs):
    weight, indices = inputs
    padding = attrs.get("padding_idx", -1)
    return F.embedding(indices, weight, padding_idx=None if padding < 0 else padding)


@reference
def one_hot(inputs, attrs):
    return F.one_hot(inputs[0].long(), attrs["depth"]).to(_dtype(attrs))


@reference
def top_k(inputs, attrs):
    return tuple(torch.topk(inputs[0], attrs["k"], attrs.get("axis", -1), attrs.get("largest", True), sorted=True))


# Losses


def _reduction_of(attrs):
    return attrs.get("reduction", "mean")


def _reduce(loss, attrs):
    return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[_reduction_of(attrs)](loss)


@reference
def cross_entropy(inputs, attrs):
    return F.cross_entropy(*inputs, ignore_index=attrs.get("ignore_index", -100), reduction=_reduction_of(attrs),
                           label_smoothing=attrs.get("label_smoothing", 0.0))  # fmt: skip


@reference
def nll_loss(inputs, attrs):
    return F.nll_loss(*inputs, ignore_index=attrs.get("ignore_index", -100), reduction=_reduction_of(attrs))


@reference
def mse_loss(inputs, attrs):
    return F.mse_loss(*inputs, reduction=_reduction_of(attrs))


@reference
def l1_loss(inputs, attrs):
    return F.l1_loss(*inputs, reduction=_reduction_of(attrs))


@reference
def huber_loss(inputs, attrs):
    return F.huber_loss(*inputs, reduction=_reduction_of(attrs), delta=attrs.get("delta", 1.0))


@reference
def quantile_loss(inputs, attrs):
    error, q = inputs[1] - inputs[0], attrs.get("quantile", 0.5)
    return _reduce(torch.where(error >= 0, q * error, (q - 1) * error), attrs)


@reference
def bce_with_logits(inputs, attrs):
    weight = inputs[2] if len(inputs) > 2 else None
    return F.binary_cross_entropy_with_logits(inputs[0], inputs[1], reduction=_reduction_of(attrs), pos_weight=weight)


@reference
def focal_loss(inputs, attrs):
    """Written from the paper's definition on probabilities."""
    x, t = inputs
    alpha, gamma = attrs.get("alpha", 0.25), attrs.get("gamma", 2.0)
    p = torch.sigmoid(x)
    p_t = p * t + (1 - p) * (1 - t)
    loss = F.binary_cross_entropy(p, t, reduction="none") * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    return _reduce(loss, attrs)


@reference
def dice_loss(inputs, attrs):
    p, t = (x.flatten(2) for x in inputs)
    smooth = attrs.get("smooth", 1.0)
    return _reduce(1 - (2 * (p * t).sum(2) + smooth) / (p.sum(2) + t.sum(2) + smooth), attrs)


@reference
def ctc_loss(inputs, attrs):
    """The gradient that PyTorch gives assumes a log_softmax before; autograd over it gives the plain one back only up to
    that projection, so the forward recursion is written out here and autograd differentiates it."""
    log_p, targets = inputs[0].detach().clone().requires_grad_(True), inputs[1]
    steps, batch, _ = log_p.shape
    input_lengths = inputs[2] if len(inputs) > 2 else torch.full((batch,), steps)
    target_lengths = inputs[3] if len(inputs) > 3 else torch.full((batch,), targets.shape[1])
    blank, zero_infinity = attrs.get("blank", 0), attrs.get("zero_infinity", False)
    expected = F.ctc_loss(log_p.detach(), targets, input_lengths, target_lengths, blank, "none", zero_infinity)
    grad = torch.zeros_like(log_p)
    with torch.enable_grad():
        for n in range(batch):
            if not torch.isfinite(expected[n]) or (zero_infinity and expected[n] == 0):
                continue
            loss = -_ctc_log_likelihood(log_p[: input_lengths[n], n], targets[n, : target_lengths[n]].tolist(), blank)
            torch.testing.assert_close(loss.detach(), expected[n], rtol=1e-5, atol=1e-5)
            if loss.requires_grad:
                grad += torch.autograd.grad(loss, log_p)[0]
    return expected, grad


def _ctc_log_likelihood(log_p, target, blank):
    """log of the probability of all alignments, over the states "s symbols of the blank-extended target are read"."""
    symbols = [blank]
    for label in target:
        symbols += [label, blank]
    alpha = {}
    for t in range(log_p.shape[0]):
        step = {}
        for s, symbol in enumerate(symbols):
            sources = [s, s - 1] + ([s - 2] if s >= 2 and symbol not in (blank, symbols[s - 2]) else [])
            terms = [alpha[k] for k in sources if k in alpha] if t else [torch.zeros((), dtype=log_p.dtype)] * (s < 2)
            if terms:
                step[s] = torch.logsumexp(torch.stack(terms), 0) + log_p[t, symbol]
        alpha = step
    ends = [alpha[s] for s in (len(symbols) - 1, len(symbols) - 2) if s in alpha]
    return torch.logsumexp(torch.stack(ends), 0) if ends else torch.zeros((), dtype=log_p.dtype)


# Randomness


def _philox(counter, key):
    counter, key = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ counter[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def _uniform(rng, dims, stream):
    seed, step = (int(x) & 0xFFFFFFFFFFFFFFFF for x in rng)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words = []
    for block in range((math.prod(dims) + 3) // 4):
        words += _philox((block, 0, stream, step & 0xFFFFFFFF), key)
    values = [(word >> 8) / 2**24 for word in words[: math.prod(dims)]]
    return torch.tensor(values, dtype=torch.float32).reshape(dims)


@reference
def random_uniform(inputs, attrs):
    return _uniform(inputs[0], list(attrs["dims"]), attrs.get("stream", 0))


@reference
def dropout(inputs, attrs):
    x, rng = inputs
    rate = attrs.get("rate", 0.5)
    keep = _uniform(rng, list(x.shape), attrs.get("stream", 0)) >= np.float32(rate)
    return x * keep / (1 - rate)


# Recurrences


def _layer(module, weights, dtype):
    module = module.to(dtype)
    with torch.no_grad():
        for name, value in weights.items():
            getattr(module, name).copy_(value)
    return module


def _run(module, x, state, reverse):
    with torch.no_grad():
        y, state = module(torch.flip(x, [0]) if reverse else x, state)
    return (torch.flip(y, [0]) if reverse else y), state


@reference
def lstm(inputs, attrs):
    x, h0, c0, w_ih, w_hh, bias = inputs
    weights = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh, "bias_ih_l0": bias, "bias_hh_l0": torch.zeros_like(bias)}
    module = _layer(torch.nn.LSTM(x.shape[2], h0.shape[1]), weights, x.dtype)
    y, (h, c) = _run(module, x, (h0[None], c0[None]), attrs.get("reverse", False))
    return y, h[0], c[0]


@reference
def gru(inputs, attrs):
    x, h0, w_ih, w_hh, b_ih, b_hh = inputs
    weights = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh, "bias_ih_l0": b_ih, "bias_hh_l0": b_hh}
    module = _layer(torch.nn.GRU(x.shape[2], h0.shape[1]), weights, x.dtype)
    y, h = _run(module, x, h0[None], attrs.get("reverse", False))
    return y, h[0]


@reference
def scan(inputs, attrs):
    """The samples' body: h' = tanh(h W + x), y = h' * x. Graph attributes have no meaning in PyTorch."""
    h, xs, w = inputs
    steps = range(xs.shape[0])
    ys, saved = torch.empty_like(xs), torch.empty_like(xs)
    for t in reversed(steps) if attrs.get("reverse") else steps:
        saved[t] = h
        h = torch.tanh(h @ w + xs[t])
        ys[t] = h * xs[t]
    return (h, ys, saved) if attrs.get("save_carries") else (h, ys)


# Attention and resizing


@reference
def attention(inputs, attrs):
    """A mask row without any key attends evenly, which PyTorch's function leaves undefined."""
    q, k, v = inputs[:3]
    mask = inputs[3] if len(inputs) > 3 else None
    scale, causal = attrs.get("scale", -1.0), attrs.get("causal", False)
    scale = None if scale < 0 else scale
    if mask is not None and causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        mask = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -math.inf)
        causal = False
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    if mask is not None and mask.dtype == torch.bool and k.shape[2] > 0:
        blind = ~mask.broadcast_to(*q.shape[:3], k.shape[2]).any(-1, keepdim=True)
        y = torch.where(blind, v.mean(2, keepdim=True), y)
    return y


@reference
def attention_grad(inputs, attrs):
    q, k, v, dy, *mask = inputs
    leaves = [x.detach().clone().requires_grad_() for x in ([q, k, v, *mask] if attrs.get("mask_gradient") else [q, k, v])]
    y = attention([*leaves[:3], *(leaves[3:] or mask)], attrs)
    return torch.autograd.grad(y, leaves, dy)


@reference
def interpolate(inputs, attrs):
    x = inputs[0]
    if attrs.get("mode", "nearest") == "nearest":
        return F.interpolate(x, size=list(attrs["size"]), mode="nearest")
    mode = ("linear", "bilinear", "trilinear")[x.dim() - 3]
    return F.interpolate(x, size=list(attrs["size"]), mode=mode, align_corners=attrs.get("align_corners", False))
