"""Writes the type stubs of modules whose contents come from C++ or are made at import: stubs.py FOLDER_OF_PACKAGE MODULE...

nanobind's stub generator writes them from the live objects, so methods and ops that Python adds on import are there.
Annotations, which are strings at run time, get the modules that their names come from. Test: tests/python/test_package.py
"""

import collections.abc
import importlib
import inspect
import pathlib
import re
import sys
import types
import typing


def dotted(annotation, scope):
    """"Sequence[Value]" as "collections.abc.Sequence[deepseek._core.Value]"."""
    import deepseek._core
    import deepseek._types
    import deepseek.nn
    import numpy.typing

    short = {"np": "numpy", "npt": "numpy.typing", "_core": "deepseek._core", "Module": "deepseek._core.Module"}
    homes = [collections.abc, typing, deepseek._core, deepseek._types]

    def full(match):
        name = match[0]
        if name in short:
            return short[name]
        found = scope.get(name)
        if isinstance(found, type):
            return f"{found.__module__}.{found.__qualname__}"
        return next((f"{home.__name__}.{name}" for home in homes if hasattr(home, name)), name)

    return re.sub(r"(?<![\w.\"'])[A-Za-z_]\w*", full, annotation)


def functions(owner):
    """The Python functions of a module or a class, its properties' and its classes'."""
    for value in list(vars(owner).values()):
        if isinstance(value, property):
            yield from (f for f in (value.fget, value.fset) if isinstance(f, types.FunctionType))
        elif isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == owner.__name__:
            yield from functions(value)


def unshadowed(stub):
    """Value.int() hides the type int from the annotations of its class; those get builtins.int. Comparisons are ops."""
    lines, hides = [], False
    for line in stub.split("\n"):
        if line.startswith(("class ", "def ")):
            hides = line.startswith(("class Value", "class Parameter"))
        if hides and line.lstrip().startswith("def "):
            line = re.sub(r"(?<!def )\b(int|float|bool|type)\b", r"builtins.\1", line)
            line += "  # type: ignore[override]" if "__eq__" in line or "__ne__" in line else ""
        lines.append(line)
    return "import builtins\n" + "\n".join(lines)


def qualify(function):
    function.__doc__ = function.__doc__ and inspect.cleandoc(function.__doc__)

    def one(annotation):
        return dotted(annotation, function.__globals__) if isinstance(annotation, str) else annotation

    signature = inspect.signature(function)
    function.__signature__ = signature.replace(
        parameters=[p.replace(annotation=one(p.annotation)) for p in signature.parameters.values()],
        return_annotation=one(signature.return_annotation))


def main(package, modules):
    sys.path.insert(0, str(package.parent))
    import deepseek
    from nanobind.stubgen import StubGen

    for name in dir(deepseek.ops):
        getattr(deepseek.ops, name)  # ops are made when asked for
    done = set()
    for name in modules:
        module = importlib.import_module(f"deepseek.{name}")
        for function in functions(module):
            if function not in done:
                done.add(function)
                qualify(function)
        vars(module).pop("np", None)  # the lazy numpy
        generator = StubGen(module, include_private=False)
        generator.put(module)
        package.joinpath(*name.split(".")).with_suffix(".pyi").write_text(unshadowed(generator.get()) if module is deepseek._core else generator.get())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:])
