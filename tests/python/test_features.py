"""Feature synthesis: the same features and values as Featuretools 1.31, no look into the future, clear errors."""

import datetime
import json
import os
import pathlib
import subprocess

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from deepseek.data import FeatureSynthesis, read

ROOT = pathlib.Path(__file__).parents[2]
PEER = ROOT / ".venv-featuretools" / "bin" / "python"
PRIMITIVES = FeatureSynthesis.primitives()
END = "2014-01-03"

SHOP = ({"customers": {"index": "customer_id", "time_index": "join_date", "types": {"birthday": "date_of_birth"}},
         "sessions": {"index": "session_id", "time_index": "session_start"},
         "transactions": {"index": "transaction_id", "time_index": "transaction_time", "types": {"rating": "number"}},
         "products": {"index": "product_id"}},
        ["transactions.product_id -> products", "transactions.session_id -> sessions", "sessions.customer_id -> customers"])
FLIGHTS = ({"flights": {"index": "flight_id", "time_index": "time_hour"}, "airports": {"index": "faa"}, "planes": {"index": "tailnum"},
            "airlines": {"index": "carrier"}},
           ["flights.origin -> airports", "flights.dest -> airports", "flights.tailnum -> planes", "flights.carrier -> airlines"])
TEXT = {"zip_code", "product_id", "device", "brand"}

# Cut-offs that leave out sessions and parts of them.
WHO = [1, 2, 3, 4, 5, 1, 2, 3]
WHEN = [f"2014-01-01 0{time}" for time in ("4:00", "5:00", "3:00", "8:00", "6:30", "7:00", "3:30", "9:00")]
STACKED = {"set": "shop", "target_dataframe_name": "customers", "agg_primitives": ["count", "mean", "sum", "last", "time_since_last"],
           "trans_primitives": ["hour", "cum_sum", "diff"], "groupby_trans_primitives": ["cum_count", "cum_max"], "max_depth": 3}


# Twice the same way: Featuretools also makes features of the key that it goes along, where two keys lead to one table. They are constant.
CONSTANT = {"airports": {f"{name}(flights[{key}].{key})" for name in ("MODE", "NUM_UNIQUE") for key in ("origin", "dest")}}


def make_jobs():
    jobs = {f"stacked {p.name}": {"set": "shop", "target_dataframe_name": "customers", "agg_primitives": [p.name], "trans_primitives": [], "max_depth": 2,
                                  "cutoff_time": END} for p in PRIMITIVES if p.kind == "aggregation"}
    transforms = [p.name for p in PRIMITIVES if p.kind == "transform" and p.name != "expanding_count"]  # that fails in Featuretools
    jobs["transforms"] = {"set": "shop", "target_dataframe_name": "transactions", "agg_primitives": [], "trans_primitives": transforms, "max_depth": 1,
                          "cutoff_time": END}
    jobs["age"] = jobs["transforms"] | {"target_dataframe_name": "customers", "trans_primitives": ["age"]}
    groups = ["cum_sum", "cum_mean", "cum_count", "diff", "lag", "percentile", "rolling_mean", "expanding_max", "exponential_weighted_std"]
    jobs["groups"] = jobs["transforms"] | {"trans_primitives": [], "groupby_trans_primitives": groups}
    jobs["defaults"] = {"set": "shop", "target_dataframe_name": "customers", "max_depth": 2, "cutoff_time": END}
    jobs["upwards"] = {"set": "shop", "target_dataframe_name": "transactions", "agg_primitives": ["sum", "max", "mean", "count", "mode"],
                       "trans_primitives": ["day", "num_words"], "max_depth": 3}
    jobs["deep"] = {"set": "shop", "target_dataframe_name": "sessions", "agg_primitives": ["mean", "count", "max"],
                    "trans_primitives": ["subtract_numeric", "is_weekend"], "max_depth": 4}
    jobs["where"] = {"set": "shop", "target_dataframe_name": "customers", "where": {"sessions.device": ["desktop", "mobile"], "transactions.product_id": ["1", "3"]},
                     "where_primitives": ["count", "mean", "sum"], "agg_primitives": ["count", "mean", "sum", "max", "mode"], "trans_primitives": ["weekday"],
                     "max_depth": 3}
    jobs["cutoffs"] = STACKED | {"instances": WHO, "cutoff_time": WHEN}
    jobs["window"] = STACKED | {"instances": WHO, "cutoff_time": WHEN, "training_window": "2h"}
    jobs["without the cut-off"] = STACKED | {"instances": WHO, "cutoff_time": WHEN, "include_cutoff_time": False}
    jobs["upwards at a time"] = {"set": "shop", "target_dataframe_name": "transactions", "agg_primitives": ["sum", "mean", "mode", "count", "skew", "last"],
                                 "trans_primitives": ["weekday"], "max_depth": 3, "instances": [298, 10, 200, 495, 50], "cutoff_time": ["2014-01-01 08:00"] * 5}
    jobs["airports"] = {"set": "flights", "target_dataframe_name": "airports", "max_depth": 2}
    jobs["airlines"] = {"set": "flights", "target_dataframe_name": "airlines", "agg_primitives": ["mean", "trend", "mode", "avg_time_between", "num_peaks"],
                      "trans_primitives": ["hour", "absolute"], "max_depth": 2, "cutoff_time": "2013-07-01"}
    jobs["flights"] = {"set": "flights", "target_dataframe_name": "flights", "agg_primitives": ["mean", "count"], "trans_primitives": ["month"], "max_depth": 2}
    return jobs


