"""Pipelines that learn from streams: the same as from the whole table, without having it in memory."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from deepseek.data import Pipeline, open, read, write

DEEPSEEK = pathlib.Path(__file__).parents[2] / "build" / "deepseek"


def table(rows=200_000, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table({
        "x": pa.array(rng.lognormal(size=rows), mask=rng.random(rows) < 0.03),
        "n": pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < 0.01),
        "k": rng.choice(["red", "green", "blue"], rows),
        "one": np.ones(rows),
        "y": rng.normal(size=rows),
    })


def chunks(whole, size=7001):
    return lambda: pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches(max_chunksize=size))


STEPS = [["constant"], [("impute", {"strategy": "median"}), ("outliers", {"method": "mad"}), "scale"],
         [("impute", {"strategy": "mean", "flag": True}), ("outliers", {"method": "iqr", "action": "drop"}), ("scale", {"method": "robust"})],
         [("impute", {"strategy": "mode"}), "one_hot"], [("outliers", {"method": "sigma"}), ("ordinal", {})],
         [("impute", {}), ("target", {"target": "y"})], [("interactions", {"target": "y", "keep": 3}), ("select", {"target": "y", "keep": 4})]]


@pytest.mark.parametrize("steps", STEPS, ids=lambda steps: " ".join(s if isinstance(s, str) else s[0] for s in steps))
def test_same_as_of_the_whole_table(steps, tmp_path):
    data = table()
    whole, stream = Pipeline(steps), Pipeline(steps)
    wanted = whole.fit(data).transform(data)
    got = stream.fit(chunks(data)).transform(data)
    assert got.column_names == wanted.column_names
    for name in wanted.column_names:
        a, b = wanted[name].to_pylist(), got[name].to_pylist()
        if isinstance(a[0], float):
            np.testing.assert_allclose(np.array(b, float), np.array(a, float), rtol=1e-12, atol=1e-12, err_msg=name)
        else:
            assert a == b, name
    batches = stream.transform_stream(chunks(data, 50_000)()).read_all()
    assert batches.equals(got)


def test_quantiles_of_streams_are_exact(tmp_path):
    rng = np.random.default_rng(1)
    # Sorted, repeated and few values: samples that say little.
    for values in (np.sort(rng.normal(size=300_000)), np.repeat([1.0, 2.0, 5.0], 100_000), rng.normal(size=3)):
        data = pa.table({"x": values, "y": pa.array([None] * (len(values) - 1) + [1.0], pa.float64())})
        pipeline = Pipeline([("scale", {"columns": ["x"], "method": "robust"})]).fit(chunks(data, 999))
        pipeline.save(tmp_path / "p.json")
        center, spread = json.loads((tmp_path / "p.json").read_text())["steps"][0]["state"]["columns"]["x"]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        assert center == middle and spread == (high - low or 1)


@pytest.mark.parametrize("step, message", [("duplicates", "duplicates needs all rows in memory at once"),
                                           (("impute", {"strategy": "forward"}), "impute: forward needs all rows")])
def test_what_needs_all_rows_says_so(step, message):
    with pytest.raises(Exception, match=message):
        Pipeline([step]).fit(chunks(table(100)))


def test_streams_without_rows_are_refused():
    with pytest.raises(ValueError, match="training data has no rows"):
        Pipeline([("impute", {})]).fit(lambda: table(10).slice(0, 0))


def test_errors_of_the_stream_come_through():
    def broken():
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        Pipeline(["constant"]).fit(broken)


def test_files_and_the_command_line(tmp_path):
    data = table(50_000)
    write(data, tmp_path / "data.csv")
    (tmp_path / "steps.yaml").write_text("steps:\n  - impute: {strategy: median}\n  - outliers: {method: sigma, action: drop}\n  - one_hot\n")
    for arguments, out in ((["--stream"], "a.parquet"), ([], "b.parquet")):
        done = subprocess.run([DEEPSEEK, "data", "clean", "steps.yaml", "data.csv", *arguments, "-o", out, "--save", out + ".json"], cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "50000 rows, 5 columns" in done.stdout and "impute: x:" in done.stdout
    a, b = read(tmp_path / "a.parquet"), read(tmp_path / "b.parquet")
    assert a.column_names == b.column_names and len(a) == len(b) < 50_000
    np.testing.assert_allclose(a["x"].to_numpy(), b["x"].to_numpy(), rtol=1e-12)
    # A fitted one, batch by batch and at once: the same bits.
    for arguments, out in ((["--stream"], "c.csv"), ([], "d.csv")):
        subprocess.run([DEEPSEEK, "data", "clean", "a.parquet.json", "data.csv", *arguments, "-o", out], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "d.csv").read_bytes()
    assert Pipeline(["constant"]).fit(tmp_path / "data.csv").transform_stream(open(tmp_path / "data.csv")).read_all().num_columns == 4


PEAK = """
import resource, sys
import numpy as np, pyarrow as pa
from deepseek.data import Pipeline
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batch = pa.table({f"x{c}": np.random.default_rng(c).normal(size=100_000) for c in range(8)})
def stream():
    return pa.RecordBatchReader.from_batches(batch.schema, (b for _ in range(80) for b in batch.to_batches()))  # 512 MB
Pipeline([("impute", {}), ("outliers", {"method": "mad"}), "scale"]).fit(stream)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)
"""


def test_memory_stays_below_the_stream():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250
