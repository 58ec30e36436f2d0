"""Module: the base of all layers. Calling one on arrays traces it into a graph, compiles it once per shape, and runs it."""

from __future__ import annotations

import inspect
import itertools
import pickle
import typing

from .. import _core, _told
from .._core import Parameter

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

    import numpy as np
    import numpy.typing as npt
else:
    from .._numpy import np

_DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8", "bool": "bool", "float16": "f16", "bfloat16": "bf16"}


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
    raise TypeError(f"expected arrays, numbers, strings, None, and tuples, lists or dicts of them, {_told.call(value)}")


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


class _Tracer:
    """Calls a module with symbolic values in the places of the arguments' arrays."""

    def __init__(self, module: Module, args: Any, kwargs: Any) -> None:
        self.module, self.args, self.kwargs = module, args, kwargs
        self.output: Any = None  # the structure of what it returned, without the symbolic values, which would keep the trace

    def __call__(self, *values: Any) -> list[Any]:
        rest = iter(values)
        value = self.module._trace(*_rebuild(self.args, rest), **_rebuild(self.kwargs, rest))
        results: list[Any] = []
        _flatten(value, results)
        self.output = _rebuild(value, itertools.repeat(np.empty(0)))
        return results


class _Methods:
    """What every module can do. Set on the bound class, so that the engine's own layers have it too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _core.tracing():
            return self._trace(*args, **kwargs)
        leaves = []
        structure = _flatten((args, kwargs), leaves)
        if not leaves or not all(_is_array(x) for x in leaves):
            given = [x for x in (*args, *kwargs.values()) if not isinstance(x, (_core.Value, Parameter))]
            raise TypeError(f"{type(self).__name__}: expected arrays" + (", " + _told.call(given[0]) if given and not leaves else
                            "; symbolic values live only while a module or function is traced"))
        calls = self.__dict__.get("_calls")
        if calls is None:
            _told.module(self, "call")
            calls = self.__dict__["_calls"] = _core.Calls(self)
        results, output = calls.run(self, structure, leaves, args, kwargs)
        return _rebuild(output, iter(results))

    def graph(self, *args: Any, **kwargs: Any) -> _core.Graph:
        """The graph of self(*args), with inputs x0, x1, ... of the arrays' types. `print(module.graph(x))` shows it."""
        leaves = []
        _flatten((args, kwargs), leaves)

        types = [_type_of(np.asarray(a)) for a in leaves]
        return _core.trace_module(self, types, any(m.training for m in self.modules()), _Tracer(self, args, kwargs))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _core.Module):
            _told.module(self, name)
            self._register_module(name, value)
        elif isinstance(value, Parameter):
            _told.module(self, name)
            self._register_parameter(name, value)
        elif name != "training" and _core.set_attribute(self, name, value):
            return
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        known = _core.unregister(self, name)
        if name in self.__dict__ or not known:
            object.__delattr__(self, name)
        _core.module_changed(self)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            parameter = self._parameter(name)
            if parameter is not None:
                return parameter
            for child, module in self._children():
                if child == name:
                    return module
            settings = _core.settings(self, False)
            if name in settings:
                return settings[name]
        raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        own = [name for name, _, _ in self._state() if "." not in name] + [name for name, _ in self._children()]
        return sorted({*object.__dir__(self), *own, *_core.settings(self, False)})

    def __reduce_ex__(self, protocol: int) -> Any:
        return _restored, (type(self), _made_of(self)), _saved(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state["attributes"].items():
            self.__setattr__(name, value)
        for name, array, trainable in state.get("tensors", ()):
            self.__setattr__(name, Parameter(array, trainable))
        for name, child in state.get("parts", ()):
            self._register_module(name, child)
            if name in state["named"]:
                object.__setattr__(self, name, child)
        modules = self.modules() if "tree" in state else [self]
        for module, (training, settings, tensors) in zip(modules, state.get("tree", [(state.get("training"), {}, [])]), strict=True):
            module.training = training
            for name, value in settings.items():
                _core.set_setting(module, name, value, True)
            own = {name: value for name, value, _ in module._state() if "." not in name}
            for name, array in tensors:
                own[name][...] = array

    def train(self, mode: bool = True) -> Self:
        """Sets training mode for this module and all below; returns self."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike], strict: bool = True) -> None:
        """Copies values by name; raises ValueError that lists every missing, unknown and misshapen name.

        With strict=False missing and unknown names are passed over; where no name at all is the model's, it is a ValueError yet.
        """
        state = self.state_dict()
        problems = []
        if not strict and state and state_dict and not any(n in state for n in state_dict):
            problems.append(f"none of the {len(state_dict)} names given ({', '.join(map(repr, list(state_dict)[:3]))}, ...) is one of the model's "
                            f"({', '.join(map(repr, list(state)[:3]))}, ...)")
        if strict:
            problems += [f"'{n}' is missing" for n in state if n not in state_dict]
            problems += [f"'{n}' is not a tensor of the model" for n in state_dict if n not in state]
        problems += [f"'{n}': expected shape {state[n].shape}, got {tuple(np.shape(state_dict[n]))}" for n in state
                     if n in state_dict and tuple(np.shape(state_dict[n])) != state[n].shape]
        if problems:
            raise ValueError("state does not fit the model:\n  " + "\n  ".join(problems) + _prefix_hint(list(state_dict), list(state)))
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


def _prefix_hint(given: list[str], own: list[str]) -> str:
    """What to do where names would fit but for a prefix, such as "model." of a wrapper that they were saved from."""
    if not given or not own or set(given) & set(own):
        return ""
    for name in given:
        if any(name.endswith("." + n) for n in own):
            prefix = next(name[:-len(n)] for n in own if name.endswith("." + n))
            if sum(n.removeprefix(prefix) in own for n in given if n.startswith(prefix)) * 2 >= len(own):
                return (f"\n  the names fit without the prefix {prefix!r}: load_state_dict({{name.removeprefix({prefix!r}): value "
                        "for name, value in state_dict.items()})")
    for name in own:
        if any(name.endswith("." + n) for n in given):
            prefix = next(name[:-len(n)] for n in given if name.endswith("." + n))
            if sum(prefix + n in own for n in given) * 2 >= len(given):
                return f"\n  the names fit with the prefix {prefix!r}: load_state_dict({{{prefix!r} + name: value for name, value in state_dict.items()}})"
    return ""


def set_methods(owner: type, methods: type) -> None:
    """The functions of a class as methods of a bound class."""
    for name, member in vars(methods).items():
        if callable(member):
            member.__module__, member.__qualname__ = owner.__module__, f"{owner.__name__}.{name}"
            setattr(owner, name, member)


def _made_of(module: Module) -> Any:
    """What a module like this one is made of again, without its tensors: None for classes of Python."""
    if isinstance(module, Module):
        return None
    recipe = module.__dict__.get("_recipe")
    if recipe is not None:
        return recipe
    if isinstance(module, _core.TransformerEncoder):
        layers, *norm = module.children()
        if not len(layers):
            raise pickle.PicklingError("a TransformerEncoder without layers can't be pickled")
        return {"encoder_layer": layers[0], "num_layers": len(layers), "norm": norm[0] if norm else None}
    settings = _core.settings(module, True)
    if not settings:
        raise pickle.PicklingError(f"a {type(module).__name__} that is a part of a model of deepseek.models can't be pickled alone; pickle the model")
    return settings


def _restored(cls: type, made_of: Any) -> Any:
    """A module of this class; __setstate__ gives it its tensors."""
    if isinstance(made_of, tuple):
        from .. import models

        return _core.make_unset(lambda: models.create(made_of[0], made_of[1], made_of[2], **made_of[3]))
    module = cls.__new__(cls)
    bound = next(base for base in cls.__mro__ if base.__module__ == _core.__name__)
    _core.make_unset(lambda: bound.__init__(module, **(made_of or {})))
    return module


def _saved(module: Module) -> dict[str, Any]:
    tensors = [(name, value, trainable) for name, value, trainable in module._state() if "." not in name]
    parts = module._children()
    known = {name for name, _, _ in tensors} | {name for name, _ in parts}
    attributes = {name: value for name, value in module.__dict__.items() if name != "_calls" and name not in known}
    if isinstance(module, Module):
        return {"attributes": attributes, "tensors": tensors, "parts": parts, "training": module.training,
                "named": [name for name, _ in parts if name in module.__dict__]}
    # The constructor makes the parts anew; what they hold goes into them.
    tree = [(m.training, _core.settings(m, True), [(n, v) for n, v, _ in m._state() if "." not in n]) for m in module.modules()]
    return {"attributes": attributes, "tree": tree}


set_methods(_core.Module, _Methods)
for _layer in [c for c in vars(_core).values() if isinstance(c, type) and issubclass(c, _core.Module) and c is not _core.Module]:
    _told.explain_arguments(_layer)
_core.Module._trace = _core.Module._call


class Module(_core.Module):
    """Base of all modules: assign parameters and modules to attributes, and define forward(self, x) with deepseek.ops.

    forward() is traced: it runs when a call finds no program for the module as it is and for the arguments' types. Every attribute of the
    module and of its parts counts as part of it, lists, dicts, arrays and objects by what is in them; what forward() reads elsewhere, such
    as globals, is seen only when it is traced.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        return _core.in_scope(self, lambda: self.forward(*args, **kwargs))

    def _input_names(self) -> tuple[tuple[str, bool], ...]:
        """(name, whether it is required) of what forward() takes; empty where it takes any number of inputs."""
        parameters = list(inspect.signature(self.forward).parameters.values())
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters):
            return ()
        return tuple((p.name, p.default is p.empty) for p in parameters)
