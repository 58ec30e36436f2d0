"""The checks in tools/ find what they are for, on small trees made here. `make test` runs them on the project itself."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(tool, root):
    done = subprocess.run([sys.executable, ROOT / "tools" / tool, root], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "CMakeLists.txt").write_text("room(base)\nroom(graph USES base)\nroom(io USES base)\nroom(backends/cpu LIBRARY x ONLY a b USES graph)\nroom(train USES\n  io backends/cpu)\n")

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    write("src/base/status.h", "namespace deepseek {\n}\n")
    return write


def test_layers_accept_earlier_rooms(tree):
    root = tree("src/backends/cpu/a.cc", '#include "base/status.h"\n#include <vector>\nnamespace deepseek::backends::cpu {\n}\n')
    assert run("check_layers.py", root) == (0, "check_layers: 2 files, 0 errors\n")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("src/base/a.cc", '// one\n#include "graph/graph.h"\n', "src/base/a.cc:2: base includes graph, which it does not use"),
        ("src/graph/a.h", '#include "status.h"\n', 'src/graph/a.h:1: "status.h" is not in a room'),
        ("src/graph/a.h", "namespace deepseek {\n}\n", "src/graph/a.h: namespace deepseek, expected deepseek::graph"),
        ("src/base/a.h", "namespace deepseek::base {\n}\n", "src/base/a.h: namespace deepseek::base, expected deepseek"),
        ("src/other/a.h", "", "src/other/a.h: not in a room (base graph io backends/cpu train)"),
        ("src/graph/a.cc", "\n" * 1001, "src/graph/a.cc: 1001 lines, at most 1000"),
        ("src/io/a.cc", '#include "graph/graph.h"\n', "src/io/a.cc:1: io includes graph, which it does not use"),
        ("src/io/a.cc", '#include "backends/cpu/a.h"\n', "src/io/a.cc:1: io includes backends/cpu"),
        ("src/io/a.cc", "double x = std::stod(text);\n", "src/io/a.cc:1: stod() depends on the locale"),
        ("apps/a.cc", 'f();\n#include "backends/cpu/a.h"\n', "apps/a.cc:2: includes a backend"),
        ("python/a.cc", 'std::snprintf(to, n, "%g", x);\n', "python/a.cc:1: snprintf() depends on the locale"),
    ],
)
def test_layers_refuse(tree, name, text, message):
    code, output = run("check_layers.py", tree(name, text))
    assert code == 1
    assert message in output


def test_layers_follow_what_used_rooms_use(tree):
    tree("src/graph/a.h", "")
    root = tree("src/train/a.cc", '#include "graph/a.h"\n#include "base/status.h"\n// as by atof(text)\nfmt::format("printf({})", x);\n')
    assert run("check_layers.py", root) == (0, "check_layers: 3 files, 0 errors\n")
    (root / "CMakeLists.txt").write_text("room(io USES base)\nroom(base)\n")
    assert "room(io USES base): base is not declared before it" in run("check_layers.py", root)[1]


def test_layers_want_the_list_of_exceptions_short(tree):
    tree("src/train/trainer.cc", '#include "backends/cpu/a.h"\n')
    root = tree("apps/deepseek.cc", "int main() {}\n")
    code, output = run("check_layers.py", root)
    assert code == 0
    assert "warning: apps/deepseek.cc includes no backend any more" in output and "trainer.cc" not in output


def test_layers_only_warn_of_long_files(tree):
    code, output = run("check_layers.py", tree("src/graph/a.cc", "\n" * 601))
    assert code == 0
    assert "warning: src/graph/a.cc: 601 lines" in output


def test_links_refuse_missing_files(tree):
    root = tree("README.md", "see `src/base/status.h`, `src/gone.h`\nand [that](docs/gone.md), [this](src/base)\n")
    code, output = run("check_links.py", root)
    assert code == 1
    assert "README.md:1: src/gone.h does not exist" in output
    assert "README.md:2: docs/gone.md does not exist" in output
    assert "2 errors" in output


def test_links_refuse_missing_tests(tree):
    root = tree("src/base/a.h", "// A thing.\n// Test: tests/base/gone_test.cc\n")
    code, output = run("check_links.py", root)
    assert code == 1
    assert "src/base/a.h:2: tests/base/gone_test.cc does not exist" in output


def test_links_skip_patterns_code_and_addresses(tree):
    root = tree("README.md", "`src/<room>/*.cc` `make test` [x](https://example.org) `build/deepseek`\n```\n`src/gone.h`\n```\n")
    assert run("check_links.py", root) == (0, "check_links: 1 pages, 1 sources, 0 errors\n")
