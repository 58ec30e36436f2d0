"""Layers with PyTorch's class names, arguments and state. Those with parameters are the engine's own."""

from __future__ import annotations

import inspect
import typing

from .. import _core
from . import functional as F
from .functional import conv_padding, per_axis
from .module import Module

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._types import Size, Tensor

Linear = _core.Linear
Embedding = _core.Embedding
Dropout = _core.Dropout
GroupNorm = _core.GroupNorm


class Identity(Module):
    """Its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Any:
        return input


class Flatten(Module):
    """[N, ...] to [N, product of the rest], or the axes start_dim to end_dim."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Any:
        return input.flatten(self.start_dim, self.end_dim)


# Convolutions.


def _check_rank(module, input, *ranks):
    if input.ndim not in ranks:
        raise ValueError(f"{type(module).__name__}: expected an input of {' or '.join(map(str, ranks))} axes, [N, C, ...], got shape {tuple(input.shape)}")


def _zeros_only(padding_mode):
    if padding_mode != "zeros":
        raise ValueError(f"padding_mode: expected 'zeros', got {padding_mode!r}")


def _conv(axes):
    class Conv(_core.Conv):
        def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros") -> None:
            _zeros_only(padding_mode)
            kernel, stride, dilation = (per_axis(v, axes, n) for v, n in ((kernel_size, "kernel_size"), (stride, "stride"), (dilation, "dilation")))
            super().__init__(in_channels, out_channels, kernel, stride, *conv_padding(padding, kernel, stride, dilation), dilation, groups, bias)

        def _trace(self, input: Tensor) -> Any:
            _check_rank(self, input, axes + 2)
            return self._call(input)

    Conv.__name__ = Conv.__qualname__ = f"Conv{axes}d"
    Conv.__init__.__qualname__ = f"{Conv.__name__}.__init__"
    Conv.__doc__ = f"Convolution over {axes} spatial axes of [N, C, ...]; weight [out, in / groups, kernel...], bias [out]."
    return Conv


def _conv_transpose(axes):
    class ConvTranspose(_core.ConvTranspose):
        def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1, padding_mode: str = "zeros") -> None:
            _zeros_only(padding_mode)
            named = ((kernel_size, "kernel_size"), (stride, "stride"), (padding, "padding"), (output_padding, "output_padding"), (dilation, "dilation"))
            super().__init__(in_channels, out_channels, *(per_axis(v, axes, n) for v, n in named), groups, bias)

        def _trace(self, input: Tensor) -> Any:
            _check_rank(self, input, axes + 2)
            return self._call(input)

    ConvTranspose.__name__ = ConvTranspose.__qualname__ = f"ConvTranspose{axes}d"
    ConvTranspose.__init__.__qualname__ = f"{ConvTranspose.__name__}.__init__"
    ConvTranspose.__doc__ = f"Transposed convolution over {axes} spatial axes of [N, C, ...]; weight [in, out / groups, kernel...], bias [out]."
    return ConvTranspose


Conv1d, Conv2d, Conv3d = _conv(1), _conv(2), _conv(3)
ConvTranspose1d, ConvTranspose2d, ConvTranspose3d = _conv_transpose(1), _conv_transpose(2), _conv_transpose(3)


# Normalisation.


def _batch_norm(axes):
    class BatchNorm(_core.BatchNorm):
        def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True) -> None:
            super().__init__(num_features, eps, momentum, affine, track_running_stats)

        def _trace(self, input: Tensor) -> Any:
            _check_rank(self, input, *((2, 3) if axes == 1 else (axes + 2,)))
            return self._call(input)

    BatchNorm.__name__ = BatchNorm.__qualname__ = f"BatchNorm{axes}d"
    BatchNorm.__init__.__qualname__ = f"{BatchNorm.__name__}.__init__"
    BatchNorm.__doc__ = "Normalises each channel over the batch, and in evaluation by the running statistics. momentum=None: their plain mean."
    return BatchNorm


def _instance_norm(axes):
    class InstanceNorm(_core.InstanceNorm):
        def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False, track_running_stats: bool = False) -> None:
            super().__init__(num_features, eps, momentum, affine, track_running_stats)

        def _trace(self, input: Tensor) -> Any:
            _check_rank(self, input, axes + 2)
            return self._call(input)

    InstanceNorm.__name__ = InstanceNorm.__qualname__ = f"InstanceNorm{axes}d"
    InstanceNorm.__init__.__qualname__ = f"{InstanceNorm.__name__}.__init__"
    InstanceNorm.__doc__ = "Normalises each channel of each sample over its positions."
    return InstanceNorm


BatchNorm1d, BatchNorm2d, BatchNorm3d = _batch_norm(1), _batch_norm(2), _batch_norm(3)
InstanceNorm1d, InstanceNorm2d, InstanceNorm3d = _instance_norm(1), _instance_norm(2), _instance_norm(3)


def _shape(normalized_shape: Size) -> list[int]:
    return [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)


class LayerNorm(_core.LayerNorm):
    """Normalises over the trailing axes normalized_shape; weight and bias of that shape."""

    def __init__(self, normalized_shape: Size, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True) -> None:
        super().__init__(_shape(normalized_shape), eps, elementwise_affine, bias)


