"""Tensors in safetensors files, the format of checkpoints."""

import os

import numpy as np

from . import _core


def save(values, path, metadata=None):
    """Writes a module's tensors, or a dict of arrays, by name. The file appears whole or not at all."""
    if isinstance(values, _core.Module):
        values = values.state_dict()
    _core.save_safetensors(os.fspath(path), {name: np.ascontiguousarray(value) for name, value in values.items()}, metadata or {})


def load(path):
    """The arrays of a safetensors file by name. Raises FileNotFoundError, or ValueError that says what is damaged."""
    return _core.load_safetensors(os.fspath(path))[0]


__all__ = ["load", "save"]
