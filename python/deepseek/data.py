"""Data sets: arrays with targets, and those that come with the system by name."""

from __future__ import annotations

import typing

from . import _core
from .augment import ImageAugmenter, SeriesAugmenter, VolumeAugmenter, mosaic

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np
    import numpy.typing as npt
else:
    from ._numpy import np


_MAX_CLASSES = 1_000_000  # that are named by their numbers


class Splits(typing.NamedTuple):
    train: _core.Dataset
    validation: _core.Dataset
    test: _core.Dataset


def _array(values: Any, name: str) -> np.ndarray:
    if hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray):
        values = np.from_dlpack(values)
    array = np.asarray(values)
    if array.dtype == object:
        raise TypeError(f"{name}: expected an array of numbers, got {type(values).__name__} of objects")
    return array


def _inputs(values: Any, name: str = "inputs") -> np.ndarray:
    """f32, u8 and i64 as they are, other floats as f32, other integers as i64."""
    array = _array(values, name)
    if array.dtype not in (np.float32, np.uint8, np.int64):
        array = array.astype(np.float32 if array.dtype.kind in "fb" else np.int64)
    return array


class Dataset(_core.Dataset):
    """Inputs [N, ...] with targets [N, ...].

    Integer targets are class labels, float targets are for regression. Inputs become (inputs * scale - mean) / stddev
    with one mean and stddev for all channels or one per channel (axis 1); integer inputs other than uint8 are indices
    and stay as they are. Float32, uint8 and int64 arrays are not copied.

    class_names: default "0", "1", ... up to the largest label.
    ignore_index: the label of targets that do not count, in losses as in metrics, such as padding or unlabelled pixels.
    """

    def __init__(self, inputs: npt.ArrayLike, targets: npt.ArrayLike, class_names: Sequence[str] | None = None, scale: float = 1.0,
                 mean: float | Sequence[float] = (), stddev: float | Sequence[float] = (), ignore_index: int | None = None) -> None:
        inputs, targets = _inputs(inputs), _array(targets, "targets")
        if targets.dtype.kind in "iub":
            targets = targets.astype(np.int64, copy=False)
            if class_names is None:
                counted = True if ignore_index is None else targets != ignore_index
                most = int(targets.max(initial=0 if targets.size else -1, where=counted))
                if most >= _MAX_CLASSES:
                    raise ValueError(f"targets: label {most} would be one of {most + 1} classes; number the classes 0, 1, 2, ..., or give class_names")
                class_names = [str(i) for i in range(most + 1)]
        else:
            targets = targets.astype(np.float32, copy=False)
        super().__init__(inputs, targets, list(class_names or []), float(scale),
                         [float(m) for m in np.atleast_1d(mean)], [float(s) for s in np.atleast_1d(stddev)], ignore_index)
        self.validate()


def as_dataset(data: _core.Dataset | tuple[Any, Any] | list[Any], ignore_index: int | None = None) -> _core.Dataset:
    """A data set of this module, or one made of a pair (inputs, targets), with `ignore_index` for class labels."""
    if isinstance(data, _core.Dataset):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Dataset(*data, ignore_index=ignore_index)
    raise TypeError(f"expected a deepseek.data.Dataset or a pair (inputs, targets), got {type(data).__name__}")


def load(name: str, **parameters: Any) -> Splits:
    """The parts train, validation and test of a data set by name; see names().

    Parameters as in a run's config: validation_fraction=0.1, seed=0, folder=...
    """
    return Splits(*_core.open_dataset(name, {key: str(value) for key, value in parameters.items()}))


def names() -> list[str]:
    """The data sets that load() knows."""
    return _core.dataset_names()


if typing.TYPE_CHECKING:
    from .features import FeatureSynthesis
    from .tables import Leak, Pipeline, Report, leaks, open, read, report, split, write


def __getattr__(name: str) -> Any:
    if name in ("Leak", "Pipeline", "Report", "leaks", "open", "read", "report", "split", "write"):
        from . import tables

        return getattr(tables, name)
    if name == "FeatureSynthesis":
        from .features import FeatureSynthesis

        return FeatureSynthesis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Dataset", "FeatureSynthesis", "ImageAugmenter", "Leak", "Pipeline", "Report", "SeriesAugmenter", "Splits", "VolumeAugmenter",
           "as_dataset", "leaks", "load", "mosaic", "names", "open", "read", "report", "split", "write"]