JOBS = make_jobs()


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    if not PEER.exists():
        pytest.skip("Featuretools has an environment of its own, which `make setup-test` makes")
    folder = tmp_path_factory.mktemp("featuretools")
    (folder / "jobs.json").write_text(json.dumps(JOBS))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([PEER, ROOT / "tests/python/featuretools_reference.py", folder / "jobs.json", folder], check=True, env=environment)
    return folder


def tables_of(folder, which):
    return {path.stem: read(path, types={name: "string" for name in TEXT if name in path.read_text("utf-8").split("\n", 1)[0].split(",")})
            for path in sorted((folder / which).glob("*.csv"))}


def ours(job):
    job = dict(job)
    tables, relationships = SHOP if job.pop("set") == "shop" else FLIGHTS
    arguments = {}
    for theirs, name in (("agg_primitives", "aggregations"), ("trans_primitives", "transforms"), ("groupby_trans_primitives", "group_transforms"),
                         ("max_depth", "depth"), ("where", "where"), ("where_primitives", "where_aggregations"),
                         ("training_window", "training_window"), ("include_cutoff_time", "include_cutoff")):
        if theirs in job:
            arguments[name] = job.pop(theirs)
    target = job.pop("target_dataframe_name")
    times = job.pop("cutoff_time", None)
    if isinstance(times, list):
        times = [datetime.datetime.fromisoformat(time) for time in times]
    instances = job.pop("instances", None)
    assert not job
    return FeatureSynthesis(target, tables, relationships, **arguments), {"instances": instances, "cutoff_time": times}


def assert_same(name, mine, theirs):
    values = [v.isoformat() if isinstance(v, datetime.datetime) else v for v in mine.to_pylist()]
    if any(isinstance(v, str) for v in theirs + values):
        assert [None if v is None else str(v) for v in values] == [None if v is None else str(v) for v in theirs], name
        return
    numbers = [np.array([np.nan if v is None else float(v) for v in side]) for side in (values, theirs)]
    # Their slopes are of times as doubles, which cost digits.
    tolerance = 1e-6 if "TREND" in name else 1e-9
    np.testing.assert_allclose(*numbers, rtol=tolerance, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", JOBS)
def test_same_as_featuretools(reference, name):
    synthesis, arguments = ours(JOBS[name])
    tables = tables_of(reference, JOBS[name]["set"])
    mine = synthesis.fit_transform(tables, **arguments)
    theirs = json.loads((reference / f"{name}.json").read_text())
    assert "failed" not in theirs, f"Featuretools fails: {theirs['failed']}"
    index = mine.column_names[0]
    theirs = {column: values for column, values in theirs.items() if column not in CONSTANT.get(name, ())}
    assert set(theirs) == set(mine.column_names)
    if JOBS[name].get("instances") is None:  # they order rows by time
        at = {value: row for row, value in enumerate(mine[index].to_pylist())}
        mine = mine.take([at[value] for value in theirs[index]])
    elif len(set(WHO)) < len(WHO) and JOBS[name]["instances"] == WHO:
        assert theirs[index] == WHO
    else:
        at = {value: row for row, value in enumerate(mine[index].to_pylist())}
        mine = mine.take([at[value] for value in theirs[index]])
    for column in theirs:
        if not (" = " in column or " != " in column) or "comment" not in column:  # theirs are missing where a text is
            assert_same(column, mine[column], theirs[column])


def shop(rows=1000, customers=40, seed=0):
    rng = np.random.default_rng(seed)
    start = np.datetime64("2020-01-01", "us")
    transactions = pa.table({"id": np.arange(rows), "customer": rng.integers(0, customers + 5, rows),
                             "time": start + rng.integers(0, 10**13, rows).astype("m8[us]"),
                             "amount": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(size=rows)),
                             "kind": [f"k{i}" for i in rng.integers(0, 4, rows)]})
    return {"customers": pa.table({"id": np.arange(customers), "region": [f"r{i % 3}" for i in range(customers)]}), "transactions": transactions}


