"""Data sets: arrays with targets, and those that come with the system by name."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping

from . import _core, _frames, _samples, _told
from .augment import ImageAugmenter, SeriesAugmenter, VolumeAugmenter, mosaic

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np
else:
    from ._numpy import np


_MAX_CLASSES = 1_000_000  # that are named by their numbers


class Splits(typing.NamedTuple):
    train: _core.Dataset
    validation: _core.Dataset | None
    test: _core.Dataset | None


def _array(values: Any, name: str) -> np.ndarray:
    values = _frames.plain(values, name)
    _told.attached(values, name)
    if hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray):
        values = np.from_dlpack(values)
    array = np.asarray(values)
    if array.dtype == object:
        raise TypeError(_told.array(values, name))
    return array


def _inputs(values: Any, name: str = "inputs") -> np.ndarray:
    """f32, u8 and i64 as they are, other floats as f32, other integers as i64; a frame of numbers as f32 [rows, columns]."""
    if _frames.is_frame(values):
        return _frames.matrix(values, name)
    array = _array(values, name)
    if array.dtype.kind not in "fbiu":
        raise TypeError(f"{name}: expected an array of numbers, got {array.dtype}; of a table with text, deepseek.data.Pipeline makes numbers")
    if array.dtype not in (np.float32, np.uint8, np.int64):
        array = array.astype(np.float32 if array.dtype.kind in "fb" else np.int64)
    return array


def _text(values: Any) -> np.ndarray | None:
    """An array of str where `values` are labels of text; else None."""
    values = _frames.plain(values, "targets")
    array = np.asarray(values) if not hasattr(values, "__dlpack__") or isinstance(values, np.ndarray) else None
    if array is None or array.dtype.kind not in "UO":
        return None
    if array.dtype.kind == "O" and not all(isinstance(v, str) for v in array.flat):
        return None
    return array.astype(str)


def _targets(values: Any, name: str, class_names: Sequence[str] | None, ignore_index: int | None) -> tuple[np.ndarray, list[str]]:
    """i64 labels with their classes' names, or f32."""
    text = _text(values)
    if text is not None:
        known = [str(c) for c in np.unique(text)] if class_names is None else list(class_names)
        codes = {label: code for code, label in enumerate(known)}
        unknown = [label for label in np.unique(text) if label not in codes]
        if unknown:
            raise ValueError(f"{name}: label {str(unknown[0])!r} is none of the {len(known)} classes {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}")
        return np.array([codes[label] for label in text.flat], np.int64).reshape(text.shape), known
    targets = _array(values, name)
    if targets.dtype.kind not in "iubf":
        raise TypeError(f"{name}: expected labels or numbers, got {targets.dtype}")
    if targets.dtype.kind == "f":
        return targets.astype(np.float32, copy=False), list(class_names or [])
    targets = targets.astype(np.int64, copy=False)
    if class_names is None:
        counted = True if ignore_index is None else targets != ignore_index
        most = int(targets.max(initial=0 if targets.size else -1, where=counted))
        if most >= _MAX_CLASSES:
            raise ValueError(f"{name}: label {most} would be one of {most + 1} classes; number the classes 0, 1, 2, ..., or give class_names")
        class_names = [str(i) for i in range(most + 1)]
    return targets, list(class_names)


