"""How what C++ defines is pickled, and so copied and sent to other processes."""

from __future__ import annotations

import copyreg
import typing

from . import _core


def graph(text: str) -> _core.Graph:
    return _core.Graph.parse(text)


def step(*parts: typing.Any) -> _core.Step:
    return _core.restored_step(*parts)


copyreg.pickle(_core.Graph, lambda g: (graph, (str(g),)))
copyreg.pickle(_core.Step, lambda s: (step, (*s._made_of(), *s._progress())))
