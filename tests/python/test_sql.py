"""Fitted pipelines as SQL give what they give themselves, run in DuckDB, and in Spark where it is installed (`make setup-spark`)."""

import datetime
import json
import os
import pathlib
import subprocess

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from deepseek.data import Pipeline, write

ROOT = pathlib.Path(__file__).parents[2]
DEEPSEEK = ROOT / "build" / "deepseek"
SPARK = ROOT / ".venv-spark" / "bin" / "python"


def table(rows=500, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table({
        "x": pa.array(np.where(rng.random(rows) < 0.02, 1e6, rng.normal(size=rows)), mask=rng.random(rows) < 0.1),
        "nan": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(size=rows)),
        "n": pa.array(rng.integers(-50, 50, rows), mask=rng.random(rows) < 0.1),
        "narrow": rng.normal(size=rows).astype(np.float32),
        "k": pa.array(rng.choice(["red", "green", "o'hara \\ \"q\"", ""], rows), mask=rng.random(rows) < 0.1),
        "m": rng.choice(["p", "q"], rows),
        "b": pa.array(rng.random(rows) < 0.5, mask=rng.random(rows) < 0.1),
        "day": pa.array([datetime.date(2019, 12, 25) + datetime.timedelta(int(d)) for d in rng.integers(0, 900, rows)]),
        "at": pa.array(rng.integers(0, 4 * 10**8, rows) * 10**6 + 10**15, pa.timestamp("us")),
        "one": np.ones(rows),
        "a \"quoted\" `name`": rng.normal(size=rows),
        "y": rng.normal(size=rows),
    })


PIPELINES = {
    "impute": [("impute", {"strategy": "median", "flag": True})],
    "mean": [("impute", {"strategy": "mean", "other": "constant", "value": "0", "columns": ["x", "n", "nan"]})],
    "clip": [("outliers", {"method": "sigma", "factor": 1.3})],
    "null": [("outliers", {"method": "iqr", "action": "null"})],
    "flag": [("outliers", {"method": "mad", "action": "flag"})],
    "drop": ["duplicates", ("outliers", {"action": "drop"}), "constant"],
    "scale": ["scale", ("scale", {"method": "minmax", "columns": ["n"]})],
    "ordinal": ["ordinal"],
    "one_hot": ["one_hot"],
    "target": [("target", {"smooth": 3.3})],
    "dates": [("dates", {"parts": ["year", "quarter", "month", "week", "day", "day_of_week", "day_of_year", "hour", "minute", "second"]})],
    "interactions": [("interactions", {"columns": ["x", "nan", "n", "k", "m"], "keep": 12, "redundancy": 1, "method": "boosting"})],
    "all": ["leakage", ("impute", {"flag": True}), ("outliers", {"method": "iqr"}), "dates", "scale", ("target", {"columns": ["m"]}), ("select", {"keep": 9}),
            "one_hot"],
}


def assert_equal(wanted, got):
    assert got.column_names == wanted.column_names
    for name in wanted.column_names:
        a, b = wanted[name].to_pylist(), got[name].to_pylist()
        if any(isinstance(v, float) for v in a):  # to the bit; NaN is missing
            a, b = ([float("nan") if v is None else v for v in side] for side in (a, b))
            np.testing.assert_array_equal(np.array(b, float), np.array(a, float), err_msg=name)
        else:
            assert a == b, name


@pytest.mark.parametrize("name", PIPELINES)
def test_duckdb(name):
    pipeline = Pipeline(PIPELINES[name], target="y").fit(table())
    served = table(300, seed=1).drop_columns("y")
    with duckdb.connect() as connection:
        connection.register("data", served)
        assert_equal(pipeline.transform(served), connection.sql(pipeline.to_sql("duckdb", table="data")).to_arrow_table())


@pytest.mark.skipif(not SPARK.exists(), reason="Spark is half a gigabyte and needs Java; `make setup-spark` installs both")
def test_spark(tmp_path):
    served = table(300, seed=1).drop_columns("y")
    queries = {}
    for name, steps in PIPELINES.items():
        queries[name] = Pipeline(steps, target="y").fit(table()).to_sql("spark", table="data")
    write(served, tmp_path / "data.parquet")
    (tmp_path / "queries.json").write_text(json.dumps(queries))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([SPARK, ROOT / "tests/python/spark_run.py", tmp_path], check=True, env=environment)
    for name, steps in PIPELINES.items():
        with pa.memory_map(str(tmp_path / f"{name}.arrow")) as file:
            got = pa.ipc.open_file(file).read_all()
        assert_equal(Pipeline(steps, target="y").fit(table()).transform(served), got)


@pytest.mark.parametrize("step, message", [("hashing", "the step hashing has no counterpart in SQL"),
                                           (("impute", {"strategy": "forward"}), "forward needs an order of rows")])
def test_what_sql_does_not_have(step, message):
    data = table(50)
    with pytest.raises(Exception, match=message):
        Pipeline([step]).fit(data).to_sql(table="data")
    with pytest.raises(ValueError, match="expected duckdb or spark, got 'oracle'"):
        Pipeline(["constant"]).fit(data).to_sql("oracle", table="data")
    with pytest.raises(ValueError, match="not fitted"):
        Pipeline(["constant"]).to_sql(table="data")


def test_command_line(tmp_path):
    data = table()
    pipeline = Pipeline(PIPELINES["all"], target="y").fit(data)
    pipeline.save(tmp_path / "p.json")
    for dialect in ("duckdb", "spark"):
        done = subprocess.run([DEEPSEEK, "data", "sql", "p.json", "--dialect", dialect, "--table", "data"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == pipeline.to_sql(dialect, table="data")
