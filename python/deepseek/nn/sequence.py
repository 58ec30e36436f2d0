"""Recurrent layers and the Transformer's encoder, with PyTorch's arguments, state and results."""

from __future__ import annotations

import typing

from .. import _core
from . import functional as F
from .layers import GELU, ReLU

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._types import Tensor, TensorLike


class LSTM(_core.LSTM):
    """Returns output, (h, c). Input [T, N, input_size], with batch_first [N, T, input_size]; h and c [num_layers * directions, N, hidden_size]."""

    def _trace(self, input: Tensor, hx: Any = None) -> Any:
        y, h, c = self._call(input, *(hx or ()))
        return y, (h, c)


class GRU(_core.GRU):
    """Returns output, h. Input [T, N, input_size], with batch_first [N, T, input_size]; h [num_layers * directions, N, hidden_size]."""

    def _trace(self, input: Tensor, hx: Any = None) -> Any:
        return self._call(input, *(() if hx is None else (hx,)))


class MultiheadAttention(_core.MultiheadAttention):
    """Returns the output and, with need_weights, the attention weights (mean over the heads, or [N, heads, L, S]), else None.

    Masks: bool, true where a key is hidden, or floats that are added to the scores. A row whose keys are all hidden
    attends evenly, where PyTorch gives zeros or NaN. is_causal alone hides the later keys; it needs no attn_mask.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False) -> None:
        if add_bias_kv or add_zero_attn:
            raise ValueError("MultiheadAttention: add_bias_kv and add_zero_attn are not supported; leave them False")
        super().__init__(embed_dim, num_heads, dropout, bias, batch_first, kdim or 0, vdim or 0)

    def _trace(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: TensorLike | None = None, need_weights: bool = True, attn_mask: TensorLike | None = None, average_attn_weights: bool = True, is_causal: bool = False) -> Any:
        result = self._attend(query, key, value, key_padding_mask, attn_mask, is_causal, need_weights)
        if not need_weights:
            return result, None
        output, weights = result
        return output, weights.mean(1) if average_attn_weights else weights


def _activation(activation):
    """The op of "relu", "gelu", F.relu, nn.GELU(), ..."""
    names = {F.relu: "relu", F.gelu: "gelu", F.silu: "silu"}
    name = activation if isinstance(activation, str) else names.get(activation)
    if isinstance(activation, ReLU) or isinstance(activation, GELU) and activation.approximate == "none":
        name = type(activation).__name__.lower()
    if name not in names.values():
        raise ValueError(f"activation: expected one of {', '.join(names.values())}, or that function of nn.functional, got {activation!r}")
    return name


class TransformerEncoderLayer(_core.TransformerEncoderLayer):
    """Attention and a feed-forward net, each with a residual and a normalisation. Masks as in MultiheadAttention."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Callable[..., Any] = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, _activation(activation), layer_norm_eps, batch_first, norm_first, bias)

    def _trace(self, src: Tensor, src_mask: TensorLike | None = None, src_key_padding_mask: TensorLike | None = None, is_causal: bool = False) -> Any:
        return self._encode(src, src_mask, src_key_padding_mask, is_causal)


class TransformerEncoder(_core.TransformerEncoder):
    """num_layers copies of encoder_layer, one after the other, and the module norm after them.

    enable_nested_tensor and mask_check choose between PyTorch's own paths; here there is one, and they mean nothing.
    """

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: _core.Module | None = None, enable_nested_tensor: bool = True, mask_check: bool = True) -> None:
        if not isinstance(encoder_layer, _core.TransformerEncoderLayer):
            raise TypeError(f"TransformerEncoder: expected a TransformerEncoderLayer to copy, got {type(encoder_layer).__name__}; put other layers into a ModuleList")
        super().__init__(encoder_layer, num_layers, norm)

    def _trace(self, src: Tensor, mask: TensorLike | None = None, src_key_padding_mask: TensorLike | None = None, is_causal: bool = False) -> Any:
        return self._encode(src, mask, src_key_padding_mask, bool(is_causal))
