"""Pipelines beside pandas, NumPy and scikit-learn: the same numbers; the same again after saving; mistakes that say where they are."""

import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler, TargetEncoder

import deepseek
from deepseek.data import Pipeline


def frame(rows=5000, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "normal": rng.normal(size=rows),
        "skewed": rng.lognormal(size=rows).astype(np.float32),
        "count": rng.integers(-5, 5, rows).astype(float),
        "city": rng.choice(["Rome", "Oslo", "Bern"], rows, p=[0.2, 0.5, 0.3]),
    })
    for name in table.columns:
        table.loc[rng.random(rows) < 0.1, name] = None
    return table


def fitted(*steps, table=None):
    return Pipeline(steps).fit_transform(frame() if table is None else table)


@pytest.mark.parametrize("rows", [1, 2, 7, 5000, 200_000])
@pytest.mark.parametrize("strategy", ["median", "mean"])
def test_imputation_is_that_of_pandas(strategy, rows):
    table = frame(rows, seed=rows)
    table.loc[0] = [1.0, 2.0, 3.0, "Oslo"]
    numbers = ["normal", "skewed", "count"]
    values = getattr(table[numbers].astype(float), strategy)()
    expected = table[numbers].astype(float).fillna(values)
    out = fitted(("impute", {"strategy": strategy}), table=table)
    assert out["skewed"].dtype == np.float32
    pd.testing.assert_frame_equal(out[numbers].astype(float), expected, rtol=1e-6, check_dtype=False)
    pd.testing.assert_frame_equal(out[["normal", "count"]], expected[["normal", "count"]], rtol=1e-13 if strategy == "median" else 1e-10)
    assert (out["city"] == table["city"].fillna(table["city"].mode()[0])).all()


def test_other_strategies():
    table = frame()
    out = fitted(("impute", {"strategy": "mode"}), table=table)
    for name in table:
        assert (out[name] == table[name].fillna(table[name].mode()[0])).all()
    out = fitted(("impute", {"strategy": "forward", "other": "forward"}), table=table)
    pd.testing.assert_frame_equal(out, table.ffill(), check_dtype=False)
    out = fitted(("impute", {"strategy": "constant", "value": "7", "other": "none", "flag": True}), table=table)
    pd.testing.assert_series_equal(out["normal"], table["normal"].fillna(7))
    assert out["city"].isna().sum() == table["city"].isna().sum()
    assert (out["normal_missing"] == table["normal"].isna()).all() and "city_missing" not in out
    integers = pa.table({"x": pa.array([1, 2, None, 4]), "y": pa.array([1, 2, None, 3])})
    out = fitted("impute", table=integers)
    assert out.schema.field("x").type == pa.int64() and out["x"].to_pylist() == [1, 2, 2, 4]
    halves = pa.table({"x": pa.array([1, 2, None, 4, 3])})
    pipeline = Pipeline(["impute"])
    assert pipeline.fit_transform(halves)["x"].to_pylist() == [1, 2, 2.5, 4, 3]
    assert pipeline.transform(pa.table({"x": [5, 6]})).schema.field("x").type == pa.float64()  # as training data had it


def bounds(x, method):
    if method == "sigma":
        return x.mean() - 3 * x.std(), x.mean() + 3 * x.std()
    if method == "mad":
        spread = 3.5 * 1.4826 * (x - x.median()).abs().median()
        return x.median() - spread, x.median() + spread
    low, high = x.quantile(0.25), x.quantile(0.75)
    return low - 1.5 * (high - low), high + 1.5 * (high - low)


@pytest.mark.parametrize("method", ["sigma", "mad", "iqr"])
def test_outliers_are_those_of_pandas(method):
    table = frame(100_000)[["normal", "skewed"]].astype(float)
    for action in ("clip", "null", "flag", "drop"):
        pipeline = Pipeline([("outliers", {"method": method, "action": action})])
        out = pipeline.fit_transform(table)
        keep = pd.Series(True, index=table.index)
        for name in table:
            low, high = bounds(table[name], method)
            beyond = (table[name] < low) | (table[name] > high)
            keep &= ~beyond
            if action == "clip":
                pd.testing.assert_series_equal(out[name], table[name].clip(low, high), rtol=1e-10)
            elif action == "null":
                pd.testing.assert_series_equal(out[name], table[name].mask(beyond))
            elif action == "flag":
                assert (out[f"{name}_outlier"] == beyond).all() and beyond.sum() > 0
        if action == "drop":
            pd.testing.assert_frame_equal(out, table[keep].reset_index(drop=True))
            assert len(pipeline.transform(table)) == len(table)  # rows are left out of training data only


