"""Methods of symbolic values, with PyTorch's names and arguments. Each emits ops; a Parameter has them inside a trace."""

import collections
import math

import numpy as np

from . import _core
from ._core import Parameter, Value, emit

_NAMES = {name: name for name in ("f64", "f32", "f16", "bf16", "i64", "i32", "i8", "u8", "bool")}
_NAMES |= {"float64": "f64", "double": "f64", "float32": "f32", "float": "f32", "float16": "f16", "half": "f16", "bfloat16": "bf16",
           "int64": "i64", "long": "i64", "int32": "i32", "int": "i32", "int8": "i8", "uint8": "u8"}

ValuesAndIndices = collections.namedtuple("ValuesAndIndices", ["values", "indices"])


def dtype_name(dtype):
    """"f32" of "f32", "float32", np.float32, np.dtype, torch.float32."""
    name = dtype if isinstance(dtype, str) else str(dtype) if "torch" in str(dtype) else np.dtype(dtype).name
    name = name.removeprefix("torch.")
    if name not in _NAMES:
        raise TypeError(f"dtype {dtype!r} is not supported; expected one of {', '.join(_NAMES)}")
    return _NAMES[name]


def op(name, *inputs, **attrs):
    return emit(name, inputs, attrs)


def axis_of(dim, rank):
    if not isinstance(dim, (int, np.integer)) or not -rank <= dim < rank:
        raise IndexError(f"expected dim in [{-rank}, {rank}), got {dim!r}")
    return int(dim) % rank


def axes_of(dim, rank):
    """The axes of `dim`: all for None, one, or several."""
    if dim is None:
        return []
    return [axis_of(d, rank) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]


def _ints(args):
    return [int(a) for a in (args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args)]


def reshape(x, *shape):
    return op("reshape", x, dims=_ints(shape))


def permute(x, *dims):
    return op("transpose", x, permutation=[axis_of(d, x.ndim) for d in _ints(dims)])


def transpose(x, dim0, dim1):
    order = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim), axis_of(dim1, x.ndim)
    order[a], order[b] = order[b], order[a]
    return op("transpose", x, permutation=order)


def flatten(x, start_dim=0, end_dim=-1):
    if x.ndim == 0:
        return reshape(x, 1)
    a, b = axis_of(start_dim, x.ndim), axis_of(end_dim, x.ndim)
    if b < a:
        raise ValueError(f"flatten: expected start_dim <= end_dim, got {start_dim} and {end_dim}")
    return reshape(x, *x.shape[:a], math.prod(x.shape[a:b + 1]), *x.shape[b + 1:])


def unsqueeze(x, dim):
    at = axis_of(dim, x.ndim + 1)
    return reshape(x, *x.shape[:at], 1, *x.shape[at:])


def squeeze(x, dim=None):
    drop = range(x.ndim) if dim is None else axes_of(dim, x.ndim)
    return reshape(x, [n for i, n in enumerate(x.shape) if n != 1 or i not in drop])


def expand(x, *sizes):
    sizes = _ints(sizes)
    missing = len(sizes) - x.ndim
    return op("broadcast_to", x, dims=[x.shape[i - missing] if n == -1 and i >= missing else n for i, n in enumerate(sizes)])


def narrow(x, dim, start, length):
    return op("slice", x, axis=axis_of(dim, x.ndim), start=start, stop=start + length)


def split(x, split_size_or_sections, dim=0):
    n = x.shape[axis_of(dim, x.ndim)]
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    if sum(sizes) != n:
        raise ValueError(f"split: expected sizes that sum to {n}, got {list(sizes)}")
    starts = np.cumsum([0, *sizes])
    return tuple(narrow(x, dim, int(start), size) for start, size in zip(starts, sizes))


