"""Modules that hold modules."""

from .. import _core
from .module import Module

# The engine's own, which models of the zoo are made of.
_core.Sequential.__len__ = lambda self: len(self._children())
_core.Sequential.__iter__ = lambda self: iter(self.children())
_core.Sequential.__getitem__ = lambda self, index: self.children()[index]


class Sequential(Module):
    """Modules one after the other, named "0", "1", ..., or by the keys of a dict."""

    def __init__(self, *modules):
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], dict) else {str(i): m for i, m in enumerate(modules)}
        for name, module in named.items():
            self._register_module(name, module)

    def forward(self, input):
        for module in self:
            input = module(input)
        return input

    def append(self, module):
        self._register_module(str(len(self)), module)
        return self

    def __len__(self):
        return len(self._children())

    def __iter__(self):
        return iter(self.children())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(dict(self._children()[index]))
        return self.children()[index]


class ModuleList(Module):
    """A list of modules; its owner calls them."""

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    def append(self, module):
        self._register_module(str(len(self)), module)
        return self

    def extend(self, modules):
        for module in modules:
            self.append(module)
        return self

    def __len__(self):
        return len(self._children())

    def __iter__(self):
        return iter(self.children())

    def __getitem__(self, index):
        return ModuleList(self.children()[index]) if isinstance(index, slice) else self.children()[index]

    def __setitem__(self, index, module):
        self._register_module(str(range(len(self))[index]), module)


class ModuleDict(Module):
    """Modules by name; its owner calls them."""

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def update(self, modules):
        for name, module in dict(modules).items():
            self[name] = module

    def __len__(self):
        return len(self._children())

    def __iter__(self):
        return iter(self.keys())

    def __contains__(self, name):
        return name in self.keys()

    def __getitem__(self, name):
        return dict(self._children())[name]

    def __setitem__(self, name, module):
        self._register_module(name, module)

    def keys(self):
        return [name for name, _ in self._children()]

    def values(self):
        return self.children()

    def items(self):
        return self._children()