DESCRIBED = ({"customers": {"index": "id"}, "transactions": {"index": "id", "time_index": "time"}}, ["transactions.customer -> customers"])


@pytest.mark.parametrize("window", ["", "30 days"])
def test_nothing_later_than_the_cutoff_is_seen(window):
    """Rows that are later are as good as not there: the features of each instance equal those of tables without them."""
    tables = shop()
    rng = np.random.default_rng(1)
    times = np.datetime64("2020-01-20", "us") + rng.integers(0, 8 * 10**12, 40).astype("m8[us]")
    s = FeatureSynthesis("customers", *DESCRIBED, training_window=window, where={"transactions.kind": 2}, transforms=["hour", "cum_sum", "percentile"],
                         aggregations=["sum", "mean", "count", "mode", "last", "trend", "time_since_last", "std"],
                         group_transforms=["cum_max"])
    s.fit(tables)
    got = s.transform(tables, cutoff_time=times).to_pylist()
    all_times = tables["transactions"]["time"].to_numpy()
    for who in range(0, 40, 7):
        known = (all_times <= times[who])
        if window:
            known &= all_times > times[who] - np.timedelta64(30, "D")
        before = {"customers": tables["customers"], "transactions": tables["transactions"].filter(pa.array(known))}
        late = s.transform(before, instances=[who], cutoff_time=times[who]).to_pylist()[0]
        assert late.keys() == got[who].keys()
        for name, value in late.items():
            assert value == (got[who][name] if value is None or isinstance(value, (str, bool)) else pytest.approx(got[who][name], rel=1e-12)), name


def test_against_pandas():
    tables = shop()
    s = FeatureSynthesis("customers", *DESCRIBED, aggregations=["sum", "mean", "std", "max", "count", "num_unique", "median"], transforms=[])
    got = s.fit_transform(tables).to_pandas().set_index("id")
    rows = tables["transactions"].to_pandas().groupby("customer")
    index = range(40)
    for name, values in {"SUM": rows.amount.sum(), "MEAN": rows.amount.mean(), "STD": rows.amount.std(), "MAX": rows.amount.max(),
                         "MEDIAN": rows.amount.median()}.items():
        np.testing.assert_allclose(got[f"{name}(transactions.amount)"], values.reindex(index), rtol=1e-12, err_msg=name)
    assert (got["COUNT(transactions)"] == rows.size().reindex(index)).all()
    assert (got["NUM_UNIQUE(transactions.kind)"] == rows.kind.nunique().reindex(index)).all()


