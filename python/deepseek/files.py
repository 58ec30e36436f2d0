"""Tensors in safetensors files, the format of checkpoints."""

from __future__ import annotations

import os
import typing

from . import _core

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
else:
    from ._numpy import np


def save(values: _core.Module | Mapping[str, npt.ArrayLike], path: str | os.PathLike[str], metadata: dict[str, str] | None = None) -> None:
    """Writes a module's tensors, or a dict of arrays, by name. The file appears whole or not at all."""
    if isinstance(values, _core.Module):
        values = values.state_dict()
    _core.save_safetensors(os.fspath(path), {name: np.asarray(value, order="C") for name, value in values.items()}, metadata or {})


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name; of bfloat16, which NumPy has not, as float32 where ml_dtypes is not installed. Raises FileNotFoundError, or ValueError that says what is damaged."""
    return _core.load_safetensors(os.fspath(path))[0]


__all__ = ["load", "save"]