def chunk(x, chunks, dim=0):
    return split(x, max(1, -(-x.shape[axis_of(dim, x.ndim)] // chunks)), dim)


def unbind(x, dim=0):
    axis = axis_of(dim, x.ndim)
    return tuple(reshape(narrow(x, axis, i, 1), *x.shape[:axis], *x.shape[axis + 1:]) for i in range(x.shape[axis]))


def _reduction(name):
    def reduce(x, dim=None, keepdim=False):
        return op(name, x, axes=axes_of(dim, x.ndim), keepdims=keepdim)

    reduce.__name__ = name
    return reduce


def _extreme(name):
    def extreme(x, dim=None, keepdim=False):
        if dim is None:
            return op(name, x)
        axis = axis_of(dim, x.ndim)
        return ValuesAndIndices(op(name, x, axes=[axis], keepdims=keepdim), op("arg" + name, x, axis=axis, keepdims=keepdim))

    extreme.__name__ = name
    extreme.__doc__ = f"The {name}imum of all elements, or with dim the (values, indices) along it."
    return extreme


def _arg_extreme(name):
    def arg(x, dim=None, keepdim=False):
        return op(name, reshape(x, -1), axis=0) if dim is None else op(name, x, axis=axis_of(dim, x.ndim), keepdims=keepdim)

    arg.__name__ = name
    return arg


def var(x, dim=None, unbiased=True, keepdim=False, correction=None):
    axes = axes_of(dim, x.ndim) or list(range(x.ndim))
    n = math.prod(x.shape[a] for a in axes)
    centred = x - op("mean", x, axes=axes, keepdims=True)
    divisor = n - ((1 if unbiased else 0) if correction is None else correction)
    return op("sum", centred * centred, axes=axes, keepdims=keepdim) / float(divisor)


def to(x, dtype):
    return op("cast", x, dtype=dtype_name(dtype))


def clamp(x, min=None, max=None):
    return op("clamp", x, **({} if min is None else {"min": float(min)}), **({} if max is None else {"max": float(max)}))


def masked_fill(x, mask, value):
    return op("select", mask, value, x)


def topk(x, k, dim=-1, largest=True):
    return ValuesAndIndices(*op("top_k", x, k=k, axis=axis_of(dim, x.ndim), largest=largest))


def flip(x, dims):
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


def getitem(x, key):
    """x[i, a:b:s, None, ..., indices]: basic indexing, and one array of integers."""
    key = list(key) if isinstance(key, tuple) else [key]
    used = sum(item is not None and item is not Ellipsis for item in key)
    ellipses = [i for i, item in enumerate(key) if item is Ellipsis]
    if len(ellipses) > 1 or used > x.ndim:
        raise IndexError(f"too many indices for a value of shape {tuple(x.shape)}: {key}")
    at = ellipses[0] if ellipses else len(key)
    key[at:at + 1] = [slice(None)] * (x.ndim - used)
    shape, axis, gathered = [], 0, None
    for position, item in enumerate(key):
        if item is None:
            shape.append(1)
            continue
        size = x.shape[axis]
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
            shape.append(x.shape[axis])
        else:
            if gathered is not None:
                raise IndexError("expected at most one array among the indices; use deepseek.ops.take_along_axis for more")
            gathered = axis, _index_array(item, size, position)
            shape += np.shape(gathered[1]) if not isinstance(gathered[1], Value) else gathered[1].shape
        axis += 1
    if gathered is not None:
        x = op("gather", x, gathered[1], axis=gathered[0])
    return x if tuple(shape) == tuple(x.shape) else reshape(x, shape)


def _length(x):
    if x.ndim == 0:
        raise TypeError("a scalar value has no length")
    return x.shape[0]


def _unary(name):
    def unary(x):
        return op(name, x)

    unary.__name__ = name
    return unary


METHODS = {
    "__getitem__": getitem, "__len__": _length, "__neg__": _unary("neg"), "__abs__": _unary("abs"), "__pos__": lambda x: x, "__invert__": _unary("logical_not"),
    "reshape": reshape, "view": reshape, "permute": permute, "transpose": transpose, "swapaxes": transpose, "flatten": flatten, "unsqueeze": unsqueeze,
    "squeeze": squeeze, "expand": expand, "narrow": narrow, "split": split, "chunk": chunk, "unbind": unbind, "sum": _reduction("sum"), "mean": _reduction("mean"),
    "prod": _reduction("prod"), "amax": _reduction("max"), "amin": _reduction("min"), "max": _extreme("max"), "min": _extreme("min"), "argmax": _arg_extreme("argmax"),
    "argmin": _arg_extreme("argmin"), "var": var, "std": lambda x, *args, **kwargs: op("sqrt", var(x, *args, **kwargs)), "to": to, "type": to, "clamp": clamp,
    "masked_fill": masked_fill, "topk": topk, "flip": flip, "contiguous": lambda x: x, "numel": lambda x: math.prod(x.shape), "dim": lambda x: x.ndim,
    "size": lambda x, dim=None: tuple(x.shape) if dim is None else x.shape[axis_of(dim, x.ndim)], "float": lambda x: to(x, "f32"), "double": lambda x: to(x, "f64"),
    "half": lambda x: to(x, "f16"), "long": lambda x: to(x, "i64"), "int": lambda x: to(x, "i32"), "bool": lambda x: to(x, "bool"), "type_as": lambda x, other: to(x, other.dtype),
    "matmul": lambda x, other: op("matmul", x, other), "mm": lambda x, mat2: op("matmul", x, mat2), "bmm": lambda x, mat2: op("matmul", x, mat2), "pow": lambda x, exponent: x ** exponent,
    "square": lambda x: x * x, "cumsum": lambda x, dim: op("cumsum", x, axis=axis_of(dim, x.ndim)), "gather": lambda x, dim, index: op("take_along_axis", x, index, axis=axis_of(dim, x.ndim)),
    "index_select": lambda x, dim, index: op("gather", x, index, axis=axis_of(dim, x.ndim)), "softmax": lambda x, dim: op("softmax", x, axis=axis_of(dim, x.ndim)),
    "log_softmax": lambda x, dim: op("log_softmax", x, axis=axis_of(dim, x.ndim)), "logical_not": _unary("logical_not"),
}
for _name in ("abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf", "floor", "ceil", "round", "sign", "neg", "relu"):
    METHODS[_name] = _unary(_name)
for _name, _operator in {"add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}.items():
    METHODS[_name] = lambda x, other, _operator=f"__{_operator}__": getattr(Value, _operator)(x, other)


def _through_value(function):
    return lambda self, *args, **kwargs: function(self._value(), *args, **kwargs)


def _install():
    for name, function in METHODS.items():
        setattr(Value, name, function)
        setattr(Parameter, name, _through_value(function))
    # Comparisons are ops, so values hash, and are found in sets, by identity.
    Value.__hash__ = object.__hash__
    # NumPy's arrays and numbers leave operators with a value to the value.
    Value.__array_ufunc__ = Parameter.__array_ufunc__ = None
    Value.T = property(lambda x: op("transpose", x, permutation=list(range(x.ndim))[::-1]))
    Value.mT = property(lambda x: transpose(x, -2, -1))
    Parameter.T, Parameter.mT = property(lambda p: p._value().T), property(lambda p: p._value().mT)
    for name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge"):
        setattr(Parameter, f"__{name}__", _through_value(getattr(Value, f"__{name}__")))
    for name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
        setattr(Parameter, f"__r{name}__", _through_value(getattr(Value, f"__r{name}__")))
    Parameter.shape = property(lambda p: tuple(p.data.shape))
    Parameter.ndim = property(lambda p: p.data.ndim)
    Parameter.dtype = property(lambda p: dtype_name(p.data.dtype))
    Parameter.__repr__ = lambda p: f"Parameter({p.dtype}{list(p.shape)})"


_install()
