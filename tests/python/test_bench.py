"""bench/: the scripts run, agree with PyTorch, and tell what goes wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).parent.parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import cases  # noqa: E402
import guard  # noqa: E402
import harness  # noqa: E402
import models as yardstick  # noqa: E402


def models(*arguments, **variables):
    if "PYTHONPATH" in variables:
        variables["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    return subprocess.run([sys.executable, BENCH / "models.py", *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive", **variables})


def test_models_beside_torch(tmp_path):
    names = ["unet3d_train", "lstm_train_1", "resnet50_infer_1", "bert_layers_train_dropout"]
    done = models("--quick", "--only", *names, "--peers", "torch", "--json", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert sorted(row["name"] for row in rows) == sorted(names)
    for row in rows:
        own, peer = row["ours"], row["peers"]["torch"]
        assert row["best"] == "torch"
        assert 0 <= peer["difference"] <= row["tolerance"]
        assert own["steps"] == peer["steps"] >= 3
        assert peer["ratio_min"] == pytest.approx(peer["min_ms"] / own["min_ms"])
        assert own["threads"] == peer["threads"] == 2
        assert own["utilisation"] == pytest.approx(own["gflop"] / own["median_ms"] * 1e3 / own["peak_gflops"])
        assert own["gflop"] > 0 and own["compile_s"] >= 0 and len(own["slowest"]) == 3
        assert row["name"] in done.stdout


def test_peers_that_are_not_installed_are_told(tmp_path):
    for package in ("jax", "onnx", "onnxruntime"):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})\n")
    done = models("--quick", "--only", "mlp_train_8", "bert_infer_1", "--peers", "torch", "jax", "onnxruntime", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "jax: jax is not installed (`make setup-bench` installs the peers) (mlp_train_8)" in done.stdout
    assert "onnxruntime: export to ONNX: onnx is not installed" in done.stdout
    assert "torch 2" in done.stdout and done.stdout.count("missing") >= 2


@pytest.mark.parametrize("row, peer, package", [("mlp_train", "jax", "jax"), ("bert_infer_1", "onnxruntime", "onnxruntime"),
                                                ("resnet50_infer_1", "openvino", "openvino")])
def test_other_peers_agree_with_ours(row, peer, package, tmp_path):
    pytest.importorskip(package)
    done = models("--quick", "--only", row, "--peers", peer, "--json", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert row in [r["name"] for r in rows] and all(set(r["peers"]) == {peer} and r["best"] == peer for r in rows)


def test_a_masked_language_model_beside_torch():
    done = models("--quick", "--only", "bert_mlm_train", "--peers", "torch")
    assert done.returncode == 0, done.stderr


def test_models_profile():
    done = models("--quick", "--only", "bert_layers_train_dropout", "--profile")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["op", "implementation", "nodes", "ms", "%"] in lines
    assert any(line[0] == "matmul" and line[1] in ("gemm", "onednn") for line in lines if line)


def test_models_unknown_row():
    done = models("--only", "vgg")
    assert done.returncode == 2
    assert "no row is named vgg; there are: resnet50_train," in done.stderr
    done = models("--only", "mlp_train", "--peers", "caffe")
    assert done.returncode == 2
    assert "no peer is named caffe; there are: torch," in done.stderr


class Counter:
    def __init__(self, start):
        self.count = start

    def step(self):
        self.count += 1
        return self.count

    def fail(self):
        raise ValueError("out of range")

    def load(self):
        import no_such_package  # noqa: F401

    def end(self):
        os._exit(3)


def test_steps_alternate():
    with harness.Side("a", 1, Counter, 0) as a, harness.Side("b", 1, Counter, 100) as b:
        assert harness.interleave([a, b], warmup=2, seconds=0, least=3) == {a: [3, 4, 5], b: [103, 104, 105]}


def test_short_steps_come_in_rows(monkeypatch):
    monkeypatch.setattr(harness, "TURN", 3 * 102.5)  # rows of three after the first round, whose longest is 101
    with harness.Side("a", 1, Counter, 0) as a, harness.Side("b", 1, Counter, 100) as b:
        assert harness.interleave([a, b], warmup=2, seconds=0, least=2) == {a: [6, 7, 9, 10], b: [106, 107, 109, 110]}


def test_failures_of_a_side_are_told():
    with harness.Side("PyTorch", 1, Counter, 0) as side:
        with pytest.raises(RuntimeError, match="(?s)PyTorch failed:.*out of range"):
            side.call("fail")
    with harness.Side("PyTorch", 1, Counter, 0) as side:
        with pytest.raises(RuntimeError, match="PyTorch: its process ended with code 3"):
            side.call("end")
    with pytest.raises(RuntimeError, match="(?s)PyTorch failed:.*TypeError"):
        harness.Side("PyTorch", 1, Counter)
    with harness.Side("PyTorch", 1, Counter, 0) as side:
        with pytest.raises(harness.Missing, match="no_such_package is not installed"):
            side.call("load")


def test_disagreement_is_relative_and_finite():
    assert harness.disagreement([1.0, 4.0], [1.0, 2.0]) == 1
    assert harness.disagreement([1.0], [1.0, 2.0]) == float("inf")
    assert harness.disagreement([float("nan")], [float("nan")]) == float("inf")


def test_ratio_above_one_means_ours_is_faster():
    assert harness.ratios([1.0, 2.0, 3.0], [2.0, 6.0, 9.0]) == {"ratio_min": 2, "ratio_median": 3}
    assert harness.milliseconds([1.0, 2.0, 3.0]) == {"min_ms": 1000, "median_ms": 2000, "steps": 3}


def test_a_row_whose_results_disagree_fails(monkeypatch, capsys):
    monkeypatch.setattr(cases, "OUTPUT_TOLERANCE", 1e-12)
    assert yardstick.main(["--quick", "--only", "bert_layers_infer_8", "--peers", "torch"]) == 1
    captured = capsys.readouterr()
    assert "bert_layers_infer_8: torch: results differ by" in captured.err
    assert "of the largest, at most 1e-12 is expected" in captured.err
    assert "FAILED" in captured.out


def test_the_guard_warns_of_a_ratio_below_its_floor_and_never_fails(monkeypatch, capsys):
    monkeypatch.setattr(guard, "FLOORS", {"mlp_train_8": 1e9, "lstm_train_1": 0.0})
    assert guard.main(["--quick", "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "warning: mlp_train_8 runs at" in out and "below its floor of 1e+09" in out
    assert "warning: lstm" not in out

def test_mixed_precision():
    done = subprocess.run([sys.executable, BENCH / "mixed_precision.py", "--seeds", "2", "--epochs", "1", "--samples", "512", "--width", "2",
                           "--precisions", "float32", "bfloat16"], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert list(rows) == ["float32", "bfloat16"] and rows["float32"]["difference"] == 0, done.stderr
    assert all(len(row["accuracy"]) == 2 and min(row["accuracy"]) > 5 for row in rows.values())