class Dataset(_core.Dataset):
    """Inputs [N, ...] with targets [N, ...], or several of each by name.

    Integer targets are class labels, as are texts, float targets are for regression. Inputs become (inputs * scale - mean) / stddev
    with one mean and stddev for all channels or one per channel (axis 1); integer inputs other than uint8 are indices
    and stay as they are. Float32, uint8 and int64 arrays are not copied.

        Dataset(images, labels)
        Dataset({"image": images, "table": rows}, {"kind": kinds, "value": values}, scale={"image": 1 / 255})
        Dataset(frame[["age", "height"]], frame["kind"])
        Dataset(samples)

    inputs, targets: an array, or a dict of arrays by name; targets may be None, for prediction. Frames of pandas, Polars and Arrow
        do, too: of inputs their columns, which are numbers, become float32 [N, columns]; a frame of targets is one for each column.
        Without targets, inputs may be a data set in PyTorch's manner: len(samples), and samples[i] gives a pair (inputs, target), where
        several inputs are a tuple, or a dict by name. Its samples are read as they are needed, one by one, so the types and shapes of
        the first hold for all; pictures of Pillow become uint8 [C, H, W], with scale 1 / 255. Where neither class_names nor an
        attribute `classes` tells the classes, all targets are read once at the start.
    class_names: of the classes; default "0", "1", ... up to the largest label, or the texts in order. With several targets, a dict by name.
    scale, mean, stddev: with several inputs, dicts by name; default 1, 0 and 1.
    ignore_index: the label of targets that do not count, in losses as in metrics, such as padding or unlabelled pixels; a dict by name
        where it differs.
    input_names: which of the names that samples have are inputs; by default those called x, x0, x1, ...
    """

    def __init__(self, inputs: Any, targets: Any = None, class_names: Any = None, scale: Any = None, mean: Any = (), stddev: Any = (),
                 ignore_index: Any = None, input_names: Sequence[str] = ()) -> None:
        samples = None
        if targets is None and not _frames.is_frame(inputs) and not _frames.is_column(inputs) and _samples.is_map_style(inputs):
            samples = _samples.Samples(inputs, _is_input(input_names), input_names, _array, _text)
            inputs, targets, paired = samples.inputs, samples.targets, samples.paired
        else:
            if _frames.is_frame(targets):
                targets = _frames.targets(targets)
                targets = targets if len(targets) > 1 else next(iter(targets.values()))
            paired = not isinstance(inputs, Mapping) and not isinstance(targets, Mapping) and targets is not None
            inputs = inputs if isinstance(inputs, Mapping) else {"x": inputs}
            targets = targets if isinstance(targets, Mapping) else {} if targets is None else {"y": targets}

        def of(option: Any, name: str, default: Any) -> Any:
            return option.get(name, default) if isinstance(option, Mapping) else default if option is None else option

        for option, label, known in ((class_names, "class_names", targets), (ignore_index, "ignore_index", targets), (scale, "scale", inputs),
                                     (mean, "mean", inputs), (stddev, "stddev", inputs)):
            if isinstance(option, Mapping) and (unknown := [name for name in option if name not in known]):
                raise ValueError(f"{label}: there is no {'target' if known is targets else 'input'} {unknown[0]!r}; there are: {', '.join(map(str, known))}")
        fields, arrays = [], {}
        for name, values in inputs.items():
            arrays[name] = values if samples else _inputs(values, "inputs" if paired else name)
            usual = 1 / 255 if samples and name in samples.pictures else 1.0
            fields.append((name, True, [], float(of(scale, name, usual)), [float(m) for m in np.atleast_1d(of(mean, name, ()))],
                           [float(s) for s in np.atleast_1d(of(stddev, name, ()))], None))
        for name, values in targets.items():
            if name in arrays:
                raise ValueError(f"{name!r} is among the inputs and among the targets")
            ignored, names = of(ignore_index, name, None), of(class_names, name, None)
            if samples:
                arrays[name], names = values, _classes_of(samples, name, names, ignored)
            else:
                arrays[name], names = _targets(values, "targets" if paired else name, names, ignored)
            fields.append((name, False, names, 1.0, [], [], ignored))
        if samples:
            types = [({"f": "f32", "u": "u8"}.get(a.dtype.kind, "i64"), list(a.shape)) for a in arrays.values()]
            super().__init__(fields, types, len(samples), samples.read, paired)
        else:
            super().__init__(fields, arrays, paired)
        self.validate()

    @classmethod
    def from_frame(cls, frame: Any, target: str | Sequence[str], class_names: Any = None, **options: Any) -> Dataset:
        """Of a frame of pandas, Polars or Arrow: the column `target`, or several, to learn, from all others, which are numbers."""
        columns = _frames.columns(frame)
        names = [target] if isinstance(target, str) else list(target)
        for name in names:
            if name not in columns:
                raise ValueError(f"target: the frame has no column {name!r}; it has: {', '.join(columns)}")
        targets = {name: columns.pop(name) for name in names}
        if not columns:
            raise ValueError("the frame has no columns beside the target")
        return cls(_frames.stacked(columns, "inputs"), targets if len(names) > 1 else targets[names[0]], class_names, **options)


def _is_input(input_names: Sequence[str]) -> Callable[[str], bool]:
    return (lambda name: name in input_names) if input_names else (lambda name: name[:1] == "x" and not name[1:].strip("0123456789"))


