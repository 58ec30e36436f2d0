"""Samples that Python gives one by one: data sets in PyTorch's manner (len() and an index), loaders and iterables of batches."""

from __future__ import annotations

import traceback
import typing
from collections.abc import Mapping

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    import numpy as np
else:
    from ._numpy import np

_LOADER = ("BatchSampler", "NoneType"), ("RandomSampler", "SequentialSampler")


class MapStyle(typing.Protocol):
    """What has samples by an index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


def _bases(value: Any, module: str) -> set[str]:
    return {base.__name__ for base in type(value).__mro__ if base.__module__.partition(".")[0] == module}


def is_array(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("__array__", "__dlpack__", "__array_interface__")) or isinstance(value, (str, bytes, bytearray, memoryview))


def is_map_style(data: Any) -> bool:
    """Whether samples come by an index; a list does where its items are pairs or dicts."""
    if is_array(data) or isinstance(data, (Mapping, tuple, set)):
        return False
    if isinstance(data, list):
        return len(data) > 0 and isinstance(data[0], (tuple, Mapping))
    if _bases(data, "torch") & {"IterableDataset"}:
        return False
    return hasattr(type(data), "__getitem__") and hasattr(type(data), "__len__")


def is_iterable(data: Any) -> bool:
    """Whether batches come one after the other."""
    return not is_array(data) and not isinstance(data, (Mapping, tuple, list, set)) and hasattr(type(data), "__iter__")


def of_loader(data: Any) -> Any:
    """What a torch.utils.data.DataLoader loads, where it does so in order or shuffled and without a function of its own; else itself."""
    if "DataLoader" not in _bases(data, "torch") or not is_map_style(data.dataset):
        return data
    batch_sampler, sampler = type(data.batch_sampler).__name__, type(data.sampler).__name__
    if batch_sampler not in _LOADER[0] or sampler not in _LOADER[1]:
        raise TypeError(f"a DataLoader with {batch_sampler if batch_sampler not in _LOADER[0] else sampler} chooses samples in a way of its own, which isn't kept; "
                        "give its data set, or list(loader) to iterate it once as batches")
    return data.dataset if getattr(data.collate_fn, "__name__", "") == "default_collate" else data


def parts(sample: Any, is_input: Callable[[str], bool], input_names: Sequence[str], what: str) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Inputs and targets by name of one sample, or of a batch; and whether it was a pair without names."""
    if isinstance(sample, Mapping):
        inputs = {name: value for name, value in sample.items() if is_input(name)}
        if not inputs:
            raise ValueError(f"{what}: none of its names ({', '.join(map(str, sample))}) is an input of the model ({', '.join(input_names) or 'x'})")
        return inputs, {name: value for name, value in sample.items() if name not in inputs}, False
    rest: Sequence[Any] = ()
    x = sample
    if isinstance(sample, tuple) or (isinstance(sample, list) and (len(sample) <= 2 or is_array(sample[0]))):
        if len(sample) not in (1, 2):
            raise TypeError(f"{what}: it is a {type(sample).__name__} of {len(sample)}, expected a pair (inputs, target) or a dict of arrays by name")
        x, *rest = sample
    if isinstance(x, tuple):
        x = {input_names[i] if i < len(input_names) else f"x{i}": value for i, value in enumerate(x)}
    y = rest[0] if rest else {}
    paired = bool(rest) and not isinstance(x, Mapping) and not isinstance(y, Mapping)
    return dict(x) if isinstance(x, Mapping) else {"x": x}, dict(y) if isinstance(y, Mapping) else {"y": y}, paired


def picture(value: Any) -> np.ndarray | None:
    """u8 [C, H, W] of one of Pillow's; None of anything else."""
    if not _bases(value, "PIL") & {"Image"}:
        return None
    array = np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB"))
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


