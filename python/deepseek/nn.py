"""Modules with PyTorch's habits. Calling one on arrays traces it into a graph, compiles it once per shape, and runs it."""

import math

import numpy as np

from . import _core, ops
from ._core import Parameter, manual_seed

_DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8", "bool": "bool", "float16": "f16"}


def _type_of(array):
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"dtype {array.dtype} is not supported; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[array.dtype.name], list(array.shape)


class Module(_core.Module):
    """Base of all modules: assign parameters and modules to attributes, and define forward(self, x) with deepseek.ops."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "training", True)

    def __setattr__(self, name, value):
        if isinstance(value, _core.Module):
            self._register_module(name, value)
        elif isinstance(value, Parameter):
            self._register_parameter(name, value)
        object.__setattr__(self, name, value)

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")


def _call(self, *inputs):
    if not inputs or not all(isinstance(x, (np.ndarray, np.generic)) or hasattr(x, "__dlpack__") for x in inputs):
        return self._call(*inputs)
    arrays = [np.ascontiguousarray(x if isinstance(x, (np.ndarray, np.generic)) else np.from_dlpack(x)) for x in inputs]
    types = [_type_of(a) for a in arrays]
    training = getattr(self, "training", True)
    state = {name: value for name, value, _ in self._state()}
    key = (training, repr(types), tuple((n, v.shape) for n, v in state.items()))
    cache = self.__dict__.setdefault("_programs", {})
    if key not in cache:
        cache[key] = _core.compile(_core.trace_module(self, types, training))
    program = cache[key]
    given = {f"x{i}": a for i, a in enumerate(arrays)}
    if "random" in program.input_names:
        # One counter per module: each call in training mode draws new masks.
        state["random"] = self.__dict__.setdefault("_random", np.zeros(2, np.int64))
    results = program.run([given[n] if n in given else state[n] for n in program.input_names])
    return results[0] if len(results) == 1 else tuple(results)


def _train(self, mode=True):
    """Sets training mode for this module and all below; returns self."""
    object.__setattr__(self, "training", bool(mode))
    for _, child in self._children():
        child.train(mode)
    return self


def _load_state_dict(self, values):
    """Copies values by name; raises ValueError that lists every missing, unknown and misshapen name."""
    state = self.state_dict()
    problems = [f"'{n}' is missing" for n in state if n not in values]
    problems += [f"'{n}' is not a tensor of the model" for n in values if n not in state]
    problems += [f"'{n}': expected shape {state[n].shape}, got {np.shape(values[n])}" for n in state
                 if n in values and np.shape(values[n]) != state[n].shape]
    if problems:
        raise ValueError("state does not fit the model:\n  " + "\n  ".join(problems))
    for name, array in state.items():
        array[...] = values[name]


# On the bound class, so that the engine's own layers have them too.
_core.Module.__call__ = _call
_core.Module.train = _train
_core.Module.eval = lambda self: self.train(False)
_core.Module.load_state_dict = _load_state_dict
_core.Module.state_dict = lambda self: {name: value for name, value, _ in self._state()}
_core.Module.named_parameters = lambda self: [(name, value) for name, value, trainable in self._state() if trainable]
_core.Module.parameters = lambda self: [value for _, value, trainable in self._state() if trainable]
_core.Module.children = lambda self: [child for _, child in self._children()]
_core.Module.graph = lambda self, *arrays: _core.trace_module(self, [_type_of(np.asarray(a)) for a in arrays], getattr(self, "training", True))

Linear = _core.Linear
LayerNorm = _core.LayerNorm
Dropout = _core.Dropout
BatchNorm1d = BatchNorm2d = BatchNorm3d = _core.BatchNorm


def _per_axis(value, axes):
    values = [value] * axes if isinstance(value, int) else list(value)
    if len(values) != axes:
        raise ValueError(f"expected one number or {axes}, got {value}")
    return values


def _conv(axes):
    def make(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        lists = [_per_axis(v, axes) for v in (kernel_size, stride, padding, dilation)]
        return _core.Conv(in_channels, out_channels, *lists, groups, bias)

    make.__name__ = f"Conv{axes}d"
    make.__doc__ = f"Convolution over {axes} spatial axes of [N, C, ...]; weight [out, in / groups, kernel...], bias [out]."
    return make


Conv1d, Conv2d, Conv3d = _conv(1), _conv(2), _conv(3)


class Sequential(Module):
    """Modules one after the other, named "0", "1", ..."""

    def __init__(self, *modules):
        super().__init__()
        self._order = list(modules)
        for i, module in enumerate(modules):
            self._register_module(str(i), module)

    def forward(self, x):
        for module in self._order:
            x = module(x)
        return x

    def __len__(self):
        return len(self._order)

    def __getitem__(self, index):
        return self._order[index]


class _Function(Module):
    """An op without parameters as a module."""

    _op = ""

    def __init__(self, **attrs):
        super().__init__()
        self._attrs = attrs

    def forward(self, x):
        return _core.emit(self._op, (x,), self._attrs)


def _function(name, op):
    return type(name, (_Function,), {"_op": op, "__doc__": f"deepseek.ops.{op} as a module; keywords are the op's attributes."})


ReLU = _function("ReLU", "relu")
GELU = _function("GELU", "gelu")
SiLU = _function("SiLU", "silu")
Sigmoid = _function("Sigmoid", "sigmoid")
Tanh = _function("Tanh", "tanh")
Softmax = _function("Softmax", "softmax")


class Flatten(Module):
    """[N, ...] to [N, product of the rest]."""

    def forward(self, x):
        return ops.reshape(x, dims=[x.shape[0], math.prod(x.shape[1:])])


class Embedding(Module):
    """Rows of `weight` [num_embeddings, embedding_dim] by integer index; weights start as N(0, 1)."""

    def __init__(self, num_embeddings, embedding_dim):
        super().__init__()
        self.weight = Parameter(np.random.default_rng(0).standard_normal((num_embeddings, embedding_dim)).astype(np.float32))

    def forward(self, indices):
        return ops.embedding(self.weight, indices)
