"""Metrics over whole arrays, with the definitions that Trainer uses (scikit-learn's)."""

from __future__ import annotations

import typing

from . import _core

if typing.TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt
else:
    from ._numpy import np


def compute(names: str | Iterable[str], prediction: npt.ArrayLike, target: npt.ArrayLike, task: str | None = None,
            ignore_index: int | None = -100) -> dict[str, float]:
    """Values by name.

    names: accuracy, top<k>, precision, recall, f1, auc; or mae, rmse, r2.
    task: "multiclass" (logits [N, C], labels [N]), "binary" (logits and 0/1 floats of equal shape) or "regression";
        default multiclass for integer targets, else regression.
    ignore_index: the label of rows that do not count.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    if task is None:
        task = "multiclass" if target.dtype.kind in "iu" else "regression"
    if task not in ("multiclass", "binary", "regression"):
        raise ValueError(f"task: expected multiclass, binary or regression, got {task!r}")
    return _core.metrics([names] if isinstance(names, str) else list(names), task, prediction, target, ignore_index)


__all__ = ["compute"]
