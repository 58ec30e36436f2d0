"""Every op of the engine as a function on symbolic values: ops.relu(x), ops.sum(x, axes=[1]).

Functions are made from the engine's registry on first use; `help(deepseek.ops.conv)` shows the op's record.
"""

from __future__ import annotations

import inspect as _inspect
import typing as _typing

from . import _core


# What the record's kinds are in Python.
_KINDS = {"bool": "bool", "int": "int", "float": "float", "string": "str", "list of ints": "int | Sequence[int]", "list of floats": "Sequence[float]",
          "dtype": "str", "tensor": "npt.ArrayLike", "graph": "_core.Graph"}


def _make(name: str) -> _typing.Callable[..., _typing.Any]:
    record = _core.op_record(name)

    def function(*inputs: _typing.Any, **attrs: _typing.Any) -> _typing.Any:
        return _core.emit(name, inputs, attrs)

    kinds = _inspect.Parameter
    parameters = []
    for i in record["inputs"]:
        absent = i["optional"] and not i["variadic"]
        parameters.append(kinds(i["name"], kinds.VAR_POSITIONAL if i["variadic"] else kinds.POSITIONAL_ONLY, default=None if absent else kinds.empty,
                                annotation="TensorLike | None" if absent else "TensorLike"))
    parameters += [kinds(a["name"], kinds.KEYWORD_ONLY, default=a.get("default", kinds.empty), annotation=_KINDS[a["kind"]]) for a in record["attrs"]]
    outputs = record["outputs"]
    returns = "Any" if any(o["variadic"] for o in outputs) else "Value" if len(outputs) == 1 else f"tuple[{', '.join(['Value'] * len(outputs))}]"
    function.__name__ = function.__qualname__ = name
    function.__signature__ = _inspect.Signature(parameters, return_annotation=returns)
    lines = [record["doc"], "", "Inputs:"] + [f"  {i['name']}: {i['doc']}" for i in record["inputs"]]
    lines += ["Attributes:"] + [f"  {a['name']} ({a['kind']}): {a['doc']}" for a in record["attrs"]] if record["attrs"] else []
    lines += ["Returns:"] + [f"  {o['name']}: {o['doc']}" for o in record["outputs"]]
    function.__doc__ = "\n".join(lines)
    return function


def __getattr__(name: str) -> _typing.Any:
    if name.startswith("_") or name not in _core.op_names():
        raise AttributeError(f"module 'deepseek.ops' has no op '{name}'")
    function = globals()[name] = _make(name)
    return function


def __dir__() -> list[str]:
    return sorted(_core.op_names())