@pytest.mark.parametrize("columns", [[], ["city", "count"]])
def test_duplicates_are_those_of_pandas(columns):
    table = pd.concat([frame(300), frame(300), frame(300, seed=1)]).reset_index(drop=True)
    table["day"] = pd.to_datetime("2024-02-29") + pd.to_timedelta(table.index % 3, unit="D")
    table["zero"] = np.where(table.index % 2 == 0, 0.0, -0.0)
    out = fitted(("duplicates", {"columns": columns}), table=table)
    expected = table.drop_duplicates(subset=columns or None).reset_index(drop=True)
    assert 0 < len(expected) < len(table)
    pd.testing.assert_frame_equal(out, expected, check_dtype=False)


def test_duplicates_of_many_rows():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.integers(0, 500, 300_000), "b": rng.choice(["x", None, "y"], 300_000), "c": rng.integers(0, 300, 300_000) / 7})
    pd.testing.assert_frame_equal(fitted("duplicates", table=table), table.drop_duplicates().reset_index(drop=True), check_dtype=False)


def test_constant_columns_go():
    table = pa.table({"a": [1, 1, 1], "b": [1, 1, None], "c": ["x", "x", "x"], "d": [None, None, None], "e": [0.5, 0.5, 0.25]})
    pipeline = Pipeline(["constant"])
    assert pipeline.fit_transform(table).column_names == ["b", "e"]
    assert pipeline.notes()[0] == "constant: a: one value only, left out"


def encoded(*steps, table):
    """What the pipeline makes of the table, and what it makes of it again after saving."""
    pipeline = Pipeline(steps)
    out = pipeline.fit_transform(table)
    again = pipeline.transform(table)
    assert again.equals(out)
    return out


@pytest.mark.parametrize("method,theirs", [("standard", StandardScaler()), ("minmax", MinMaxScaler()), ("robust", RobustScaler())])
def test_scalers_are_those_of_scikit_learn(method, theirs):
    table = frame()[["normal", "skewed", "count"]].astype(float).assign(same=2.5)
    out = encoded(("scale", {"method": method}), table=table)
    np.testing.assert_allclose(out.to_numpy(), theirs.fit_transform(table), rtol=1e-9, atol=1e-12)
    narrow = encoded("scale", table=table.astype(np.float32))
    assert (narrow.dtypes == np.float32).all()
    with pytest.raises(ValueError, match="column 'x' has infinite values"):
        fitted("scale", table=pa.table({"x": [1.0, np.inf]}))


def test_encoders_are_those_of_scikit_learn():
    table = frame(500)[["city", "count"]]
    out = encoded("ordinal", table=table)
    theirs = OrdinalEncoder().fit_transform(table[["city"]].astype(object))
    np.testing.assert_array_equal(out["city"].to_numpy(float), theirs[:, 0])
    out = encoded("one_hot", table=table)
    known = table["city"].dropna().to_frame()
    theirs = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(known)
    assert list(out.columns) == ["count", *(f"city={v}" for v in theirs.categories_[0])]
    np.testing.assert_array_equal(out.iloc[:, 1:].to_numpy(), theirs.transform(table[["city"]]))
    categories = table.assign(city=table["city"].astype("category"))
    pd.testing.assert_frame_equal(fitted("one_hot", table=categories), out)


def test_target_encoding_is_that_of_scikit_learn_and_cross_fitted(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.integers(0, 50, 2000).astype(str), "y": rng.normal(size=2000)})
    pipeline = Pipeline([("target", {"target": "y", "smooth": 7.5})])
    train = pipeline.fit_transform(table)
    theirs = TargetEncoder(smooth=7.5, target_type="continuous").fit(table[["x"]], table["y"])
    np.testing.assert_allclose(pipeline.transform(table)["x"], theirs.transform(table[["x"]])[:, 0], rtol=1e-9, atol=1e-12)
    assert (train["y"] == table["y"]).all()
    # A row's own target is not in its feature: with targets by chance, features of training data tell nothing of them.
    naive = np.corrcoef(pipeline.transform(table)["x"], table["y"])[0, 1]
    assert naive > 0.1 and np.corrcoef(train["x"], table["y"])[0, 1] < 0.05
    other = table.copy()
    other.loc[7, "y"] = 100.0
    again = Pipeline([("target", {"target": "y", "smooth": 7.5})]).fit_transform(other)
    assert again.loc[7, "x"] == train.loc[7, "x"] and (again["x"] != train["x"]).any()
    pipeline.save(tmp_path / "p.json")
    new = pa.table({"x": ["3", "never", None], "y": [1.0, 2.0, 3.0]})
    out = Pipeline.load(tmp_path / "p.json").transform(new)
    assert out.equals(pipeline.transform(new)) and out["x"][1].as_py() == pytest.approx(table["y"].mean()) == out["x"][2].as_py()
    with pytest.raises(ValueError, match="no column 'z'"):
        fitted(("target", {"target": "z"}))
    with pytest.raises(ValueError, match="option `target`"):
        fitted("target")


