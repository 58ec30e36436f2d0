"""What the pages promise: README.md's Python runs, examples run, every folder has a short README, commands exist."""

import pathlib
import re
import subprocess
import sys

import pytest

import deepseek

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = pathlib.Path(deepseek.__file__).absolute().parent  # not resolved: in the build folder it links to the sources
CLI = PACKAGE.parents[1] / "deepseek"
ENVIRONMENT = {"PYTHONPATH": str(PACKAGE.parent), "OMP_WAIT_POLICY": "passive", "PATH": "/usr/bin:/bin"}
README = (ROOT / "README.md").read_text()


def run(*command, folder):
    done = subprocess.run([str(c) for c in command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readmes_python_runs_as_it_stands(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    training, named, data, features, estimators, tuning = (run(sys.executable, "-c", block, folder=tmp_path).splitlines() for block in blocks)
    assert named[-1] in ("red", "green", "blue")
    assert training[0] == "graph {"
    assert float(training[-1]) > 0.9
    assert set(deepseek.load(tmp_path / "model.safetensors")) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(float(area) > 0.97 for area in re.findall(r"[\d.]+", estimators[-1])), estimators
    assert "'batch_size': 64" in tuning[0]
    assert "impute: age:" in data[-1] and deepseek.data.Pipeline.load(tmp_path / "pipeline.json").fitted
    assert features == ["[2 1 1] [6.5 5.  1. ]"] and deepseek.data.FeatureSynthesis.load(tmp_path / "features.json").fitted


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_examples_run_on_a_few_samples(script, tmp_path):
    output = run(sys.executable, script, "--epochs", 1, "--samples", 500, folder=tmp_path)
    assert output.startswith("graph {")
    assert re.search(r"test accuracy 0\.\d{3}", output)


def test_every_folder_has_a_readme_of_at_most_20_lines():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True)
    folders = {str(pathlib.PurePath(name).parent) for name in listed.stdout.splitlines()}
    # Folders that mirror another, hold data only, or are a Python package.
    folders = {f for f in folders if not re.match(r"\.|tests/|python/", f)} | {"python", "tests"}
    assert {"src/graph", "src/backends/cpu", "apps", "bench", "examples", "tools"} <= folders
    for folder in sorted(folders):
        page = ROOT / folder / "README.md"
        assert page.exists(), f"{folder} has no README.md"
        assert len(page.read_text().splitlines()) <= 20, f"{page} is longer than 20 lines"


def test_the_picture_and_the_rooms_agree():
    rooms = re.findall(r"^room\(([\w/]+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    rooms = list(dict.fromkeys(room.split("/")[0] for room in rooms))  # all backends are one box
    assert re.findall(r"│ ([a-z/]+)  ", README) == rooms[::-1]


def test_every_command_is_in_readme_and_the_other_way_round():
    commands = set(re.findall(r"^  (\w+) +\w", run(CLI, "--help", folder=ROOT).split("Subcommands:")[1], re.MULTILINE))
    assert set(re.findall(r"`deepseek ([a-z]+)", README)) == commands
    for command in commands:
        assert "Example" in run(CLI, command, "--help", folder=ROOT)


def test_make_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("*/README.md"), *ROOT.glob("src/**/README.md")]:
        for target in re.findall(r"`make ([\w-]+)", page.read_text()):
            assert target in targets, f"{page}: make {target}"


def test_the_table_of_ops_has_every_op_in_every_dtype_column():
    table = run(CLI, "ops", "--table", folder=ROOT)
    rows = {m[1]: m[0].count("|") for m in re.finditer(r"^\| \[(\w+)\]\(#\w+\).*$", table, re.MULTILINE)}
    assert sorted(rows) == sorted(deepseek.op_names())
    assert set(rows.values()) == {11}
    assert run(CLI, "ops", "softmax", folder=ROOT).startswith("softmax\n")
    refused = subprocess.run([CLI, "ops", "sofmax"], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr) == (2, "error: there is no op 'sofmax'; did you mean 'softmax'?\n")