def test_frames_of_every_kind_and_serving(tmp_path):
    tables = shop()
    s = FeatureSynthesis("customers", *DESCRIBED)
    wanted = s.fit_transform(tables)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    got = s.transform(frames)
    assert isinstance(got, pd.DataFrame) and list(got.columns) == wanted.column_names
    frames["customers"].index = [f"row {i}" for i in range(40)]
    assert s.transform(dict(reversed(frames.items()))).index[3] == "row 3"
    assert list(s.transform(frames, instances=list(range(39, -1, -1))).index) == list(range(40))
    polars = pytest.importorskip("polars", reason="polars is one of the kinds")
    assert s.transform({name: polars.from_arrow(table) for name, table in tables.items()}).to_arrow().column_names == wanted.column_names
    s.save(tmp_path / "features.json")
    loaded = FeatureSynthesis.load(tmp_path / "features.json")
    assert loaded.features == s.features == wanted.column_names[1:]
    assert loaded.transform(tables).equals(wanted)
    # Where a model is served there are other rows, here none for most customers.
    few = {"customers": tables["customers"], "transactions": tables["transactions"].slice(0, 3)}
    served = loaded.transform(few, instances=[7, 3])
    assert served["id"].to_pylist() == [7, 3] and served.column_names == wanted.column_names


def test_the_same_bits_on_any_number_of_threads(tmp_path):
    import deepseek

    tables = shop(5000)
    s = FeatureSynthesis("customers", *DESCRIBED, transforms=["month", "cum_mean"], group_transforms=["diff"]).fit(tables)
    results = []
    for threads in (1, 2, 3):
        deepseek.set_num_threads(threads)
        results.append((s.transform(tables), s.transform(tables, cutoff_time="2020-02-20")))
    deepseek.set_num_threads(os.cpu_count() or 1)
    for all_rows, known in results[1:]:
        assert all_rows.equals(results[0][0]) and known.equals(results[0][1])


def test_order_of_rows_does_not_matter():
    tables = shop()
    s = FeatureSynthesis("customers", *DESCRIBED, transforms=["day"], aggregations=["first", "last", "sum", "mode"]).fit(tables)
    wanted = s.transform(tables)
    shuffled = {name: table.take(np.random.default_rng(2).permutation(len(table))) for name, table in tables.items()}
    got = s.transform(shuffled)
    assert got["id"].to_pylist() == shuffled["customers"]["id"].to_pylist()
    assert got.sort_by("id").equals(wanted)


def test_integer_times():
    tables = {"a": pa.table({"id": [1, 2]}), "b": pa.table({"a": [1, 1, 2, 2], "step": [1, 5, 2, 9], "x": [1.0, 2.0, 3.0, 4.0]})}
    s = FeatureSynthesis("a", {"a": {"index": "id"}, "b": {"time_index": "step"}}, ["b.a -> a"], aggregations=["sum", "count"], training_window=4)
    got = s.fit_transform(tables, cutoff_time=5)
    assert got["SUM(b.x)"].to_pylist() == [2.0, 3.0] and got["COUNT(b)"].to_pylist() == [1, 1]


def test_estimate_and_budget():
    tables = shop()
    s = FeatureSynthesis("customers", *DESCRIBED).fit(tables)
    e = s.estimate(tables)
    assert e.features == len(s.features) and e.rows == 40 and e.result_bytes == 8 * 40 * e.features and e.seconds > 0
    assert f"{e.features} features of 40 rows" in e.text
    with pytest.raises(Exception, match="beyond max_memory, 1.0 kB|beyond max_memory"):
        FeatureSynthesis("customers", *DESCRIBED, max_memory="1 kB").fit_transform(tables)
    with pytest.raises(Exception, match="beyond max_seconds"):
        FeatureSynthesis("customers", *DESCRIBED, max_seconds=1e-9).fit_transform(tables)
    assert len(FeatureSynthesis("customers", *DESCRIBED, max_features=3).fit(tables).features) == 3