def test_hashing_is_fnv1a():
    def fnv1a(text):
        value = 0xCBF29CE484222325
        for byte in text.encode():
            value = (value ^ byte) * 0x100000001B3 % 2**64
        return value

    words = ["", "a", "Zürich", None, "a"]
    out = encoded(("hashing", {"buckets": 97}), table=pa.table({"x": words}))
    assert out["x"].to_pylist() == [None if w is None else fnv1a(w) % 97 for w in words]


def test_values_that_training_data_did_not_have():
    train, test = pa.table({"x": ["b", "a", None]}), pa.table({"x": ["c", None, "a"]})
    assert Pipeline(["ordinal"]).fit(train).transform(test)["x"].to_pylist() == [None, None, 0]
    hot = Pipeline(["one_hot"]).fit(train).transform(test)
    assert hot.to_pydict() == {"x=a": [False, False, True], "x=b": [False, False, False]}
    with pytest.raises(ValueError, match="column 'x' has 1 values that training data did not have"):
        Pipeline([("ordinal", {"unknown": "error"})]).fit(train).transform(test)


def test_a_hundred_thousand_categories():
    rng = np.random.default_rng(0)
    table = pa.table({"x": [f"v{i}" for i in rng.integers(0, 100_000, 300_000)] + ["most"] * 50})
    pipeline = Pipeline(["one_hot"])
    out = pipeline.fit_transform(table)
    assert out.num_columns == 100 and sum(out["x=most"].to_pylist()) == 50
    assert "the 100 most frequent of" in pipeline.notes()[0]


def test_dates_are_those_of_pandas():
    days = pd.Series(pd.date_range("2023-12-25 22:10:05", periods=400, freq="25h"))
    days[3] = pd.NaT
    parts = ["year", "quarter", "month", "week", "day", "day_of_week", "day_of_year", "hour", "minute", "second"]
    out = encoded(("dates", {"parts": parts, "keep": True}), table=pd.DataFrame({"t": days, "x": 1}))
    for part in parts:
        expected = days.dt.isocalendar().week.astype(float) if part == "week" else getattr(days.dt, part)
        np.testing.assert_array_equal(out[f"t_{part}"].to_numpy(float), expected.to_numpy(float))
    assert out.columns[:2].tolist() == ["t", "x"]
    plain = encoded("dates", table=pa.table({"d": pa.array(days.dt.date)}))
    assert plain.column_names == ["d_year", "d_month", "d_day", "d_day_of_week"]
    with pytest.raises(ValueError, match="unknown 'yaer'"):
        fitted(("dates", {"parts": ["yaer"]}))


STEPS = [("impute", {"flag": True, "strategy": "mean"}), ("outliers", {"method": "iqr"}), "duplicates", "constant", "scale", "one_hot"]


def test_saved_pipelines_give_the_same_bits(tmp_path):
    pipeline = Pipeline(STEPS).fit(frame())
    pipeline.save(tmp_path / "pipeline.json")
    other = pa.Table.from_pandas(frame(999, seed=7))
    loaded = Pipeline.load(tmp_path / "pipeline.json")
    assert loaded.transform(other).equals(pipeline.transform(other))
    (tmp_path / "broken.json").write_text((tmp_path / "pipeline.json").read_text()[:-20])
    with pytest.raises(ValueError, match="broken.json.*no pipeline"):
        Pipeline.load(tmp_path / "broken.json")
    with pytest.raises(FileNotFoundError):
        Pipeline.load(tmp_path / "none.json")


def test_threads_do_not_change_results():
    table, before = pa.Table.from_pandas(frame(300_000)), deepseek.num_threads()
    results = []
    for threads in (1, 2, 5):
        deepseek.set_num_threads(threads)
        results.append(Pipeline(STEPS).fit_transform(table))
    deepseek.set_num_threads(before)
    assert results[0].equals(results[1]) and results[0].equals(results[2])


