"""Layers and losses as functions on symbolic values, with PyTorch's names and arguments. Each emits ops."""

from __future__ import annotations

import math
import typing

from .. import _core
from .._core import Value
from ..tensor import axis_of, op, reshape

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np

    from .._types import Size, Tensor, TensorLike
else:
    from .._numpy import np


def per_axis(value: Size, axes: int, name: str = "value") -> list[int]:
    """One number per spatial axis, from one number or a list."""
    values = [int(value)] * axes if isinstance(value, (int, np.integer)) else list(value)
    if len(values) != axes:
        raise ValueError(f"{name}: expected one number or {axes}, got {value!r}")
    return values


def conv_padding(padding: Size | str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[list[int], list[int]]:
    """Elements before and after each axis for a number, a list, "valid" or "same"."""
    axes = len(kernel)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ValueError(f"padding='same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        return [t // 2 for t in total], [t - t // 2 for t in total]
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding: expected numbers, 'valid' or 'same', got {padding!r}")
    low = per_axis(0 if padding == "valid" else padding, axes, "padding")
    return low, low


def _check_rank(name, input, rank):
    if input.ndim != rank:
        raise ValueError(f"{name}: expected an input of {rank} axes, [N, C, ...], got shape {tuple(input.shape)}")


# Activations.


def relu(input: Tensor, inplace: bool = False) -> Value:
    return op("relu", input)


def gelu(input: Tensor, approximate: str = "none") -> Value:
    return op("gelu", input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Value:
    return op("silu", input)


def sigmoid(input: Tensor) -> Value:
    return op("sigmoid", input)


def tanh(input: Tensor) -> Value:
    return op("tanh", input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Value:
    return op("elu", input, alpha=alpha)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    return op("leaky_relu", input, slope=negative_slope)


def hardswish(input: Tensor, inplace: bool = False) -> Value:
    return op("hard_swish", input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Value:
    return op("hard_sigmoid", input)


def softplus(input: Tensor) -> Value:
    return op("softplus", input)


def softmax(input: Tensor, dim: int) -> Value:
    return op("softmax", input, axis=axis_of(dim, input.ndim))


def log_softmax(input: Tensor, dim: int) -> Value:
    return op("log_softmax", input, axis=axis_of(dim, input.ndim))


# Linear maps and windows.


def linear(input: Tensor, weight: TensorLike, bias: TensorLike | None = None) -> Value:
    """input [..., in] times weight [out, in] transposed, plus bias [out]."""
    y = op("matmul", input, weight, transpose_b=True)
    return y if bias is None else y + bias


def _add_bias(y: Value, bias: TensorLike | None) -> Value:
    return y if bias is None else y + reshape(bias, 1, -1, *[1] * (y.ndim - 2))


def _conv(axes):
    def conv(input: Tensor, weight: TensorLike, bias: TensorLike | None = None, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1, groups: int = 1) -> Value:
        _check_rank(f"conv{axes}d", input, axes + 2)
        stride, dilation = per_axis(stride, axes, "stride"), per_axis(dilation, axes, "dilation")
        low, high = conv_padding(padding, weight.shape[2:], stride, dilation)
        y = op("conv", input, weight, stride=stride, padding_low=low, padding_high=high, dilation=dilation, groups=groups)
        return _add_bias(y, bias)

    conv.__name__ = conv.__qualname__ = f"conv{axes}d"
    conv.__doc__ = f"Convolution of [N, C, ...] over {axes} spatial axes; weight [out, C / groups, kernel...]."
    return conv


def _conv_transpose(axes):
    def conv_transpose(input: Tensor, weight: TensorLike, bias: TensorLike | None = None, stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Value:
        _check_rank(f"conv_transpose{axes}d", input, axes + 2)
        padding = per_axis(padding, axes, "padding")
        y = op("conv_transpose", input, weight, stride=per_axis(stride, axes, "stride"), padding_low=padding, padding_high=padding,
               output_padding=per_axis(output_padding, axes, "output_padding"), groups=groups, dilation=per_axis(dilation, axes, "dilation"))
        return _add_bias(y, bias)

    conv_transpose.__name__ = conv_transpose.__qualname__ = f"conv_transpose{axes}d"
    conv_transpose.__doc__ = f"Transposed convolution of [N, C, ...] over {axes} spatial axes; weight [C, out / groups, kernel...]."
    return conv_transpose


def _max_pool(axes):
    def max_pool(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
        _check_rank(f"max_pool{axes}d", input, axes + 2)
        kernel, padding = per_axis(kernel_size, axes, "kernel_size"), per_axis(padding, axes, "padding")
        y, indices = op("max_pool", input, kernel=kernel, stride=kernel if stride is None else per_axis(stride, axes, "stride"), padding_low=padding,
                        padding_high=padding, dilation=per_axis(dilation, axes, "dilation"), ceil_mode=ceil_mode)
        return (y, op("cast", indices, dtype="i64")) if return_indices else y

    max_pool.__name__ = max_pool.__qualname__ = f"max_pool{axes}d"
    return max_pool


def _avg_pool(axes):
    def avg_pool(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Value:
        _check_rank(f"avg_pool{axes}d", input, axes + 2)
        if divisor_override is not None:
            raise ValueError("avg_pool: divisor_override is not supported; scale the result")
        kernel, padding = per_axis(kernel_size, axes, "kernel_size"), per_axis(padding, axes, "padding")
        return op("avg_pool", input, kernel=kernel, stride=kernel if stride is None else per_axis(stride, axes, "stride"), padding_low=padding,
                  padding_high=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)

    avg_pool.__name__ = avg_pool.__qualname__ = f"avg_pool{axes}d"
    return avg_pool


def _adaptive(axes, kind):
    def adaptive(input: Tensor, output_size: int | Sequence[int | None] | None) -> Value:
        _check_rank(f"adaptive_{kind}_pool{axes}d", input, axes + 2)
        sizes = [output_size] * axes if output_size is None or isinstance(output_size, int) else list(output_size)
        return op(f"adaptive_{kind}_pool", input, output_size=per_axis([n if s is None else s for s, n in zip(sizes, input.shape[2:])], axes, "output_size"))

    adaptive.__name__ = adaptive.__qualname__ = f"adaptive_{kind}_pool{axes}d"
    return adaptive


conv1d, conv2d, conv3d = _conv(1), _conv(2), _conv(3)
conv_transpose1d, conv_transpose2d, conv_transpose3d = _conv_transpose(1), _conv_transpose(2), _conv_transpose(3)
max_pool1d, max_pool2d, max_pool3d = _max_pool(1), _max_pool(2), _max_pool(3)
avg_pool1d, avg_pool2d, avg_pool3d = _avg_pool(1), _avg_pool(2), _avg_pool(3)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _adaptive(1, "avg"), _adaptive(2, "avg"), _adaptive(3, "avg")
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = _adaptive(1, "max"), _adaptive(2, "max"), _adaptive(3, "max")


# Normalisation. A weight or bias that is None stands for ones or zeros.


def _affine(weight, bias, shape):
    return (np.ones(shape, np.float32) if weight is None else weight), (np.zeros(shape, np.float32) if bias is None else bias)


def layer_norm(input: Tensor, normalized_shape: Size, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-5) -> Value:
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    return op("layer_norm", input, *_affine(weight, bias, shape), axes_count=len(shape), epsilon=eps)[0]


def rms_norm(input: Tensor, normalized_shape: Size, weight: TensorLike | None = None, eps: float | None = None) -> Value:
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    return op("rms_norm", input, _affine(weight, None, shape)[0], axes_count=len(shape), epsilon=float(np.finfo(np.float32).eps) if eps is None else eps)


def group_norm(input: Tensor, num_groups: int, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-5) -> Value:
    return op("group_norm", input, *_affine(weight, bias, [input.shape[1]]), groups=num_groups, epsilon=eps)[0]


def instance_norm(input: Tensor, running_mean: TensorLike | None = None, running_var: TensorLike | None = None, weight: TensorLike | None = None, bias: TensorLike | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> Value:
    weight, bias = _affine(weight, bias, [input.shape[1]])
    if use_input_stats:
        return op("instance_norm", input, weight, bias, epsilon=eps)
    return op("batch_norm_inference", input, weight, bias, running_mean, running_var, epsilon=eps)


def batch_norm(input: Tensor, running_mean: TensorLike | None, running_var: TensorLike | None, weight: TensorLike | None = None, bias: TensorLike | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Value:
    """With training the batch's statistics normalise; unlike PyTorch's, the running ones stay as they are: nn.BatchNorm2d updates its own."""
    weight, bias = _affine(weight, bias, [input.shape[1]])
    if training:
        return op("batch_norm", input, weight, bias, *_affine(None, None, [input.shape[1]])[::-1], epsilon=eps)[0]
    return op("batch_norm_inference", input, weight, bias, running_mean, running_var, epsilon=eps)


# Indices, masks and shapes.


def embedding(input: TensorLike, weight: Tensor, padding_idx: int | None = None) -> Value:
    """Rows of weight [rows, width] by integer index; the row padding_idx takes no gradient."""
    return op("embedding", weight, input, padding_idx=-1 if padding_idx is None else axis_of(padding_idx, weight.shape[0]))


def one_hot(tensor: Tensor, num_classes: int) -> Value:
    return op("one_hot", tensor, depth=num_classes, dtype="i64")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    """Pass training=self.training inside a module's forward."""
    return _core.dropout(input, p) if training and p > 0 else input


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: TensorLike | None = None, dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None) -> Value:
    """query [..., L, E], key [..., S, E], value [..., S, Ev]; a bool mask is true where a key is seen.

    A row whose keys are all hidden attends evenly, where PyTorch gives zeros or NaN.
    """
    lead, rank = list(query.shape[:-2]), query.ndim
    batch = [math.prod(lead[:-1]), lead[-1] if lead else 1]

    def heads(x: Tensor) -> Value:
        return x if rank == 4 else reshape(x, *batch, *x.shape[-2:])

    if attn_mask is not None and rank != 4:
        shape = [1] * (rank - len(attn_mask.shape)) + list(attn_mask.shape)
        attn_mask = heads(op("broadcast_to", reshape(attn_mask, shape), dims=lead + shape[-2:]))
    if scale is not None and scale < 0:  # the op's own scale is not negative
        query, scale = query * scale, 1.0
    if dropout_p == 0:
        y = op("attention", heads(query), heads(key), heads(value), attn_mask, causal=is_causal, **({} if scale is None else {"scale": float(scale)}))
        return y if rank == 4 else reshape(y, *lead, *y.shape[-2:])
    q, k, v = heads(query), heads(key), heads(value)
    scores = op("matmul", q, k, transpose_b=True) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    hidden = -6e4 if str(scores.dtype) == "f16" else -1e30
    if is_causal:
        scores = op("select", np.tril(np.ones(scores.shape[-2:], bool)), scores, hidden)
    if attn_mask is not None:
        scores = op("select", attn_mask, scores, hidden) if str(attn_mask.dtype) == "bool" else op("maximum", scores + attn_mask, hidden)
    y = op("matmul", dropout(softmax(scores, -1), dropout_p), v)
    return y if rank == 4 else reshape(y, *lead, *y.shape[-2:])


def interpolate(input: Tensor, size: Size | None = None, scale_factor: float | Sequence[float] | None = None, mode: str = "nearest", align_corners: bool | None = None) -> Value:
    """Resizes the spatial axes of [N, C, ...] to size, or by scale_factor; mode "nearest", "linear", "bilinear" or "trilinear"."""
    axes = input.ndim - 2
    linear_modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
    if mode not in ("nearest", linear_modes.get(axes)):
        raise ValueError(f"interpolate: expected mode 'nearest' or '{linear_modes.get(axes)}' for {axes} spatial axes, got {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: expected either size or scale_factor, got {size!r} and {scale_factor!r}")
    if size is None:
        factors = [scale_factor] * axes if isinstance(scale_factor, (int, float)) else list(scale_factor)
        size = [math.floor(n * f) for n, f in zip(input.shape[2:], factors, strict=True)]
        # The op maps positions by the sizes' ratio, which a factor that rounds the size down differs from.
        if any(n * f != s for n, f, s in zip(input.shape[2:], factors, size)):
            raise ValueError(f"interpolate: scale_factor {scale_factor!r} does not give whole sizes for {tuple(input.shape)}; give size")
    return op("interpolate", input, size=per_axis(size, axes, "size"), mode="nearest" if mode == "nearest" else "linear", align_corners=bool(align_corners))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """pad: elements before and after the last axis, then the one before it, ...; negative numbers cut off."""
    if mode != "constant":
        raise ValueError(f"pad: expected mode 'constant', got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: expected pairs of numbers for at most {input.ndim} axes, got {list(pad)}")
    low, high = [0] * input.ndim, [0] * input.ndim
    for i in range(0, len(pad), 2):
        axis = input.ndim - 1 - i // 2
        low[axis], high[axis] = max(pad[i], 0), max(pad[i + 1], 0)
        if min(pad[i], pad[i + 1]) < 0:
            input = op("slice", input, axis=axis, start=max(-pad[i], 0), stop=input.shape[axis] + min(pad[i + 1], 0))
    return op("pad", input, low=low, high=high, value=0.0 if value is None else float(value)) if any(low) or any(high) else input


# Losses.


def reduce(loss: Tensor, reduction: str) -> Value:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    return loss if reduction == "none" else op(reduction, loss)


def _weighted_nll(log_probabilities: Tensor, target: TensorLike, weight: TensorLike, ignore_index: int, reduction: str) -> Value:
    loss = op("nll_loss", log_probabilities, target, ignore_index=ignore_index, reduction="none")
    valid = target != ignore_index
    scale = op("select", valid, op("gather", weight, op("select", valid, target, 0)), 0.0)
    return op("sum", loss * scale) / op("sum", scale) if reduction == "mean" else reduce(loss * scale, reduction)


def cross_entropy(input: Tensor, target: TensorLike, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> Value:
    """input: logits [N, C, ...]; target: class indices [N, ...], or probabilities [N, C, ...]; weight [C] of the classes."""
    if weight is None:
        return op("cross_entropy", input, target, label_smoothing=label_smoothing, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing or len(target.shape) == input.ndim:
        raise ValueError("cross_entropy: weight goes with class indices and without label_smoothing only")
    return _weighted_nll(log_softmax(input, 1), target, weight, ignore_index, reduction)


def nll_loss(input: Tensor, target: TensorLike, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean") -> Value:
    if weight is None:
        return op("nll_loss", input, target, ignore_index=ignore_index, reduction=reduction)
    return _weighted_nll(input, target, weight, ignore_index, reduction)


def mse_loss(input: Tensor, target: TensorLike, reduction: str = "mean") -> Value:
    return op("mse_loss", input, target, reduction=reduction)


def l1_loss(input: Tensor, target: TensorLike, reduction: str = "mean") -> Value:
    return op("l1_loss", input, target, reduction=reduction)


def huber_loss(input: Tensor, target: TensorLike, reduction: str = "mean", delta: float = 1.0) -> Value:
    return op("huber_loss", input, target, reduction=reduction, delta=delta)


def binary_cross_entropy_with_logits(input: Tensor, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean", pos_weight: TensorLike | None = None) -> Value:
    more = () if pos_weight is None else (pos_weight,)
    if weight is None:
        return op("bce_with_logits", input, target, *more, reduction=reduction)
    return reduce(op("bce_with_logits", input, target, *more, reduction="none") * weight, reduction)


def ctc_loss(log_probs: Tensor, targets: TensorLike, input_lengths: TensorLike, target_lengths: TensorLike, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Value:
    """log_probs [T, N, C], targets [N, S] padded, lengths [N]. The mean is over each sample's loss by its target length."""
    loss = op("ctc_loss", log_probs, targets, input_lengths, target_lengths, blank=blank, zero_infinity=zero_infinity)[0]
    if reduction == "mean":
        lengths = target_lengths if isinstance(target_lengths, Value) else np.asarray(target_lengths)
        loss = loss / op("maximum", op("cast", lengths, dtype=loss.dtype), 1.0)
    return reduce(loss, reduction)


def quantile_loss(input: Tensor, target: TensorLike, quantile: float = 0.5, reduction: str = "mean") -> Value:
    """max(q e, (q - 1) e) where e = target - input (pinball loss)."""
    return op("quantile_loss", input, target, quantile=quantile, reduction=reduction)


def dice_loss(input: Tensor, target: TensorLike, smooth: float = 1.0, reduction: str = "mean") -> Value:
    """input: probabilities [N, C, ...]; target: one-hot of the same type."""
    return op("dice_loss", input, target, smooth=smooth, reduction=reduction)


def sigmoid_focal_loss(input: Tensor, target: TensorLike, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean") -> Value:
    """Focal loss on logits (arXiv 1708.02002); alpha < 0 leaves the classes unweighted."""
    return op("focal_loss", input, target, alpha=alpha, gamma=gamma, reduction=reduction)
