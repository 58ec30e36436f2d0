"""numpy, imported when it is first used: it would be more than half of the time that `import deepseek` takes."""

from __future__ import annotations


class _Numpy:
    def __getattr__(self, name: str) -> object:
        import numpy

        value = getattr(numpy, name)
        setattr(self, name, value)  # found at once from now on
        return value


np = _Numpy()