def test_tables_of_all_kinds():
    table = frame(500)
    expected = fitted("impute", table=table)
    assert isinstance(fitted("impute", table=pl.from_pandas(table)), pl.DataFrame)
    assert fitted("impute", table=pa.Table.from_pandas(table)).to_pandas().equals(expected)
    arrays = fitted("impute", table={name: table[name].to_numpy() for name in ("normal", "count")})
    # NaN stays a number in NumPy's arrays, and counts as missing.
    assert (arrays["normal"] == expected["normal"]).all()
    assert (fitted("impute", table=table[["normal", "count"]].to_numpy()) == expected[["normal", "count"]].to_numpy()).all()
    shifted = table.set_index(table.index + 10)
    assert (fitted("impute", table=shifted).index == shifted.index).all()
    slices = pa.concat_tables([pa.Table.from_pandas(table).slice(3, 100), pa.Table.from_pandas(table).slice(250)])
    assert Pipeline(STEPS).fit_transform(slices).to_pandas().equals(Pipeline(STEPS).fit_transform(slices.to_pandas()))
    with pytest.raises(TypeError, match="got list"):
        fitted("impute", table=[1, 2])


def test_columns_at_serving_time():
    pipeline = Pipeline(["impute"]).fit(pa.table({"a": [1.0, None], "b": ["x", "y"]}))
    out = pipeline.transform(pa.table({"new": [1], "b": ["z"], "a": [3]}))
    assert out.column_names == ["a", "b"] and out.schema.field("a").type == pa.float64()
    with pytest.raises(ValueError, match="no column 'a'"):
        pipeline.transform(pa.table({"b": ["z"]}))
    with pytest.raises(ValueError, match="column 'a' is string, in training data it was double"):
        pipeline.transform(pa.table({"a": ["much"], "b": ["z"]}))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown step 'inpute'; did you mean 'impute'"):
        Pipeline(["inpute"])
    (tmp_path / "p.yaml").write_text("steps:\n  - impute: {strategy: medain}\n  - outliers:\n      factr: 2\n  - [1, 2]\n")
    with pytest.raises(ValueError) as error:
        Pipeline.from_yaml(tmp_path / "p.yaml")
    for text in ("p.yaml:2", "medain", "factr", "p.yaml:5"):
        assert text in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'normal'"):
        fitted(("impute", {"columns": ["norml"]}))
    with pytest.raises(ValueError, match="column 'city' is .*string, expected numbers"):
        fitted(("outliers", {"columns": ["city"]}))
    with pytest.raises(ValueError, match="column 'x' has no value at all"):
        fitted("impute", table=pa.table({"x": pa.array([None, None], pa.float64())}))
    with pytest.raises(ValueError, match="no rows"):
        fitted("impute", table=pa.table({"x": pa.array([], pa.float64())}))
    with pytest.raises(ValueError, match="2 columns are named 'x'"):
        fitted("impute", table=pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]))
    with pytest.raises(ValueError, match="not fitted"):
        Pipeline(["impute"]).transform(frame())
    with pytest.raises(ValueError, match="'a lot' is no double"):
        fitted(("impute", {"strategy": "constant", "value": "a lot", "columns": ["normal"]}))


def test_infinities_are_bounded_by_none():
    table = pd.DataFrame({"x": [1.0, 2.0, np.inf, 3.0]})
    pd.testing.assert_frame_equal(fitted(("outliers", {"method": "sigma"}), table=table), table)  # no finite mean
    assert fitted(("outliers", {"method": "iqr"}), table=pd.DataFrame({"x": [1.0, 2, 3, 4, 5, np.inf]}))["x"].max() == 8.5


