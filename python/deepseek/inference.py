"""freeze(): a module for prediction alone, with its weights inside the compiled program."""

from __future__ import annotations

import itertools
import typing

from . import _core
from .nn.module import _flatten, _is_array, _rebuild, _type_of

if typing.TYPE_CHECKING:
    from typing import Any
else:
    from ._numpy import np


def _fingerprint(arrays: list[np.ndarray]) -> list[int]:
    """Numbers that change when training or loading changes the arrays, at the speed of memory."""
    return [int(np.add.reduce(np.frombuffer(memoryview(a).cast("B"), np.uint32 if a.nbytes % 4 == 0 else np.uint8), dtype=np.uint64)) for a in arrays]


class Frozen:
    """What freeze() returns: call it as the module."""

    def __init__(self, module: _core.Module, kernels: str = "listed") -> None:
        self.module = module
        self._measure = kernels == "measured"
        self._programs: dict[Any, tuple[_core.Program, Any]] = {}
        self._fingerprint = _fingerprint(list(module.state_dict().values()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        program, output, arrays = self._program(args, kwargs)
        return _rebuild(output, iter(program.run(arrays)))

    def profile(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Runs as a call does; returns one dict per node: scope, op, implementation, types, refusals, seconds, flops."""
        program, _, arrays = self._program(args, kwargs)
        return program.profile(arrays)

    def _program(self, args: Any, kwargs: Any) -> tuple[_core.Program, Any, list[np.ndarray]]:
        leaves: list[Any] = []
        structure = _flatten((args, kwargs), leaves)
        if not leaves or not all(_is_array(x) for x in leaves):
            raise TypeError(f"{self!r}: expected arrays")
        arrays = [np.require(x if isinstance(x, (np.ndarray, np.generic)) else np.from_dlpack(x), requirements="C") for x in leaves]
        key = (structure, *[(a.dtype, a.shape) for a in arrays])
        if key not in self._programs:
            self._programs[key] = self._compile(args, kwargs, arrays)
        return (*self._programs[key], arrays)

    def _compile(self, args: Any, kwargs: Any, arrays: list[np.ndarray]) -> tuple[_core.Program, Any]:
        state = self.module.state_dict()
        if any(m.training for m in self.module.modules()):
            raise RuntimeError(f"{self!r}: the module is in training mode again; call eval() before a new shape of inputs compiles")
        if _fingerprint(list(state.values())) != self._fingerprint:
            raise RuntimeError(f"{self!r}: the module's weights have changed since freeze(), and inputs of these shapes, "
                               f"{[a.shape for a in arrays]}, are not compiled yet; call freeze() again")
        output: list[Any] = []

        def function(*values: Any) -> list[Any]:
            rest = iter(values)
            output.append(self.module._trace(*_rebuild(args, rest), **_rebuild(kwargs, rest)))
            results: list[Any] = []
            _flatten(output[0], results)
            return results

        graph = _core.trace_module(self.module, [_type_of(a) for a in arrays], False, function)
        return _core.compile(graph, {n: a for n, a in state.items() if n in graph.input_names}, self._measure), _rebuild(output[0], itertools.repeat(np.empty(0)))

    def __repr__(self) -> str:
        return f"freeze({type(self.module).__name__})"


def freeze(module: _core.Module, *, kernels: str = "listed") -> Frozen:
    """The module, in evaluation mode, for prediction alone: `predict = deepseek.freeze(model.eval()); predict(x)`.

    Compiles once per shape of the inputs, with the weights as they are now: they are put into the kernels' layouts and what
    depends on them alone is computed ahead, so a call is faster than the module's. Later training of the module does not
    reach what is compiled; freeze it again. Takes about the weights' memory once more.

    kernels: "listed" takes the first fast kernel of each op's list, "measured" times those there are and remembers the
    fastest, per machine, in $DEEPSEEK_CACHE, $XDG_CACHE_HOME/deepseek or ~/.cache/deepseek.
    """
    if kernels not in ("listed", "measured"):
        raise ValueError(f"freeze: kernels: expected 'listed' or 'measured', got {kernels!r}")
    if any(m.training for m in module.modules()):
        raise ValueError(f"freeze: {type(module).__name__} or a part of it is in training mode; call eval() first")
    return Frozen(module, kernels)


__all__ = ["Frozen", "freeze"]
