"""Frames of pandas, Polars and Arrow, and their columns, as arrays; without importing any of them."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from typing import Any

    import numpy as np
else:
    from ._numpy import np

_FRAMES = {"pandas": {"DataFrame"}, "polars": {"DataFrame", "LazyFrame"}, "pyarrow": {"Table", "RecordBatch"}}
_COLUMNS = {"pandas": {"Series", "Index", "ExtensionArray"}, "polars": {"Series"}, "pyarrow": {"Array", "ChunkedArray"}}


def _is(value: Any, kinds: dict[str, set[str]]) -> bool:
    return any(base.__name__ in kinds.get(base.__module__.partition(".")[0], ()) for base in type(value).__mro__)


def is_frame(value: Any) -> bool:
    """Whether it is a table of columns."""
    return _is(value, _FRAMES)


def is_column(value: Any) -> bool:
    """Whether it is a column of one."""
    return _is(value, _COLUMNS)


def columns(frame: Any, what: str = "data") -> dict[str, Any]:
    """A frame's columns by name."""
    if type(frame).__name__ == "LazyFrame":
        raise TypeError(f"{what}: a LazyFrame has no data yet; give it collected: frame.collect()")
    names = frame.column_names if hasattr(frame, "column_names") else list(frame.columns)
    if len({str(name) for name in names}) < len(names):
        raise ValueError(f"{what}: two columns have the same name; rename one of them")
    if hasattr(frame, "column_names"):
        return dict(zip(names, frame.columns))
    return {str(name): frame[name] for name in names}


def _missing(array: np.ndarray) -> int:
    if array.dtype.kind == "O":
        return sum(value is None or value != value for value in array)
    return int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0


def to_numpy(column: Any, name: str) -> np.ndarray:
    """A column's values; raises ValueError that names it where some are missing."""
    if type(column).__module__.partition(".")[0] == "pyarrow" and hasattr(column, "chunks"):
        array = column.to_numpy()
    elif type(column).__module__.partition(".")[0] == "pyarrow":
        array = column.to_numpy(zero_copy_only=False)
    else:
        array = column.to_numpy()
    array = np.asarray(array)
    missing = _missing(array)
    if missing:
        raise ValueError(f"{name}: {missing} of its {len(array)} values are missing; fill them in, by deepseek.data.Pipeline([\"impute\"]).fit_transform(frame) "
                         "for instance, or leave the rows out")
    if array.dtype.kind == "O" and len(array) and all(isinstance(value, (bool, np.bool_)) for value in array):
        return array.astype(bool)
    return array


def matrix(frame: Any, what: str) -> np.ndarray:
    """f32 [rows, columns] of a frame of numbers; raises TypeError that names the columns of something else."""
    return stacked(columns(frame, what), what, f"a {type(frame).__name__}")


def stacked(columns: dict[str, Any], what: str, kind: str = "a frame") -> np.ndarray:
    """The same of columns by name."""
    arrays = {name: to_numpy(column, f"{what}: column {name!r}") for name, column in columns.items()}
    wrong = [repr(name) for name, array in arrays.items() if array.dtype.kind not in "biuf"]
    if wrong:
        one = len(wrong) == 1
        raise TypeError(f"{what}: expected numbers, got {kind} whose column{'s' * (not one)} {', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''} "
                        f"{'is' if one else 'are'} not of numbers; drop or encode {'it' if one else 'them'}: "
                        "deepseek.data.Pipeline([\"one_hot\"]).fit_transform(frame)")
    if not arrays:
        raise ValueError(f"{what}: the frame has no columns")
    return np.stack([array.astype(np.float32) for array in arrays.values()], 1)


def plain(values: Any, name: str) -> Any:
    """A column as an array; other values as they are."""
    return to_numpy(values, name) if is_column(values) else values


def targets(frame: Any) -> dict[str, np.ndarray]:
    """Each column of a frame of targets."""
    return {name: to_numpy(column, f"targets: column {name!r}") for name, column in columns(frame, "targets").items()}