def test_files(tmp_path):
    table = frame(50)
    deepseek.data.write(table, tmp_path / "t.parquet")
    assert deepseek.data.read(tmp_path / "t.parquet").to_pandas().equals(table)
    table.to_csv(tmp_path / "t.csv", index=False)
    read = deepseek.data.read(tmp_path / "t.csv", columns=["city", "count"], types={"count": "float"})
    assert read.schema.names == ["city", "count"] and read.schema.field("count").type == pa.float32()
    assert sum(batch.num_rows for batch in deepseek.data.open(tmp_path / "t.csv")) == 50
    with pytest.raises(FileNotFoundError):
        deepseek.data.read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="Row #3: Expected 2 columns, got 3"):
        (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
        deepseek.data.read(tmp_path / "ragged.csv")


def test_arrow_is_loaded_by_those_who_ask():
    code = "import sys, deepseek; assert 'pyarrow' not in sys.modules; deepseek.data.Pipeline; assert 'pyarrow' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def command(*arguments):
    root = pathlib.Path(__file__).resolve().parents[2]
    return subprocess.run([root / "build" / "deepseek", "data", *map(str, arguments)], capture_output=True, text=True)


def test_command_line(tmp_path):
    table = frame(300).drop(columns="city")
    table.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "steps.yaml").write_text("steps:\n  - impute: {strategy: median}\n  - outliers: {method: sigma}\n")
    done = command("clean", tmp_path / "steps.yaml", tmp_path / "t.csv", "-o", tmp_path / "out.parquet", "--save", tmp_path / "p.json",
                   "--type", "count=double", "--type", "skewed=float")
    assert done.returncode == 0, done.stderr
    assert "impute: normal:" in done.stdout and "300 rows, 3 columns -> 300 rows, 3 columns" in done.stdout
    out = deepseek.data.read(tmp_path / "out.parquet")
    expected = fitted(("impute", {"strategy": "median"}), ("outliers", {"method": "sigma"}), table=table)
    pd.testing.assert_frame_equal(out.to_pandas(), expected)
    done = command("clean", tmp_path / "p.json", tmp_path / "t.csv", "-o", tmp_path / "again.parquet")
    assert done.returncode == 0 and deepseek.data.read(tmp_path / "again.parquet").to_pandas().equals(expected)
    done = command("split", tmp_path / "out.parquet", "-o", tmp_path / "parts", "--fractions", "0.8,0.2", "--time", "count")
    assert done.returncode == 0, done.stderr
    parts = [deepseek.data.read(tmp_path / "parts" / f"{name}.parquet").to_pandas() for name in ("train", "test")]
    assert len(parts[0]) + len(parts[1]) == 300 and parts[0]["count"].max() < parts[1]["count"].min()
    for arguments, code, message in [((), 2, "subcommand is required"), (("clean", "none.yaml", "t.csv"), 2, "none.yaml: no such file"),
                                     (("split", tmp_path / "none.csv", "-o", tmp_path), 1, "none.csv"),
                                     (("clean", tmp_path / "p.json", tmp_path / "t.csv", "--save", "x"), 2, "fitted already")]:
        done = command(*arguments)
        assert done.returncode == code and message in done.stderr
    assert "impute: fills missing values" in command("steps").stdout


@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "utf-16", "utf-16-le", "shift_jis"])
def test_other_encodings(tmp_path, encoding):
    word = "\u30c7\u30fc\u30bf" if encoding == "shift_jis" else "na\u00efve \u00fcber"
    text = "name,n\n" + "".join(f"{word} {i},{i}\n" for i in range(30_000))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    name = {"utf-16-le": "UTF-16LE"}.get(encoding, encoding)
    got = deepseek.data.read(tmp_path / "t.csv", encoding=name)
    assert got["name"][29_999].as_py() == f"{word} 29999" and got["n"].type == pa.int64()
    assert sum(len(batch) for batch in deepseek.data.open(tmp_path / "t.csv", encoding=name)) == 30_000


def test_wrong_encodings_are_told(tmp_path):
    (tmp_path / "t.csv").write_bytes("name\nna\u00efve\n".encode("latin1"))
    with pytest.raises(ValueError, match="t.csv.*invalid UTF8.*another encoding, name it: encoding latin1"):
        deepseek.data.read(tmp_path / "t.csv", types={"name": "string"})
    with pytest.raises(ValueError, match="encoding: 'klingon' is not known here"):
        deepseek.data.read(tmp_path / "t.csv", encoding="klingon")
    with pytest.raises(ValueError, match="byte 8 is not (UTF-16|shift_jis|ascii)"):
        deepseek.data.read(tmp_path / "t.csv", encoding="ascii")


def test_numpy_files(tmp_path):
    matrix = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "m.npy", matrix)
    assert deepseek.data.read(tmp_path / "m.npy").to_pydict() == {"f0": [0.0, 2.0, 4.0], "f1": [1.0, 3.0, 5.0]}
    np.save(tmp_path / "s.npy", np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")]))
    assert deepseek.data.read(tmp_path / "s.npy", columns=["b"]).to_pydict() == {"b": [2.5, 4.5]}
    np.savez(tmp_path / "z.npz", x=matrix[:, 0], k=np.array(["a", "b", "c"]))
    assert deepseek.data.read(tmp_path / "z.npz").to_pydict() == {"x": [0.0, 2.0, 4.0], "k": ["a", "b", "c"]}
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"expected an array \[rows, columns\]"):
        deepseek.data.read(tmp_path / "cube.npy")
    np.savez(tmp_path / "ragged.npz", a=np.zeros(2), b=np.zeros(3))
    with pytest.raises(ValueError, match="b \\[3\\]"):
        deepseek.data.read(tmp_path / "ragged.npz")
    with pytest.raises(ValueError, match="there is no 'c', there are x, k"):
        deepseek.data.read(tmp_path / "z.npz", columns=["c"])
