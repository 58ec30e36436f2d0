"""Methods of symbolic values, with PyTorch's names and arguments. Each emits ops; a Parameter has them inside a trace."""

from __future__ import annotations

import math
import operator
import sys
import types
import typing

from ._core import Parameter, Value, emit, observe_size

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np

    from ._types import DType, Size, Tensor, TensorLike
else:
    from ._numpy import np

_NAMES = {name: name for name in ("f64", "f32", "f16", "bf16", "i64", "i32", "i8", "u8", "bool")}
_NAMES |= {"float64": "f64", "double": "f64", "float32": "f32", "float": "f32", "float16": "f16", "half": "f16", "bfloat16": "bf16",
           "int64": "i64", "long": "i64", "int32": "i32", "int": "i32", "int8": "i8", "uint8": "u8"}


class ValuesAndIndices(typing.NamedTuple):
    values: Value
    indices: Value


class AxisSize(int):
    """A size of a symbolic value. It counts and compares as the int that it is, and tells the trace when it is looked at.

    What is only computed from sizes and handed to ops may be computed anew for another batch (graph/resize.h); where code has
    decided something by a size, it has to run again.
    """

    __slots__ = ()

    def __int__(self) -> int:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("deepseek."):
            observe_size(operator.index(self))
        return operator.index(self)


def _size_method(name: str, looks: bool) -> Callable[..., Any]:
    function = getattr(int, name)

    def method(self, *args):
        if looks:
            observe_size(operator.index(self))
        result = function(self, *args)
        return result if looks or type(result) is not int else AxisSize(result)

    method.__name__ = name
    return method


for _name in ("add", "sub", "mul", "floordiv", "mod", "pow", "radd", "rsub", "rmul", "rfloordiv", "rmod", "rpow", "neg", "abs"):
    setattr(AxisSize, f"__{_name}__", _size_method(f"__{_name}__", looks=False))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "hash", "bool", "float", "truediv", "rtruediv", "divmod", "rdivmod", "repr", "format"):
    setattr(AxisSize, f"__{_name}__", _size_method(f"__{_name}__", looks=True))


def dtype_name(dtype: DType) -> str:
    """"f32" of "f32", "float32", np.float32, np.dtype, torch.float32."""
    name = dtype if isinstance(dtype, str) else str(dtype) if "torch" in str(dtype) else np.dtype(dtype).name
    name = name.removeprefix("torch.")
    if name not in _NAMES:
        raise TypeError(f"dtype {dtype!r} is not supported; expected one of {', '.join(_NAMES)}")
    return _NAMES[name]


def op(name: str, *inputs: Any, **attrs: Any) -> Any:
    return emit(name, inputs, attrs)


def axis_of(dim: int, rank: int) -> int:
    if not isinstance(dim, (int, np.integer)) or not -rank <= dim < rank:
        raise IndexError(f"expected dim in [{-rank}, {rank}), got {dim!r}")
    return int(dim) % rank


def axes_of(dim: Size | None, rank: int) -> list[int]:
    """The axes of `dim`: all for None, one, or several."""
    if dim is None:
        return []
    return [axis_of(d, rank) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]


def _ints(args: Any) -> list[int]:
    return [operator.index(a) for a in (args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args)]


def reshape(x: Tensor, *shape: int | Sequence[int]) -> Value:
    return op("reshape", x, dims=_ints(shape))


def permute(x: Tensor, *dims: int | Sequence[int]) -> Value:
    return op("transpose", x, permutation=[axis_of(d, x.ndim) for d in _ints(dims)])


def transpose(x: Tensor, dim0: int, dim1: int) -> Value:
    order = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim), axis_of(dim1, x.ndim)
    order[a], order[b] = order[b], order[a]
    return op("transpose", x, permutation=order)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Value:
    if x.ndim == 0:
        return reshape(x, 1)
    a, b = axis_of(start_dim, x.ndim), axis_of(end_dim, x.ndim)
    if b < a:
        raise ValueError(f"flatten: expected start_dim <= end_dim, got {start_dim} and {end_dim}")
    return reshape(x, *x._shape[:a], math.prod(x._shape[a:b + 1]), *x._shape[b + 1:])


def unsqueeze(x: Tensor, dim: int) -> Value:
    at = axis_of(dim, x.ndim + 1)
    return reshape(x, *x._shape[:at], 1, *x._shape[at:])


