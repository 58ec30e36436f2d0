"""Module: the base of all layers. Calling one on arrays traces it into a graph, compiles it once per shape, and runs it."""

import itertools

import numpy as np

from .. import _core
from .._core import Parameter

_DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8", "bool": "bool", "float16": "f16"}


def _type_of(array):
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"dtype {array.dtype} is not supported; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[array.dtype.name], list(array.shape)


def _is_array(x):
    return isinstance(x, (np.ndarray, np.generic)) or hasattr(x, "__dlpack__")


def _flatten(value, leaves):
    """The structure of nested tuples, lists and dicts as a string, with its arrays and symbolic values put into `leaves`."""
    if isinstance(value, (_core.Value, Parameter)) or _is_array(value):
        leaves.append(value)
        return "*"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{_flatten(v, leaves)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return type(value).__name__ + "(" + ",".join(_flatten(v, leaves) for v in value) + ")"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    raise TypeError(f"expected arrays, numbers, strings, None, and tuples, lists or dicts of them, got {type(value).__name__}")


def _rebuild(value, leaves):
    """`value` with its arrays and symbolic values taken from the iterator `leaves`."""
    if isinstance(value, (_core.Value, Parameter)) or _is_array(value):
        return next(leaves)
    if isinstance(value, dict):
        return {k: _rebuild(v, leaves) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_rebuild(v, leaves) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


class Module(_core.Module):
    """Base of all modules: assign parameters and modules to attributes, and define forward(self, x) with deepseek.ops."""

    def __init__(self):
        super().__init__()

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def _trace(self, *args, **kwargs):
        return _core.in_scope(self, lambda: self.forward(*args, **kwargs))


def _call(self, *args, **kwargs):
    if _core.tracing():
        return self._trace(*args, **kwargs)
    leaves = []
    structure = _flatten((args, kwargs), leaves)
    if not leaves or not all(_is_array(x) for x in leaves):
        raise TypeError(f"{type(self).__name__}: expected arrays; symbolic values live only while a module or function is traced")
    arrays = [np.require(x if isinstance(x, (np.ndarray, np.generic)) else np.from_dlpack(x), requirements="CW") for x in leaves]
    types = [_type_of(a) for a in arrays]
    modes = [m.training for m in self.modules()]
    state = {name: value for name, value, _ in self._state()}
    key = (structure, repr(types), tuple(modes), tuple((n, v.shape) for n, v in state.items()))
    cache = self.__dict__.setdefault("_programs", {})
    if key not in cache:
        output = []

        def function(*values):
            values = iter(values)
            output.append(self._trace(*_rebuild(args, values), **_rebuild(kwargs, values)))
            results = []
            _flatten(output[0], results)
            return results

        program = _core.compile(_core.trace_module(self, types, any(modes), function))
        # The structure alone: symbolic values would keep the trace alive.
        cache[key] = program, _rebuild(output[0], itertools.repeat(np.empty(0)))
    program, output = cache[key]
    given = {f"x{i}": a for i, a in enumerate(arrays)}
    if "random" in program.input_names:
        # One counter per module: each call in training mode draws new masks.
        state["random"] = self.__dict__.setdefault("_random", np.zeros(2, np.int64))
    return _rebuild(output, iter(program.run([given[n] if n in given else state[n] for n in program.input_names])))


def _graph(self, *args, **kwargs):
    """The graph of self(*args), with inputs x0, x1, ... of the arrays' types. `print(module.graph(x))` shows it."""
    leaves = []
    _flatten((args, kwargs), leaves)

    def function(*values):
        values = iter(values)
        results = []
        _flatten(self._trace(*_rebuild(args, values), **_rebuild(kwargs, values)), results)
        return results

    return _core.trace_module(self, [_type_of(np.asarray(a)) for a in leaves], any(m.training for m in self.modules()), function)


def _setattr(self, name, value):
    if isinstance(value, _core.Module):
        self._register_module(name, value)
    elif isinstance(value, Parameter):
        self._register_parameter(name, value)
    object.__setattr__(self, name, value)


def _getattr(self, name):
    if not name.startswith("_"):
        parameter = self._parameter(name)
        if parameter is not None:
            return parameter
        for child, module in self._children():
            if child == name:
                return module
    raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")


def _train(self, mode=True):
    """Sets training mode for this module and all below; returns self."""
    for module in self.modules():
        module.training = bool(mode)
    return self


def _load_state_dict(self, state_dict, strict=True):
    """Copies values by name; raises ValueError that lists every missing, unknown and misshapen name.

    With strict=False missing and unknown names are passed over.
    """
    state = self.state_dict()
    problems = []
    if strict:
        problems += [f"'{n}' is missing" for n in state if n not in state_dict]
        problems += [f"'{n}' is not a tensor of the model" for n in state_dict if n not in state]
    problems += [f"'{n}': expected shape {state[n].shape}, got {tuple(np.shape(state_dict[n]))}" for n in state
                 if n in state_dict and tuple(np.shape(state_dict[n])) != state[n].shape]
    if problems:
        raise ValueError("state does not fit the model:\n  " + "\n  ".join(problems))
    for name, array in state.items():
        if name in state_dict:
            array[...] = state_dict[name]


def _named_modules(self, prefix="", seen=None):
    """(path, module) of this module and all below, depth first, each once."""
    seen = set() if seen is None else seen
    if self in seen:
        return
    seen.add(self)
    yield prefix, self
    for name, child in self._children():
        yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)


def _apply(self, fn):
    """Calls fn on every module below and on this one; returns self."""
    for child in self.children():
        child.apply(fn)
    fn(self)
    return self


def _register_buffer(self, name, array):
    """A tensor of the state that training does not touch, readable as self.<name>."""
    setattr(self, name, Parameter(np.asarray(array), trainable=False))


def _repr(self):
    own = ", ".join(f"{name}: {list(array.shape)}" for name, array, _ in self._state() if "." not in name)
    lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._children()]
    return f"{type(self).__name__}({own}" + ("\n" + "\n".join(lines) + "\n" if lines else "") + ")"


# On the bound class, so that the engine's own layers have them too.
_core.Module.__call__ = _call
_core.Module.__setattr__ = _setattr
_core.Module.__getattr__ = _getattr
_core.Module.__repr__ = _repr
_core.Module._trace = _core.Module._call
_core.Module.graph = _graph
_core.Module.train = _train
_core.Module.eval = lambda self: self.train(False)
_core.Module.apply = _apply
_core.Module.load_state_dict = _load_state_dict
_core.Module.state_dict = lambda self: {name: value for name, value, _ in self._state()}
_core.Module.named_parameters = lambda self: [(name, value) for name, value, trainable in self._state() if trainable]
_core.Module.parameters = lambda self: [value for _, value, trainable in self._state() if trainable]
_core.Module.named_buffers = lambda self: [(name, value) for name, value, trainable in self._state() if not trainable]
_core.Module.buffers = lambda self: [value for _, value, trainable in self._state() if not trainable]
_core.Module.children = lambda self: [child for _, child in self._children()]
_core.Module.named_children = lambda self: self._children()
_core.Module.named_modules = _named_modules
_core.Module.modules = lambda self: [module for _, module in self.named_modules()]
_core.Module.add_module = lambda self, name, module: setattr(self, name, module)
_core.Module.register_parameter = lambda self, name, param: setattr(self, name, param)
_core.Module.register_buffer = _register_buffer
