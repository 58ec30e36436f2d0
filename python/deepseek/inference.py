"""freeze(): a module for prediction alone, with its weights inside the compiled program."""

from __future__ import annotations

import typing

from . import _core
from .nn.module import _flatten, _is_array, _rebuild

if typing.TYPE_CHECKING:
    from typing import Any


class Frozen:
    """What freeze() returns: call it as the module."""

    def __init__(self, module: _core.Module, kernels: str = "listed") -> None:
        self.module = module
        self._kernels = kernels
        self._calls = _core.Calls(module, True, kernels == "measured")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        results, output = self._calls.run(self.module, *self._flatten(args, kwargs), args, kwargs)
        return _rebuild(output, iter(results))

    def profile(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Runs as a call does; returns one dict per node: scope, op, implementation, types, refusals, seconds, flops."""
        return self._calls.profile(self.module, *self._flatten(args, kwargs), args, kwargs)

    def _flatten(self, args: Any, kwargs: Any) -> tuple[str, list[Any]]:
        leaves: list[Any] = []
        structure = _flatten((args, kwargs), leaves)
        if not leaves or not all(_is_array(x) for x in leaves):
            raise TypeError(f"{self!r}: expected arrays")
        return structure, leaves

    def __reduce__(self) -> Any:
        return freeze_again, (self.module, self._kernels)

    def __repr__(self) -> str:
        return f"freeze({type(self.module).__name__})"


def freeze_again(module: _core.Module, kernels: str) -> Frozen:
    """For pickling."""
    return Frozen(module, kernels)


def freeze(module: _core.Module, *, kernels: str = "listed") -> Frozen:
    """The module, in evaluation mode, for prediction alone: `predict = deepseek.freeze(model.eval()); predict(x)`.

    Compiles once per shape of the inputs, with the weights as they are now: they are put into the kernels' layouts and what
    depends on them alone is computed ahead, so a call is faster than the module's. Later training of the module does not
    reach what is compiled; freeze it again. Takes about the weights' memory once more; the programs of shapes that were not used
    for long may go and are compiled again, from the same weights or not at all.

    kernels: "listed" takes the first fast kernel of each op's list, "measured" times those there are and remembers the
    fastest, per machine, in $DEEPSEEK_CACHE, $XDG_CACHE_HOME/deepseek or ~/.cache/deepseek.
    """
    if kernels not in ("listed", "measured"):
        raise ValueError(f"freeze: kernels: expected 'listed' or 'measured', got {kernels!r}")
    if any(m.training for m in module.modules()):
        raise ValueError(f"freeze: {type(module).__name__} or a part of it is in training mode; call eval() first")
    return Frozen(module, kernels)


__all__ = ["Frozen", "freeze"]
