"""Prediction alone: freeze() of a module in memory, InferenceSession of a model in a file."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping

from . import _core, _told
from .nn.module import _flatten, _is_array, _rebuild

if typing.TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import numpy as np
    import numpy.typing as npt
else:
    from ._numpy import np


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
            raise TypeError(f"{self!r}: expected arrays" + (f", {_told.call(args[0])}" if args else ""))
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
    _told.module(module, "freeze")
    if any(m.training for m in module.modules()):
        raise ValueError(f"freeze: {type(module).__name__} or a part of it is in training mode; call eval() first")
    return Frozen(module, kernels)


__all__ = ["Frozen", "freeze"]


class Port(typing.NamedTuple):
    """An input or output of a model file."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]  # None on axes that may vary


class InferenceSession:
    """A model file, or the folder of a run, ready to run: for any number of threads at once.

        session = deepseek.InferenceSession("wine.dsk")
        kind, = session.run(["kind"], {"image": images, "table": rows})
        session.predict("new.csv")["prediction"]

    Neither the code that made the model nor its training data are needed. A program is compiled for each size of batch that comes
    in, and the last max_programs of them are kept.

    path: what Trainer.save() or `deepseek export` wrote, or a run folder. device: what runs it, see devices(). warm_up: sizes of batches
    that are compiled and run while opening, so that their first run is as fast as later ones. kernels: as for freeze().
    Raises FileNotFoundError, or ValueError that says what is wrong with the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", max_programs: int = 32, warm_up: Iterable[int] = (),
                 kernels: str = "listed") -> None:
        if kernels not in ("listed", "measured"):
            raise ValueError(f"kernels: expected 'listed' or 'measured', got {kernels!r}")
        self._options = (os.fspath(path), device, max_programs, list(warm_up), kernels)
        self._core = _core.Session.open(_core.model_path(self._options[0]), device, max_programs, self._options[3], kernels == "measured")

    def run(self, outputs: Iterable[str] | None, inputs: Mapping[str, npt.ArrayLike]) -> list[np.ndarray]:
        """The outputs asked for, in that order (None: all), of inputs by name.

        Arrays are as the model takes them, of the inputs' dtypes; float64 is taken for float32, any integer for int64. What was raw while
        training (a table, pictures) goes through predict().
        """
        if not isinstance(inputs, Mapping):
            raise TypeError(f"inputs: expected a dict of arrays by name ({', '.join(p.name for p in self.inputs)}), got {type(inputs).__name__}")
        wanted = {p.name: p.dtype for p in self.inputs}
        return self._core.run(None if outputs is None else list(outputs), {name: _as(values, wanted.get(name)) for name, values in inputs.items()})

    def predict(self, *paths: str | os.PathLike[str]) -> dict[str, list[Any]]:
        """Predictions for raw files or folders of the kind that the model was trained on, as columns by name: "row" or "file",
        "prediction", and of classes "probability" and "probability_<class>"; with several outputs, their names come first."""
        return _core.predict_files(self._core, [os.fspath(path) for path in paths])

    @property
    def inputs(self) -> list[Port]:
        """Name, dtype and shape of each input; None on axes that may vary."""
        return [Port(*port) for port in self._core.inputs]

    @property
    def outputs(self) -> list[Port]:
        """Name, dtype and shape of each output; None on axes that may vary."""
        return [Port(*port) for port in self._core.outputs]

    @property
    def class_names(self) -> dict[str, list[str]]:
        """By output, where there are classes."""
        return {port.name: names for port in self.outputs if (names := self._core.class_names(port.name))}

    @property
    def provenance(self) -> dict[str, str]:
        """Where the model comes from: framework_version, created, data_fingerprint, config."""
        return self._core.provenance

    def __reduce__(self) -> Any:
        return open_session, self._options

    def __repr__(self) -> str:
        return f"InferenceSession({self._options[0]!r})"


def open_session(path: str, device: str, max_programs: int, warm_up: list[int], kernels: str) -> InferenceSession:
    """For pickling, which keeps the path."""
    return InferenceSession(path, device=device, max_programs=max_programs, warm_up=warm_up, kernels=kernels)


def _as(values: npt.ArrayLike, dtype: str | None) -> np.ndarray:
    array = np.asarray(values)
    if dtype == "f32" and array.dtype.kind == "f" or dtype == "i64" and array.dtype.kind in "iu":
        return array.astype(np.float32 if dtype == "f32" else np.int64, copy=False)
    return array


class Run:
    """A run folder: load_run() makes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        #: one dict per epoch, as Trainer.fit() returns
        self.history = _core.run_history(path)
        with open(os.path.join(path, "config.yaml"), encoding="utf-8") as file:
            #: the run's config, as resolved
            self.config = file.read()

    @property
    def session(self) -> InferenceSession:
        """The trained model, to predict with."""
        return InferenceSession(self.path)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The best epoch's weights by name."""
        return _core.load_safetensors(os.path.join(self.path, "best.safetensors"))[0]

    def __repr__(self) -> str:
        return f"Run({self.path!r}, {len(self.history)} epochs)"


def load_run(path: str | os.PathLike[str]) -> Run:
    """A run's folder: its history, config, weights and model.

        run = deepseek.load_run("runs/wine")
        run.history[-1]["validation"]["accuracy"]
        run.session.predict("new.csv")
    """
    return Run(os.fspath(path))