class Samples:
    """A map-style data set as named arrays of the types that its first sample has."""

    def __init__(self, data: Any, is_input: Callable[[str], bool], input_names: Sequence[str], array: Callable[[Any, str], np.ndarray],
                 text: Callable[[Any], np.ndarray | None]) -> None:
        self.data, self._is_input, self._names, self._array, self._text = data, is_input, input_names, array, text
        if len(data) == 0:
            raise ValueError("the data set has no samples")
        inputs, targets, self.paired = self._parts(0)
        self.pictures = {name for name, value in inputs.items() if picture(value) is not None}
        self.inputs = {name: self._input(value, f"sample 0: {name}") for name, value in inputs.items()}
        self.targets = {name: self._target(value, f"sample 0: {name}") for name, value in targets.items()}
        self.codes: dict[str, dict[str, int]] = {}  # of targets of text
        self.known: dict[str, np.ndarray] = {}  # targets of all samples, where they had to be read

    def __len__(self) -> int:
        return len(self.data)

    def _parts(self, index: int) -> tuple[dict[str, Any], dict[str, Any], bool]:
        try:
            sample = self.data[index]
        except Exception as error:
            trace = "".join(traceback.format_tb(error.__traceback__)[1:]).rstrip()  # of the data set's own code
            raise ValueError(f"sample {index}: {type(error).__name__}: {error}" + (f", raised by\n{trace}" if trace else "")) from error
        return parts(sample, self._is_input, self._names, f"sample {index}")

    def _input(self, value: Any, what: str) -> np.ndarray:
        array = picture(value)
        if array is None:
            array = self._array(value, what)
        if array.dtype.kind not in "fbiu":
            raise TypeError(f"{what} is {array.dtype}, expected numbers")
        return array if array.dtype in (np.float32, np.uint8, np.int64) else array.astype(np.float32 if array.dtype.kind in "fb" else np.int64)

    def _target(self, value: Any, what: str) -> np.ndarray:
        text = self._text(value)
        if text is not None:
            return text
        array = self._array(value, what)
        if array.dtype.kind not in "fbiu":
            raise TypeError(f"{what} is {array.dtype}, expected labels or numbers")
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)

    def all_targets(self) -> dict[str, np.ndarray]:
        """Of every sample, by reading each once."""
        if not self.known:
            rows = [self._parts(i)[1] for i in range(len(self))]
            self.known = {name: self._column(name, rows, first, range(len(self)), self._target) for name, first in self.targets.items()}
        return self.known

    def number(self, name: str, names: Sequence[str]) -> None:
        """What the classes of a target of text are called, in the order of their numbers."""
        self.codes[name] = {label: code for code, label in enumerate(names)}
        if name in self.known:
            self.known[name] = self._numbered(name, self.known[name], range(len(self)))

    def _numbered(self, name: str, values: np.ndarray, indices: Iterable[int]) -> np.ndarray:
        codes = self.codes[name]
        for index, row in zip(indices, values):
            for label in np.ravel(row):
                if label not in codes:
                    raise ValueError(f"sample {index}: {name} is {str(label)!r}, which is none of the {len(codes)} classes {', '.join(list(codes)[:10])}")
        return np.array([codes[label] for label in values.flat], np.int64).reshape(values.shape)

    def _column(self, name: str, rows: list[dict[str, Any]], first: np.ndarray, indices: Iterable[int],
                convert: Callable[[Any, str], np.ndarray]) -> np.ndarray:
        values = []
        for index, row in zip(indices, rows):
            if name not in row:
                raise ValueError(f"sample {index} lacks {name!r}, which sample 0 has")
            value = convert(row[name], f"sample {index}: {name}")
            same = value.dtype == first.dtype or value.dtype.kind == first.dtype.kind == "U"  # texts have their lengths
            if value.shape != first.shape or not same:
                raise ValueError(f"sample {index}: {name} is {value.dtype} {list(value.shape)}, but of sample 0 {first.dtype} {list(first.shape)}; samples of a "
                                 "data set have one type and shape: convert, resize or pad them in it")
            values.append(value)
        return np.stack(values)

    def read(self, indices: Sequence[int], targets_only: bool) -> dict[str, np.ndarray]:
        if targets_only and self.known:
            return {name: values[list(indices)] for name, values in self.known.items()}
        rows = [self._parts(i) for i in indices]
        out = {name: self._column(name, [row[1] for row in rows], first, indices, self._target) for name, first in self.targets.items()}
        out.update({name: self._numbered(name, out[name], indices) for name in self.codes})
        if not targets_only:
            out.update({name: self._column(name, [row[0] for row in rows], first, indices, self._input) for name, first in self.inputs.items()})
        return out


def collected(data: Iterable[Any], is_input: Callable[[str], bool], input_names: Sequence[str], array: Callable[[Any, str], np.ndarray]) -> tuple[Any, Any]:
    """All batches that an iterable gives, one after the other, in memory: inputs and targets, by name or as a pair of arrays."""
    columns: tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]] = ({}, {})
    paired, count, single = True, 0, bool(_bases(data, "torch") & {"IterableDataset"})
    for count, batch in enumerate(data, 1):
        what = f"batch {count - 1}"
        inputs, targets, pair = parts(batch, is_input, input_names, what)
        paired = paired and pair
        for part, into in ((inputs, columns[0]), (targets, columns[1])):
            if count > 1 and set(part) != set(into):
                raise ValueError(f"{what} has {', '.join(part) or 'no targets'}, but batch 0 {', '.join(into) or 'no targets'}")
            for name, values in part.items():
                value = picture(values)
                if value is None:
                    value = array(values, f"{what}: {name}")
                single = single or value.ndim == 0
                into.setdefault(name, []).append(value)
    if count == 0:
        raise ValueError("the iterable gave no batches; a generator that was gone through once gives none")
    join = np.stack if single else np.concatenate
    try:
        inputs, targets = ({name: join(values) for name, values in part.items()} for part in columns)
    except ValueError as error:
        raise ValueError(f"the batches do not fit together: {error}") from error
    return (inputs["x"], targets["y"]) if paired else (inputs, targets or None)