def _classes_of(samples: _samples.Samples, name: str, class_names: Sequence[str] | None, ignored: int | None) -> list[str]:
    """What the classes of one target of samples are called; [] for numbers to meet."""
    first = samples.targets[name]
    if first.dtype.kind == "f":
        return []
    if class_names is None and len(samples.targets) == 1:
        known = getattr(samples.data, "classes", None)
        if isinstance(known, (list, tuple)) and known and all(isinstance(c, str) for c in known):
            class_names = known
    if class_names is None:
        _, class_names = _targets(samples.all_targets()[name], name, None, ignored)
    if first.dtype.kind == "U":
        samples.number(name, class_names)
    return list(class_names)


def as_dataset(data: Any, ignore_index: int | None = None, input_names: Sequence[str] = (), class_names: Mapping[str, Sequence[str]] | None = None) -> _core.Dataset:
    """A data set of this module, or one made of what else people have.

    A pair (inputs, targets) or a dict of arrays by name; a data set in PyTorch's manner, read as it is needed (see Dataset); a
    torch.utils.data.DataLoader, whose data set is read so, in batches and an order of our own; or an iterable of batches, such as a
    generator, each a pair or a dict, which is gone through once, into memory.

    ignore_index: for class labels. input_names: what a model calls its inputs: of a dict these are the inputs, the rest are
    targets; inputs of a pair that are a tuple get these names in order. class_names: of targets by name, where they are known.
    """
    if isinstance(data, _core.Dataset):
        return data
    known = class_names or {}
    is_input = _is_input(input_names)
    if isinstance(data, Mapping):
        inputs = {name: values for name, values in data.items() if is_input(name)}
        targets = {name: values for name, values in data.items() if name not in inputs}
        if not inputs:
            raise ValueError(f"none of the data's names ({', '.join(map(str, data))}) is an input of the model ({', '.join(input_names) or 'x'})")
        return Dataset(inputs, targets, {k: v for k, v in known.items() if k in targets}, ignore_index=ignore_index)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        inputs, targets = data
        names = known if isinstance(targets, Mapping) else known.get("y")
        if isinstance(inputs, tuple):
            inputs = {input_names[i] if i < len(input_names) else f"x{i}": values for i, values in enumerate(inputs)}
        return Dataset(inputs, targets, names, ignore_index=ignore_index)
    if _frames.is_frame(data):
        raise TypeError(f"a {type(data).__name__} doesn't say which column to learn: fit((frame[[\"age\", \"height\"]], frame[\"kind\"])), or "
                        "fit(deepseek.data.Dataset.from_frame(frame, target=\"kind\"))")
    if not _frames.is_column(data):
        data = _samples.of_loader(data)
        if _samples.is_map_style(data):
            return Dataset(data, class_names=dict(known) or None, ignore_index=ignore_index, input_names=input_names)
        if _samples.is_iterable(data):
            inputs, targets = _samples.collected(data, is_input, input_names, _array)
            return Dataset(inputs, targets, known if isinstance(targets, Mapping) else known.get("y"), ignore_index=ignore_index)
    raise TypeError("expected a deepseek.data.Dataset, a pair (inputs, targets), a dict of arrays by name, a data set of samples or an iterable of batches, "
                    f"got {type(data).__name__}" + ("; with targets: fit((x, y))" if hasattr(data, "__len__") and not isinstance(data, str) else ""))


def load(name: str, **parameters: Any) -> Splits:
    """The parts train, validation and test of a data set by name, None where there is no such part; see names() and sources().

    Parameters as in a run's config: validation_fraction=0.1, seed=0, folder=...; lists and dicts are fine.
    """
    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, float)) for v in value):
            return ",".join(map(text, value))
        if isinstance(value, (list, tuple, dict)):
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    return Splits(*_core.open_dataset(name, {key: text(value) for key, value in parameters.items()}))


def names() -> list[str]:
    """The data sources that load() knows."""
    return _core.source_names()


def sources(name: str | None = None) -> str:
    """What load() and a run's config know, a line each; with a name, its keys with their defaults, and an example. print() it."""
    return _core.sources_text(name)


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
           "as_dataset", "leaks", "load", "mosaic", "names", "open", "read", "report", "sources", "split", "write"]
