"""DeepSeek: a modelling framework in which a model is a graph and a training step is one compiled program."""

from __future__ import annotations

import typing

from . import _core, _pickles, data, metrics, models, nn, ops, optim
from ._core import Graph, Program, Value, devices, isa, manual_seed, num_threads, op_names, samples, set_num_threads
from ._core import version as __version__
from .files import load, save
from .inference import Frozen, InferenceSession, Run, freeze, load_run
from .trainer import Trainer, compile, profile


def trace(function: typing.Callable[..., typing.Any], *arrays: typing.Any) -> Graph:
    """The graph of function(*arrays), with inputs x0, x1, ... of the arrays' types. `print(trace(f, x))` shows it."""
    import numpy as np

    return _core.trace_function(function, [nn._type_of(np.asarray(a)) for a in arrays])


if typing.TYPE_CHECKING:
    from .estimators import Classifier as Classifier, Regressor as Regressor
else:  # else mypy takes any name for one of this module's

    def __getattr__(name: str) -> typing.Any:
        """What needs scikit-learn, loaded on first use; not in __all__, lest `import *` needs it."""
        if name in ("Classifier", "Regressor"):
            from . import estimators

            return getattr(estimators, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Frozen", "Graph", "InferenceSession", "Program", "Run", "Trainer", "Value", "__version__", "compile", "data", "devices", "freeze", "isa", "load", "load_run", "manual_seed", "metrics", "models", "nn", "num_threads",
           "op_names", "ops", "optim", "profile", "samples", "save", "set_num_threads", "trace"]
