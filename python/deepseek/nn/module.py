"""Module: the base of all layers. Calling one on arrays traces it into a graph, compiles it once per shape, and runs it."""

from __future__ import annotations

import itertools
import typing

from .. import _core
from .._core import Parameter

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

    import numpy as np
    import numpy.typing as npt
else:
    from .._numpy import np

_DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8", "bool": "bool", "float16": "f16"}


def _type_of(array: np.ndarray) -> tuple[str, tuple[int, ...]]:
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"dtype {array.dtype} is not supported; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[array.dtype.name], array.shape


def _is_array(x: object) -> bool:
    return isinstance(x, (np.ndarray, np.generic)) or hasattr(x, "__dlpack__")


def _flatten(value: Any, leaves: list[Any]) -> str:
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


def _rebuild(value: Any, leaves: Iterator[Any]) -> Any:
    """`value` with its arrays and symbolic values taken from the iterator `leaves`."""
    if isinstance(value, (_core.Value, Parameter)) or _is_array(value):
        return next(leaves)
    if isinstance(value, dict):
        return {k: _rebuild(v, leaves) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_rebuild(v, leaves) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


class _Calls:
    """What a module keeps of its calls: programs by structure and types of the arguments, for the latest structures and modes."""

    _MOST = 16  # programs; each keeps memory for its intermediate values

    def __init__(self) -> None:
        self.version = None
        self.traces: dict[Any, Any] = {}  # (a _core.Traces, the output's structure) by all but the arrays' types
        self.programs: dict[Any, Any] = {}  # the latest used last
        self.bound: dict[Any, Any] = {}  # the same with the module's state given, until a module changes

    def find(self, module: Module, structure: str, types: list[Any], args: Any, kwargs: Any) -> Any:
        if self.version != (version := _core.structure_version()):
            self.version, self.bound = version, {}
            self.state = {name: value for name, value, _ in module._state()}
            modes = tuple(m.training for m in module.modules())
            self.training, self.form = any(modes), (modes, tuple((n, v.shape) for n, v in self.state.items()))
        key = (structure, *types)
        found = self.bound.get(key)
        if found is None or next(reversed(self.programs)) != (self.form, key):
            found = self._compile(module, structure, types, args, kwargs)
        return found

    def _compile(self, module: Module, structure: str, types: list[Any], args: Any, kwargs: Any) -> Any:
        key = (structure, *types)
        entry = self.programs.pop((self.form, key), None)
        if entry is None:
            traces, output = self.traces.setdefault((self.form, structure), (_core.Traces(), []))

            def function(*values):
                values = iter(values)
                value = module._trace(*_rebuild(args, values), **_rebuild(kwargs, values))
                results = []
                _flatten(value, results)
                # The structure alone: symbolic values would keep the trace alive.
                output[:] = [_rebuild(value, itertools.repeat(np.empty(0)))]
                return results

            graph = _core.trace_module(module, [(dtype, list(shape)) for dtype, shape in types], self.training, function, traces)
            entry = _core.compile(graph), output[0]
        self.programs[self.form, key] = entry
        if len(self.programs) > self._MOST:
            form, old = next(iter(self.programs))
            del self.programs[form, old]
            if form == self.form:
                self.bound.pop(old, None)
        if key not in self.bound:
            names = entry[0].input_names
            # One counter per module, each with a seed of its own: each call in training mode draws new masks.
            counter = _core.RANDOM_COUNTER
            if counter in names and "_random" not in module.__dict__:
                module.__dict__["_random"] = np.array([_core.draw_seed(), 0], np.int64)
            state = self.state | ({counter: module.__dict__["_random"]} if counter in names else {})
            self.bound[key] = _core.Bound(entry[0], [(i, state[n]) for i, n in enumerate(names) if n in state]), entry[1]
        return self.bound[key]


class _Methods:
    """What every module can do. Set on the bound class, so that the engine's own layers have it too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _core.tracing():
            return self._trace(*args, **kwargs)
        leaves = []
        structure = _flatten((args, kwargs), leaves)
        if not leaves or not all(_is_array(x) for x in leaves):
            raise TypeError(f"{type(self).__name__}: expected arrays; symbolic values live only while a module or function is traced")
        arrays = [np.require(x if isinstance(x, (np.ndarray, np.generic)) else np.from_dlpack(x), requirements="CW") for x in leaves]
        types = [_type_of(a) for a in arrays]
        calls = self.__dict__.get("_calls")
        if calls is None:
            calls = self.__dict__["_calls"] = _Calls()
        bound, output = calls.find(self, structure, types, args, kwargs)
        return _rebuild(output, iter(bound.run(arrays)))

    def graph(self, *args: Any, **kwargs: Any) -> _core.Graph:
        """The graph of self(*args), with inputs x0, x1, ... of the arrays' types. `print(module.graph(x))` shows it."""
        leaves = []
        _flatten((args, kwargs), leaves)

        def function(*values):
            values = iter(values)
            results = []
            _flatten(self._trace(*_rebuild(args, values), **_rebuild(kwargs, values)), results)
            return results

        return _core.trace_module(self, [_type_of(np.asarray(a)) for a in leaves], any(m.training for m in self.modules()), function)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _core.Module):
            self._register_module(name, value)
        elif isinstance(value, Parameter):
            self._register_parameter(name, value)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            parameter = self._parameter(name)
            if parameter is not None:
                return parameter
            for child, module in self._children():
                if child == name:
                    return module
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    def train(self, mode: bool = True) -> Self:
        """Sets training mode for this module and all below; returns self."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike], strict: bool = True) -> None:
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

    def named_modules(self, prefix: str = "", seen: set[Module] | None = None) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below, depth first, each once."""
        seen = set() if seen is None else seen
        if self in seen:
            return
        seen.add(self)
        yield prefix, self
        for name, child in self._children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Calls fn on every module below and on this one; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def register_buffer(self, name: str, array: npt.ArrayLike) -> None:
        """A tensor of the state that training does not touch, readable as self.<name>."""
        setattr(self, name, Parameter(np.asarray(array), trainable=False))

    def __repr__(self) -> str:
        own = ", ".join(f"{name}: {list(array.shape)}" for name, array, _ in self._state() if "." not in name)
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._children()]
        return f"{type(self).__name__}({own}" + ("\n" + "\n".join(lines) + "\n" if lines else "") + ")"

    def eval(self) -> Self:
        """Sets evaluation for this module and all below; returns self."""
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name, over the module's memory."""
        return {name: value for name, value, _ in self._state()}

    def named_parameters(self) -> list[tuple[str, np.ndarray]]:
        return [(name, value) for name, value, trainable in self._state() if trainable]

    def parameters(self) -> list[np.ndarray]:
        return [value for _, value, trainable in self._state() if trainable]

    def named_buffers(self) -> list[tuple[str, np.ndarray]]:
        return [(name, value) for name, value, trainable in self._state() if not trainable]

    def buffers(self) -> list[np.ndarray]:
        return [value for _, value, trainable in self._state() if not trainable]

    def children(self) -> list[Module]:
        return [child for _, child in self._children()]

    def named_children(self) -> list[tuple[str, Module]]:
        return self._children()

    def modules(self) -> list[Module]:
        return [module for _, module in self.named_modules()]

    def add_module(self, name: str, module: Module) -> None:
        setattr(self, name, module)

    def register_parameter(self, name: str, param: Parameter) -> None:
        setattr(self, name, param)


def set_methods(owner: type, methods: type) -> None:
    """The functions of a class as methods of a bound class."""
    for name, member in vars(methods).items():
        if callable(member):
            member.__module__, member.__qualname__ = owner.__module__, f"{owner.__name__}.{name}"
            setattr(owner, name, member)


set_methods(_core.Module, _Methods)
_core.Module._trace = _core.Module._call


class Module(_core.Module):
    """Base of all modules: assign parameters and modules to attributes, and define forward(self, x) with deepseek.ops."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        return _core.in_scope(self, lambda: self.forward(*args, **kwargs))
