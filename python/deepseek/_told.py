"""What is told of values that people give in the place of others."""

from __future__ import annotations

import ast
import functools
import inspect
import typing

from . import _core

if not typing.TYPE_CHECKING:
    from ._numpy import np
else:
    import numpy as np

if typing.TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def of_torch(value: Any) -> bool:
    """Whether it is of PyTorch, without importing that."""
    kind = value if isinstance(value, type) else type(value)
    return any(base.__module__.partition(".")[0] == "torch" for base in kind.__mro__)


def module(value: Any, what: str) -> None:
    """Raises TypeError that says what to do where `value` is no module that can be traced."""
    if isinstance(value, _core.Module):
        if not _core.is_made(value):
            raise TypeError(f"{what}: {type(value).__name__}.__init__() did not call super().__init__(); call it first of all")
        return
    if of_torch(value):
        raise TypeError(f"{what}: expected a deepseek.nn.Module, got PyTorch's {type(value).__name__}; build it of deepseek.nn's layers, which are called as "
                        "PyTorch's, and take its weights over by load_state_dict({name: tensor.detach().numpy() for name, tensor in model.state_dict().items()})")
    if isinstance(value, type) and issubclass(value, _core.Module):
        raise TypeError(f"{what}: expected a module, got the class {value.__name__}; make one: {value.__name__}(...)")
    raise TypeError(f"{what}: expected a deepseek.nn.Module, got {type(value).__name__}")


def array(value: Any, name: str) -> str:
    """What is wrong with a value of objects where an array of numbers is expected."""
    columns = getattr(value, "columns", None)
    if columns is not None and hasattr(value, "dtypes"):
        text = [str(column) for column, dtype in zip(columns, value.dtypes) if getattr(dtype, "kind", "O") not in "biuf"]
        return (f"{name}: expected numbers, got a {type(value).__name__} whose column{'s' * (len(text) > 1)} {', '.join(map(repr, text[:5]))}"
                f"{', ...' if len(text) > 5 else ''} {'are' if len(text) > 1 else 'is'} not of numbers; drop or encode "
                f"{'them' if len(text) > 1 else 'it'}: deepseek.data.Pipeline([\"one_hot\"]).fit_transform(frame)")
    kinds = sorted({type(item).__name__ for item in np.asarray(value).flat[:1000]}) if hasattr(value, "__array__") or isinstance(value, (list, tuple)) else []
    return (f"{name}: expected an array of numbers, got {type(value).__name__} of objects"
            + (f" ({', '.join(kinds)}); make them all numbers, or labels all text" if kinds else ""))


def call(value: Any) -> str:
    """What to do with an argument of a module that is no array."""
    if isinstance(value, (list, tuple)):
        return f"got {type(value).__name__}; make an array of it: np.asarray(x, np.float32)"
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return f"got {type(value).__name__}; give its numbers: x.to_numpy(np.float32)"
    return f"got {type(value).__name__}"


def attached(value: Any, name: str) -> None:
    """Raises for a tensor whose gradient another framework would lose without a word."""
    if getattr(value, "requires_grad", False) is True and of_torch(value):
        raise TypeError(f"{name}: the tensor of PyTorch requires a gradient, which can't flow through DeepSeek; give {name}.detach()")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """"; did you mean 'x'?", or nothing."""
    return _core.did_you_mean(name, list(known))


def _signature(text: str) -> inspect.Signature | None:
    """Of "__init__(self, a: int, b: bool = True) -> None"."""
    try:
        function, = ast.parse(f"def {text}: ...").body
    except (SyntaxError, ValueError):
        return None
    if not isinstance(function, ast.FunctionDef) or function.args.vararg or function.args.kwarg or function.args.kwonlyargs:
        return None
    arguments = function.args.posonlyargs + function.args.args
    defaults: list[Any] = [inspect.Parameter.empty] * (len(arguments) - len(function.args.defaults))
    try:
        defaults += [ast.literal_eval(default) for default in function.args.defaults]
    except ValueError:
        return None
    return inspect.Signature([inspect.Parameter(a.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default,
                                                annotation=ast.unparse(a.annotation) if a.annotation else inspect.Parameter.empty)
                              for a, default in zip(arguments, defaults)], return_annotation="None")


def _wrong(kind: str, arguments: list[inspect.Parameter], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    names = [argument.name for argument in arguments]
    form = f"{kind}({', '.join(map(str, arguments))})".replace("'", "")
    if unknown := [key for key in kwargs if key not in names]:
        return f"{kind}: no argument is called {unknown[0]!r}{did_you_mean(unknown[0], names) or '.'} It takes {form}"
    if len(args) > len(names):
        return f"{kind}: expected at most {len(names)} arguments, got {len(args)}. It takes {form}"
    given = dict(zip(names, args)) | kwargs
    if missing := [a.name for a in arguments if a.default is a.empty and a.name not in given]:
        return f"{kind}: {' and '.join(map(repr, missing))} {'are' if len(missing) > 1 else 'is'} missing. It takes {form}"
    got = ", ".join(f"{name}={value!r:.40}" for name, value in given.items())
    return f"{kind}: the arguments {got} are not of the types that it takes: {form}"


def explain_arguments(owner: type) -> None:
    """Gives a bound class an __init__ that says what is wrong with its arguments, in the place of a list of overloads."""
    bound = owner.__init__  # type: ignore[misc]
    signature = _signature(bound.__doc__.splitlines()[0]) if bound.__doc__ else None
    if signature is None:
        return
    arguments = list(signature.parameters.values())[1:]

    @functools.wraps(bound)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            bound(self, *args, **kwargs)
        except TypeError as error:
            if "incompatible function arguments" not in str(error):
                raise
            raise TypeError(_wrong(type(self).__name__, arguments, args, kwargs)) from None

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    _core.call_by_slots(owner)
    owner.__init__ = __init__  # type: ignore[misc]
