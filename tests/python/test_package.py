"""The package as a user gets it: version, type stubs and annotations, what an import brings in, Ctrl-C."""

import ast
import builtins
import importlib
import inspect
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import deepseek
from deepseek import ops

PACKAGE = pathlib.Path(deepseek.__file__).parent
ROOT = pathlib.Path(__file__).resolve().parents[2]
STUBBED = ["_core", "ops", "nn.functional", "nn.layers"]
ANNOTATED = ["data", "files", "metrics", "models", "optim", "ops", "tensor", "trainer", "nn.module", "nn.containers", "nn.sequence", "nn.layers", "nn.functional"]


def stub(name):
    return ast.parse(PACKAGE.joinpath(*name.split(".")).with_suffix(".pyi").read_text())


def names(body):
    """Names that statements of a stub declare."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def test_the_version_is_cmakes():
    assert deepseek.__version__ == re.search(r"project\(deepseek VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


@pytest.mark.parametrize("name", STUBBED)
def test_stubs_name_every_public_symbol(name):
    module = importlib.import_module(f"deepseek.{name}")
    tree = stub(name)
    public = {n for n in dir(module) if not n.startswith("_") and not inspect.ismodule(getattr(module, n))} - {"annotations", "np"}
    assert len(public) > 20
    assert public - set(names(tree.body)) == set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            members = {n for n in vars(getattr(module, node.name)) if not n.startswith("_")}
            assert members - set(names(node.body)) == set(), node.name


@pytest.mark.parametrize("name", STUBBED)
def test_stubs_know_every_type_that_they_name(name):
    tree = stub(name)
    known = set(names(tree.body)) | set(dir(builtins))
    for node in ast.walk(tree):
        for annotation in [getattr(node, "annotation", None), getattr(node, "returns", None)]:
            unknown = {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)} - known if annotation else set()
            assert not unknown, ast.unparse(node)


def test_stubs_have_what_python_adds():
    text = (PACKAGE / "_core.pyi").read_text()
    for line in ["def state_dict(self) -> dict[str, numpy.ndarray]: ...", "def sum(x: deepseek._types.Tensor, dim: deepseek._types.Size | None = None"]:
        assert line.removesuffix(" ...") in text
    assert "inplace: bool = False" in (PACKAGE / "nn" / "layers.pyi").read_text()
    assert (PACKAGE / "py.typed").exists()


def functions(owner):
    for name, value in vars(owner).items():
        if name.startswith("_") and name != "__init__":
            continue
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value) and value.__module__ == owner.__name__:
            yield from functions(value)


@pytest.mark.parametrize("name", ANNOTATED)
def test_public_functions_are_annotated(name):
    for function in functions(importlib.import_module(f"deepseek.{name}")):
        signature = inspect.signature(function)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert not bare and signature.return_annotation is not signature.empty, f"{function.__qualname__}{signature}"


def test_an_import_brings_in_nothing_else():
    # numpy comes with the first array.
    code = "import sys; import deepseek; print(*{m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    found = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    # Environments start with modules of their own (site hooks), which an empty program has too.
    hooks = set(subprocess.run([sys.executable, "-c", code.replace("import deepseek;", "")], capture_output=True, text=True, check=True).stdout.split())
    assert found - hooks == {"deepseek"}


def test_ctrl_c_ends_a_loop_of_ones_own():
    x = np.ones((64, 64), np.float32)
    program = deepseek.compile(deepseek.trace(lambda a: ops.tanh(a @ a), x))
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    end = time.monotonic() + 60
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while time.monotonic() < end:
                program.run([x])
    finally:
        signal.signal(signal.SIGINT, before)
