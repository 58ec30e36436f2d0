"""bench/: the scripts run, agree with PyTorch, and tell what goes wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).parent.parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import harness  # noqa: E402
import models_vs_torch  # noqa: E402


def models(*arguments):
    return subprocess.run([sys.executable, BENCH / "models_vs_torch.py", *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive"})


def test_models_beside_torch(tmp_path):
    done = models("--quick", "--only", "resnet18_infer_1", "bert_train_dropout", "--json", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["resnet18_infer_1", "bert_train_dropout"]
    for row in rows:
        assert 0 <= row["difference"] <= row["tolerance"]
        assert row["ours"]["steps"] == row["peer"]["steps"] == 3
        assert row["ratio_min"] == pytest.approx(row["peer"]["min_ms"] / row["ours"]["min_ms"])
        assert row["ours"]["threads"] == row["peer"]["threads"] == 2
        assert row["name"] in done.stdout


def test_models_profile():
    done = models("--quick", "--only", "bert_train_dropout", "--profile")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["op", "implementation", "nodes", "ms", "%"] in lines
    assert any(line[:2] == ["matmul", "onednn"] for line in lines)


def test_models_unknown_row():
    done = models("--only", "vgg")
    assert done.returncode == 2
    assert "no row is named vgg; there are: resnet18_train," in done.stderr


class Counter:
    def __init__(self, start):
        self.count = start

    def step(self):
        self.count += 1
        return self.count

    def fail(self):
        raise ValueError("out of range")

    def end(self):
        os._exit(3)


def test_steps_alternate():
    with harness.Side("a", 1, Counter, 0) as a, harness.Side("b", 1, Counter, 100) as b:
        assert harness.interleave(a, b, warmup=2, seconds=0, least=3) == ([3, 4, 5], [103, 104, 105])


def test_failures_of_a_side_are_told():
    with harness.Side("PyTorch", 1, Counter, 0) as side:
        with pytest.raises(RuntimeError, match="(?s)PyTorch failed:.*out of range"):
            side.call("fail")
    with harness.Side("PyTorch", 1, Counter, 0) as side:
        with pytest.raises(RuntimeError, match="PyTorch: its process ended with code 3"):
            side.call("end")
    with pytest.raises(RuntimeError, match="(?s)PyTorch failed:.*TypeError"):
        harness.Side("PyTorch", 1, Counter)


def test_disagreement_is_relative_and_finite():
    assert harness.disagreement([1.0, 4.0], [1.0, 2.0]) == 1
    assert harness.disagreement([1.0], [1.0, 2.0]) == float("inf")
    assert harness.disagreement([float("nan")], [float("nan")]) == float("inf")


def test_ratio_above_one_means_ours_is_faster():
    result = harness.summary([1.0, 2.0, 3.0], [2.0, 6.0, 9.0])
    assert (result["ratio_min"], result["ratio_median"]) == (2, 3)
    assert result["ours"] == {"min_ms": 1000, "median_ms": 2000, "steps": 3}


def test_a_row_whose_results_disagree_fails(monkeypatch, capsys):
    monkeypatch.setattr(models_vs_torch, "OUTPUT_TOLERANCE", 1e-12)
    monkeypatch.setattr(sys, "argv", ["models_vs_torch.py", "--quick", "--only", "bert_infer_1"])
    assert models_vs_torch.main() == 1
    captured = capsys.readouterr()
    assert "bert_infer_1: results differ by" in captured.err
    assert "of the largest, at most 1e-12 is expected" in captured.err
    assert "min_ms" not in captured.out


def test_mixed_precision():
    done = subprocess.run([sys.executable, BENCH / "mixed_precision.py", "--seeds", "2", "--epochs", "1", "--samples", "512", "--width", "2",
                           "--precisions", "float32", "bfloat16"], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert list(rows) == ["float32", "bfloat16"] and rows["float32"]["difference"] == 0, done.stderr
    assert all(len(row["accuracy"]) == 2 and min(row["accuracy"]) > 5 for row in rows.values())
