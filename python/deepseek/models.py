"""The model zoo: deepseek.models.create("transformer", input=[16, 8], classes=5, width=32)."""

from __future__ import annotations

import typing

from . import _core
from . import nn  # noqa: F401  gives modules their methods

if typing.TYPE_CHECKING:
    from collections.abc import Iterable


def names() -> list[str]:
    """The architectures of the zoo."""
    return _core.model_names()


def create(name: str, input: Iterable[int], classes: int = 10, **parameters: int | float | str | Iterable[int]) -> _core.Module:
    """A model of the zoo for samples of shape `input`, without the batch. Its parameters are numbers (width, layers, ...), names of
    a choice, and lists of integers.

    Raises ValueError that names the unknown model or parameter and lists the known ones.
    """
    texts = {key: ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value) for key, value in parameters.items()}
    model = _core.create_model(name, list(input), classes, texts)
    object.__setattr__(model, "_recipe", (name, list(input), classes, parameters))
    return model