def test_progress():
    seen = []
    FeatureSynthesis("customers", *DESCRIBED).fit_transform(shop(), progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1

    def stop(done):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        FeatureSynthesis("customers", *DESCRIBED).fit_transform(shop(), progress=stop)


def described(**changes):
    tables = {name: dict(options) for name, options in DESCRIBED[0].items()}
    tables.update(changes)
    return tables


@pytest.mark.parametrize("build, message", [
    (lambda t: FeatureSynthesis("clients", *DESCRIBED).fit(t), "there is no table 'clients', there are: customers, transactions"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, aggregations=["maen"]).fit(t), "unknown aggregation 'maen'; did you mean 'mean'\\?"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, aggregations=["trend(unti=days)"]).fit(t), "trend has no parameter 'unti'; it has unit"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, aggregations=["trend(unit=daze)"]).fit(t), "unit is one of auto, seconds"),
    (lambda t: FeatureSynthesis("customers", described(transactions={"index": "customer"}), DESCRIBED[1]).fit(t),
     "row \\d+ has the same index 'customer' as row \\d+"),
    (lambda t: FeatureSynthesis("customers", described(transactions={"time_index": "kind"}), DESCRIBED[1]).fit(t),
     "column 'kind' is string, expected dates, timestamps or integers"),
    (lambda t: FeatureSynthesis("customers", described(customers={}), DESCRIBED[1]).fit(t), "table 'customers' has no index that 'transactions.customer' could"),
    (lambda t: FeatureSynthesis("customers", DESCRIBED[0], ["transactions.kind -> customers"]).fit(t), "'transactions.kind' is string, but the index"),
    (lambda t: FeatureSynthesis("customers", DESCRIBED[0], ["transactions.client -> customers"]).fit(t), "client"),
    (lambda t: FeatureSynthesis("customers", DESCRIBED[0], ["transactions -> customers"]).fit(t), "expected 'child.column -> parent'"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).fit({"customers": t["customers"]}), "table 'transactions' is missing"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).fit(t | {"extra": t["customers"]}), "there is no table 'extra' in the description"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, where={"transactions.sort": ["a"]}).fit(t), "where: table 'transactions' has no column 'sort'"),
    (lambda t: FeatureSynthesis("customers", described(customers={"idx": "id"}), DESCRIBED[1]), "unknown key 'idx'; did you mean 'index'\\?"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).transform(t), "not fitted yet"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).fit_transform(t, instances=[3, 999]), "instance 2 is no 'id' of table 'customers'"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).fit_transform(t, cutoff_time=7), "cutoff_time is int64, but time indices are dates"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED).fit_transform(t, cutoff_time=["2020-01-01"] * 3), "one for each of 40 rows, got 3"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, aggregations=["time_since_last"]).fit_transform(t), "give one by cutoff_time"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, training_window="3 parsecs").fit_transform(t, cutoff_time=END), "expected a time like '30 days'"),
    (lambda t: FeatureSynthesis("customers", *DESCRIBED, training_window="3 days").fit_transform(t), "give cutoff_time"),
])
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build(shop())


def test_circles_are_refused():
    tables = {"a": pa.table({"id": [1], "b": [1]}), "b": pa.table({"id": [1], "a": [1]})}
    with pytest.raises(ValueError, match="make no circles"):
        FeatureSynthesis("a", {"a": {"index": "id"}, "b": {"index": "id"}}, ["a.b -> b", "b.a -> a"]).fit(tables)


def test_serving_tables_that_changed(tmp_path):
    tables = shop()
    s = FeatureSynthesis("customers", *DESCRIBED).fit(tables)
    s.save(tmp_path / "features.json")
    loaded = FeatureSynthesis.load(tmp_path / "features.json")
    with pytest.raises(ValueError, match="table 'transactions' has no column 'amount', of which features were made"):
        loaded.transform(tables | {"transactions": tables["transactions"].drop_columns(["amount"])})
    with pytest.raises(ValueError, match="column 'amount' is category, but features were made of double"):
        text = tables["transactions"].set_column(3, "amount", pa.array(["x"] * 1000))
        loaded.transform(tables | {"transactions": text})
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(Exception, match="is no feature synthesis that was saved"):
        FeatureSynthesis.load(tmp_path / "other.json")


def test_yaml(tmp_path):
    (tmp_path / "features.yaml").write_text("""
tables:
  customers: {index: id}
  transactions: {index: id, time_index: time}
relationships: [transactions.customer -> customers]
target: customers
aggregations: [mean]
where: {transactions.kind: [k1]}
where_aggregations: [mean]
depth: 1
""")
    s = FeatureSynthesis.from_yaml(tmp_path / "features.yaml")
    assert "MEAN(transactions.amount)" in s.fit(shop()).features
    (tmp_path / "wrong.yaml").write_text("tables:\n  a: {indx: id}\ntarget: a\ndpeth: 1\n")
    with pytest.raises(ValueError, match=r"wrong.yaml:2: tables.a: unknown key 'indx'(.|\n)*wrong.yaml:4"):
        FeatureSynthesis.from_yaml(tmp_path / "wrong.yaml")