class RMSNorm(_core.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight over the trailing axes normalized_shape; eps=None is float32's epsilon."""

    def __init__(self, normalized_shape: Size, eps: float | None = None, elementwise_affine: bool = True) -> None:
        super().__init__(_shape(normalized_shape), 2.0 ** -23 if eps is None else eps, elementwise_affine)


# Layers without parameters: a function of F with its keywords kept.


def _function(name: str, function: Callable[..., Any], **defaults: Any) -> type[Module]:
    """A module class that calls `function`; its arguments are `defaults`, in order, where ... marks one without default."""

    class Layer(Module):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            if len(args) > len(defaults):
                raise TypeError(f"{name}() takes at most {len(defaults)} arguments, got {len(args)}")
            given = dict(zip(defaults, args))
            for key, value in kwargs.items():
                if key not in defaults or key in given:
                    raise TypeError(f"{name}() has no argument {key!r}; it has: {', '.join(defaults)}" if key not in defaults else f"{name}() got {key!r} twice")
                given[key] = value
            missing = [key for key, value in defaults.items() if value is ... and key not in given]
            if missing:
                raise TypeError(f"{name}() needs {', '.join(missing)}")
            for key, value in {**defaults, **given}.items():
                setattr(self, key, value)

        def forward(self, *inputs: Any) -> Any:
            return function(*inputs, **{key: getattr(self, key) for key in defaults})

        def __repr__(self) -> str:
            return f"{name}({', '.join(f'{key}={getattr(self, key)!r}' for key in defaults)})"

    kinds = inspect.Parameter
    Layer.__init__.__signature__ = inspect.Signature([kinds("self", kinds.POSITIONAL_ONLY)] + [
        kinds(key, kinds.POSITIONAL_OR_KEYWORD, default=kinds.empty if value is ... else value, annotation=function.__annotations__.get(key, kinds.empty))
        for key, value in defaults.items()], return_annotation="None")
    Layer.__name__ = Layer.__qualname__ = name
    Layer.__init__.__qualname__ = f"{Layer.__name__}.__init__"
    Layer.__doc__ = f"deepseek.nn.functional.{function.__name__} as a module. Arguments: " + ", ".join(
        key if value is ... else f"{key}={value!r}" for key, value in defaults.items())
    return Layer


ReLU = _function("ReLU", F.relu, inplace=False)
GELU = _function("GELU", F.gelu, approximate="none")
SiLU = _function("SiLU", F.silu, inplace=False)
Sigmoid = _function("Sigmoid", F.sigmoid)
Tanh = _function("Tanh", F.tanh)
ELU = _function("ELU", F.elu, alpha=1.0, inplace=False)
LeakyReLU = _function("LeakyReLU", F.leaky_relu, negative_slope=0.01, inplace=False)
Hardswish = _function("Hardswish", F.hardswish, inplace=False)
Hardsigmoid = _function("Hardsigmoid", F.hardsigmoid, inplace=False)
Softplus = _function("Softplus", F.softplus)
Softmax = _function("Softmax", F.softmax, dim=...)
LogSoftmax = _function("LogSoftmax", F.log_softmax, dim=...)

_MAX = {"kernel_size": ..., "stride": None, "padding": 0, "dilation": 1, "return_indices": False, "ceil_mode": False}
_AVG = {"kernel_size": ..., "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
MaxPool1d, MaxPool2d, MaxPool3d = (_function(f"MaxPool{i}d", getattr(F, f"max_pool{i}d"), **_MAX) for i in (1, 2, 3))
AvgPool1d, AvgPool2d, AvgPool3d = (_function(f"AvgPool{i}d", getattr(F, f"avg_pool{i}d"), **_AVG) for i in (1, 2, 3))
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (_function(f"AdaptiveAvgPool{i}d", getattr(F, f"adaptive_avg_pool{i}d"), output_size=...) for i in (1, 2, 3))
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (_function(f"AdaptiveMaxPool{i}d", getattr(F, f"adaptive_max_pool{i}d"), output_size=...) for i in (1, 2, 3))
Upsample = _function("Upsample", F.interpolate, size=None, scale_factor=None, mode="nearest", align_corners=None)

# Losses: called with the prediction and the target.
CrossEntropyLoss = _function("CrossEntropyLoss", F.cross_entropy, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0)
NLLLoss = _function("NLLLoss", F.nll_loss, weight=None, ignore_index=-100, reduction="mean")
MSELoss = _function("MSELoss", F.mse_loss, reduction="mean")
L1Loss = _function("L1Loss", F.l1_loss, reduction="mean")
HuberLoss = _function("HuberLoss", F.huber_loss, reduction="mean", delta=1.0)
BCEWithLogitsLoss = _function("BCEWithLogitsLoss", F.binary_cross_entropy_with_logits, weight=None, reduction="mean", pos_weight=None)
CTCLoss = _function("CTCLoss", F.ctc_loss, blank=0, reduction="mean", zero_infinity=False)
QuantileLoss = _function("QuantileLoss", F.quantile_loss, quantile=0.5, reduction="mean")
DiceLoss = _function("DiceLoss", F.dice_loss, smooth=1.0, reduction="mean")
FocalLoss = _function("FocalLoss", F.sigmoid_focal_loss, alpha=0.25, gamma=2.0, reduction="mean")

__all__ = [_name for _name, _value in dict(globals()).items() if isinstance(_value, type) and not _name.startswith("_") and _name != "Module"]
