"""Every op of the engine as a function on symbolic values: ops.relu(x), ops.sum(x, axes=[1]).

Functions are made from the engine's registry on first use; `help(deepseek.ops.conv)` shows the op's record.
"""

import inspect as _inspect

from . import _core


def _make(name):
    record = _core.op_record(name)

    def function(*inputs, **attrs):
        return _core.emit(name, inputs, attrs)

    kinds = _inspect.Parameter
    positional = [kinds(i["name"], kinds.VAR_POSITIONAL if i["variadic"] else kinds.POSITIONAL_ONLY,
                        default=None if i["optional"] and not i["variadic"] else kinds.empty) for i in record["inputs"]]
    keyword = [kinds(a["name"], kinds.KEYWORD_ONLY, default=a.get("default", kinds.empty)) for a in record["attrs"]]
    function.__name__ = function.__qualname__ = name
    function.__signature__ = _inspect.Signature(positional + keyword)
    lines = [record["doc"], "", "Inputs:"] + [f"  {i['name']}: {i['doc']}" for i in record["inputs"]]
    lines += ["Attributes:"] + [f"  {a['name']} ({a['kind']}): {a['doc']}" for a in record["attrs"]] if record["attrs"] else []
    lines += ["Returns:"] + [f"  {o['name']}: {o['doc']}" for o in record["outputs"]]
    function.__doc__ = "\n".join(lines)
    return function


def __getattr__(name):
    if name.startswith("_") or name not in _core.op_names():
        raise AttributeError(f"module 'deepseek.ops' has no op '{name}'")
    function = globals()[name] = _make(name)
    return function


def __dir__():
    return sorted(_core.op_names())
