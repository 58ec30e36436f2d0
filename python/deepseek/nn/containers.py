"""Modules that hold modules."""

from __future__ import annotations

import typing

from .. import _core, _told
from .module import Module, set_methods

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any


class _SequentialMethods:
    """For the engine's own, which models of the zoo are made of."""

    def __len__(self) -> int:
        return len(self._children())

    def __iter__(self) -> Iterator[_core.Module]:
        return iter(self.children())

    def __getitem__(self, index: int) -> Any:
        return self.children()[index]


set_methods(_core.Sequential, _SequentialMethods)


class Sequential(Module):
    """Modules one after the other, named "0", "1", ..., or by the keys of a dict."""

    def __init__(self, *modules: _core.Module | Mapping[str, _core.Module]) -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], dict) else {str(i): m for i, m in enumerate(modules)}
        for name, module in named.items():
            _told.module(module, f"Sequential: {name}")
            self._register_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def append(self, module: _core.Module) -> Sequential:
        self._register_module(str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(self._children())

    def __iter__(self) -> Iterator[_core.Module]:
        return iter(self.children())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(self._children()[index]))
        return self.children()[index]


class ModuleList(Module):
    """A list of modules; its owner calls them."""

    def __init__(self, modules: Iterable[_core.Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: _core.Module) -> ModuleList:
        self._register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[_core.Module]) -> ModuleList:
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._children())

    def __iter__(self) -> Iterator[_core.Module]:
        return iter(self.children())

    def __getitem__(self, index: int | slice) -> Any:
        return ModuleList(self.children()[index]) if isinstance(index, slice) else self.children()[index]

    def __setitem__(self, index: int, module: _core.Module) -> None:
        self._register_module(str(range(len(self))[index]), module)


class ModuleDict(Module):
    """Modules by name; its owner calls them."""

    def __init__(self, modules: Mapping[str, _core.Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, _core.Module] | Iterable[tuple[str, _core.Module]]) -> None:
        for name, module in dict(modules).items():
            self[name] = module

    def __len__(self) -> int:
        return len(self._children())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Any:
        return dict(self._children())[name]

    def __setitem__(self, name: str, module: _core.Module) -> None:
        self._register_module(name, module)

    def keys(self) -> list[str]:
        return [name for name, _ in self._children()]

    def values(self) -> list[_core.Module]:
        return self.children()

    def items(self) -> list[tuple[str, _core.Module]]:
        return self._children()