def squeeze(x: Tensor, dim: Size | None = None) -> Value:
    drop = range(x.ndim) if dim is None else axes_of(dim, x.ndim)
    return reshape(x, [n for i, n in enumerate(x._shape) if n != 1 or i not in drop])


def expand(x: Tensor, *sizes: int | Sequence[int]) -> Value:
    sizes = _ints(sizes)
    missing = len(sizes) - x.ndim
    return op("broadcast_to", x, dims=[x._shape[i - missing] if n == -1 and i >= missing else n for i, n in enumerate(sizes)])


def narrow(x: Tensor, dim: int, start: int, length: int) -> Value:
    return op("slice", x, axis=axis_of(dim, x.ndim), start=start, stop=start + length)


def split(x: Tensor, split_size_or_sections: Size, dim: int = 0) -> tuple[Value, ...]:
    n = x._shape[axis_of(dim, x.ndim)]
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    if sum(sizes) != n:
        raise ValueError(f"split: expected sizes that sum to {n}, got {list(sizes)}")
    starts = np.cumsum([0, *sizes])
    return tuple(narrow(x, dim, int(start), size) for start, size in zip(starts, sizes))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    return split(x, max(1, -(-x._shape[axis_of(dim, x.ndim)] // chunks)), dim)


def unbind(x: Tensor, dim: int = 0) -> tuple[Value, ...]:
    axis = axis_of(dim, x.ndim)
    return tuple(reshape(narrow(x, axis, i, 1), *x._shape[:axis], *x._shape[axis + 1:]) for i in range(x._shape[axis]))


def _reduction(name):
    def reduce(x: Tensor, dim: Size | None = None, keepdim: bool = False) -> Value:
        return op(name, x, axes=axes_of(dim, x.ndim), keepdims=keepdim)

    reduce.__name__ = name
    return reduce


def _extreme(name):
    def extreme(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return op(name, x)
        axis = axis_of(dim, x.ndim)
        return ValuesAndIndices(op(name, x, axes=[axis], keepdims=keepdim), op("arg" + name, x, axis=axis, keepdims=keepdim))

    extreme.__name__ = name
    extreme.__doc__ = f"The {name}imum of all elements, or with dim the (values, indices) along it."
    return extreme


def _arg_extreme(name):
    def arg(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Value:
        return op(name, reshape(x, -1), axis=0) if dim is None else op(name, x, axis=axis_of(dim, x.ndim), keepdims=keepdim)

    arg.__name__ = name
    return arg


def var(x: Tensor, dim: Size | None = None, unbiased: bool = True, keepdim: bool = False, correction: int | None = None) -> Value:
    """Squared deviations by the number of elements less the correction, as in PyTorch: by 0 where nothing would be left."""
    axes = axes_of(dim, x.ndim) or list(range(x.ndim))
    n = math.prod(x._shape[a] for a in axes)
    divisor = max(0.0, n - float((1 if unbiased else 0) if correction is None else correction))
    wide = op("cast", x, dtype="f32") if str(x.dtype) in ("f16", "bf16") else x  # whose squares and counts leave their range
    centred = wide - op("mean", wide, axes=axes, keepdims=True)
    y = op("sum", centred * centred, axes=axes, keepdims=keepdim) / divisor
    return y if wide is x else op("cast", y, dtype=x.dtype)


def std(x: Tensor, dim: Size | None = None, unbiased: bool = True, keepdim: bool = False, correction: int | None = None) -> Value:
    variance = var(x, dim, unbiased, keepdim, correction)
    still = variance == 0.0  # where the root has no slope, none is taken: its gradient is 0, as in PyTorch
    return op("select", still, 0.0, op("sqrt", op("select", still, 1.0, variance)))


def to(x: Tensor, dtype: DType) -> Value:
    return op("cast", x, dtype=dtype_name(dtype))


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Value:
    return op("clamp", x, **({} if min is None else {"min": float(min)}), **({} if max is None else {"max": float(max)}))


def masked_fill(x: Tensor, mask: TensorLike, value: TensorLike) -> Value:
    return op("select", mask, value, x)


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True) -> ValuesAndIndices:
    return ValuesAndIndices(*op("top_k", x, k=k, axis=axis_of(dim, x.ndim), largest=largest))


def flip(x: Tensor, dims: Size) -> Value:
    for axis in axes_of(dims, x.ndim):
        x = op("flip", x, axis=axis)
    return x


def _index_array(item, size, position):
    """Indices as a value or an array, with negative ones counted from the end."""
    if isinstance(item, Value):
        if item.dtype not in ("i64", "i32"):
            raise IndexError(f"index {position}: expected integers, got {item.dtype}; a bool mask would make the shape depend on the data, use select")
        return item
    array = np.asarray(item)
    if array.dtype.kind not in "iu":
        raise IndexError(f"index {position}: expected ints, slices, None, ... or arrays of integers, got {item!r}")
    if array.size and (array.min() < -size or array.max() >= size):
        raise IndexError(f"index {position}: {item!r} is out of range for an axis of {size}")
    return np.where(array < 0, array + size, array).astype(np.int64)


def getitem(x: Tensor, key: Any) -> Value:
    """x[i, a:b:s, None, ..., indices]: basic indexing, and one array of integers."""
    key = list(key) if isinstance(key, tuple) else [key]
    used = sum(item is not None and item is not Ellipsis for item in key)
    ellipses = [i for i, item in enumerate(key) if item is Ellipsis]
    if len(ellipses) > 1 or used > x.ndim:
        raise IndexError(f"too many indices for a value of shape {tuple(x._shape)}: {key}")
    at = ellipses[0] if ellipses else len(key)
    key[at:at + 1] = [slice(None)] * (x.ndim - used)
    shape, axis, gathered = [], 0, None
    for position, item in enumerate(key):
        if item is None:
            shape.append(1)
            continue
        size = x._shape[axis]
        if isinstance(item, (int, np.integer)) and not isinstance(item, (bool, np.bool_)):
            if not -size <= item < size:
                raise IndexError(f"index {position}: {item} is out of range for an axis of {size}")
            x = narrow(x, axis, int(item) % size, 1)
        elif isinstance(item, slice):
            start, stop, step = item.indices(size)
            if step < 1:
                raise ValueError(f"index {position}: expected a step >= 1, got {step}; reverse with flip")
            if (start, stop, step) != (0, size, 1):
                x = op("slice", x, axis=axis, start=start, stop=max(start, stop), step=step)
            shape.append(x._shape[axis])
        else:
            if gathered is not None:
                raise IndexError("expected at most one array among the indices; use deepseek.ops.take_along_axis for more")
            gathered = axis, _index_array(item, size, position)
            shape += np.shape(gathered[1]) if not isinstance(gathered[1], Value) else gathered[1].shape
        axis += 1
    if gathered is not None:
        x = op("gather", x, gathered[1], axis=gathered[0])
    return x if tuple(shape) == tuple(x._shape) else reshape(x, shape)


def _size(x: Tensor, dim: int | None = None) -> Any:
    return tuple(x.shape) if dim is None else x.shape[axis_of(dim, x.ndim)]


def _length(x: Tensor) -> int:
    if x.ndim == 0:
        raise TypeError("a scalar value has no length")
    observe_size(x._shape[0])
    return x._shape[0]


def _unary(name):
    def unary(x: Tensor) -> Value:
        return op(name, x)

    unary.__name__ = name
    return unary


METHODS = {
    "__getitem__": getitem, "__len__": _length, "__neg__": _unary("neg"), "__abs__": _unary("abs"), "__pos__": lambda x: x, "__invert__": _unary("logical_not"),
    "reshape": reshape, "view": reshape, "permute": permute, "transpose": transpose, "swapaxes": transpose, "flatten": flatten, "unsqueeze": unsqueeze,
    "squeeze": squeeze, "expand": expand, "narrow": narrow, "split": split, "chunk": chunk, "unbind": unbind, "sum": _reduction("sum"), "mean": _reduction("mean"),
    "prod": _reduction("prod"), "amax": _reduction("max"), "amin": _reduction("min"), "max": _extreme("max"), "min": _extreme("min"), "argmax": _arg_extreme("argmax"),
    "argmin": _arg_extreme("argmin"), "var": var, "std": std, "to": to, "type": to, "clamp": clamp,
    "masked_fill": masked_fill, "topk": topk, "flip": flip, "contiguous": lambda x: x, "numel": lambda x: math.prod(x.shape), "dim": lambda x: x.ndim,
    "size": _size, "float": lambda x: to(x, "f32"), "double": lambda x: to(x, "f64"),
    "half": lambda x: to(x, "f16"), "long": lambda x: to(x, "i64"), "int": lambda x: to(x, "i32"), "bool": lambda x: to(x, "bool"), "type_as": lambda x, other: to(x, other.dtype),
    "matmul": lambda x, other: op("matmul", x, other), "mm": lambda x, mat2: op("matmul", x, mat2), "bmm": lambda x, mat2: op("matmul", x, mat2), "pow": lambda x, exponent: x ** exponent,
    "square": lambda x: x * x, "cumsum": lambda x, dim: op("cumsum", x, axis=axis_of(dim, x.ndim)), "gather": lambda x, dim, index: op("take_along_axis", x, index, axis=axis_of(dim, x.ndim)),
    "index_select": lambda x, dim, index: op("gather", x, index, axis=axis_of(dim, x.ndim)), "softmax": lambda x, dim: op("softmax", x, axis=axis_of(dim, x.ndim)),
    "log_softmax": lambda x, dim: op("log_softmax", x, axis=axis_of(dim, x.ndim)), "logical_not": _unary("logical_not"),
}
for _name in ("abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf", "floor", "ceil", "round", "sign", "neg", "relu"):
    METHODS[_name] = _unary(_name)


def _operator(name: str) -> Callable[..., Value]:
    def operator(x: Tensor, other: TensorLike) -> Value:
        return getattr(x._value() if isinstance(x, Parameter) else x, name)(other)

    return operator


for _name, _symbol in {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}.items():
    METHODS[_name] = _operator(f"__{_symbol}__")

# Annotations of the lambdas, by method and by argument; else a method returns a value.
_RETURNS = {"numel": "int", "dim": "int", "shape": "tuple[int, ...]", "ndim": "int", "dtype": "str", "__repr__": "str"}
_ARGUMENTS = {"x": "Tensor", "dim": "int", "other": "TensorLike", "mat2": "TensorLike", "exponent": "TensorLike", "index": "TensorLike"}


def _method(owner: type, name: str, function: Callable[..., Any], through_value: bool = False) -> Callable[..., Any]:
    """A copy of the function under its name as a method; with through_value it is given the parameter's value."""
    copy = types.FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__annotations__ = {key: _ARGUMENTS[key] for key in copy.__code__.co_varnames[:copy.__code__.co_argcount] if key in _ARGUMENTS}
    copy.__annotations__ |= {"return": _RETURNS.get(name, "Value"), **function.__annotations__}
    method = copy
    if through_value:
        def method(self, *args, **kwargs):
            return function(self._value(), *args, **kwargs)

        method.__wrapped__ = copy
    method.__name__, method.__qualname__, method.__module__, method.__doc__ = name, f"{owner.__name__}.{name}", owner.__module__, function.__doc__
    return method


def _install() -> None:
    for name, function in METHODS.items():
        setattr(Value, name, _method(Value, name, function))
        setattr(Parameter, name, _method(Parameter, name, function, through_value=True))
    # Comparisons are ops, so values hash, and are found in sets, by identity.
    Value.__hash__ = object.__hash__
    # NumPy's arrays and numbers leave operators with a value to the value.
    Value.__array_ufunc__ = Parameter.__array_ufunc__ = None
    for name, function in {"T": lambda x: op("transpose", x, permutation=list(range(x.ndim))[::-1]), "mT": lambda x: transpose(x, -2, -1)}.items():
        setattr(Value, name, property(_method(Value, name, function)))
        setattr(Parameter, name, property(_method(Parameter, name, function, through_value=True)))
    for name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "radd", "rsub", "rmul", "rtruediv", "rpow", "rmatmul"):
        setattr(Parameter, f"__{name}__", _method(Parameter, f"__{name}__", _operator(f"__{name}__")))
    Value.shape = property(_method(Value, "shape", lambda x: tuple(map(AxisSize, x._shape))))
    for name, function in {"shape": lambda p: tuple(p.data.shape), "_shape": lambda p: tuple(p.data.shape), "ndim": lambda p: p.data.ndim, "dtype": lambda p: dtype_name(p.data.dtype)}.items():
        setattr(Parameter, name, property(_method(Parameter, name, function)))
    Parameter.__repr__ = _method(Parameter, "__repr__", lambda p: f"Parameter({p.dtype}{list(p.shape)})")


_install()
