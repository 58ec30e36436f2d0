"""Splits: every row in one part, sizes and shares as asked, groups and times together; leaks beside pandas."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from deepseek.data import leaks, split


def table(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "row": np.arange(rows),
        "y": rng.choice(["a", "b", "c"], rows, p=[0.9, 0.08, 0.02]),
        "who": rng.integers(0, rows // 12, rows),
        "day": pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, rows), unit="D"),
    })


def whole(parts, rows):
    assert sorted(np.concatenate([part["row"] for part in parts])) == list(range(rows))


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.5, 0.5), (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize("rows", [20, 101, 2000])
def test_sizes(rows, fractions):
    data = table(rows)
    for column in (None, "y"):
        parts = split(data, fractions, stratify=column)
        whole(parts, rows)
        for part, fraction in zip(parts, fractions):
            assert abs(len(part) - fraction * rows) < 1 and part["row"].is_monotonic_increasing


def test_stratified_parts_have_the_shares_of_the_whole():
    data = table()
    for part, fraction in zip(split(data, stratify="y"), (0.7, 0.15, 0.15)):
        counts = part["y"].value_counts()
        for value, count in data["y"].value_counts().items():
            assert abs(counts[value] - fraction * count) <= 1
    assert (split(data, (0.5, 0.5), seed=1, stratify="y")[0]["row"].tolist() != split(data, (0.5, 0.5), seed=2, stratify="y")[0]["row"].tolist())


def test_groups_stay_together():
    data = table()
    parts = split(data, group="who")
    whole(parts, len(data))
    owners = [set(part["who"]) for part in parts]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    for part, fraction in zip(parts, (0.7, 0.15, 0.15)):
        assert abs(len(part) / len(data) - fraction) < 0.01
    with pytest.raises(ValueError, match="would be empty"):
        split(data.assign(who=1), group="who")


def test_time_goes_forward():
    data = table()
    parts = split(data, time="day")
    whole(parts, len(data))
    assert parts[0]["day"].max() < parts[1]["day"].min() and parts[1]["day"].max() < parts[2]["day"].min()
    for part, fraction in zip(parts, (0.7, 0.15, 0.15)):
        assert abs(len(part) / len(data) - fraction) < 0.02 and part["day"].is_monotonic_increasing
    with pytest.raises(ValueError, match="1 missing values"):
        split(data.assign(day=data["day"].where(data["row"] > 0)), time="day")


def test_same_seed_same_parts_of_all_kinds():
    data = table(300)
    expected = [part["row"].tolist() for part in split(data, seed=5)]
    for kind in (pl.from_pandas(data), pa.Table.from_pandas(data), {name: data[name].to_numpy() for name in data}):
        parts = split(kind, seed=5)
        assert all(type(part) is type(kind) for part in parts)
        assert [list(np.asarray(part["row"])) for part in parts] == expected
    array = data[["row", "who"]].to_numpy()
    assert [part[:, 0].tolist() for part in split(array, seed=5)] == expected
    assert [part["row"].tolist() for part in split(data, seed=6)] != expected


def test_mistakes_are_named():
    data = table(100)
    for arguments, message in [((dict(stratify="z")), "no column 'z'"), (dict(fractions=(0.5, 0.6)), "a sum of 1.1"),
                               (dict(fractions=(1.0, 0.0)), "0 is not above 0"), (dict(stratify="y", group="who"), "at most one")]:
        with pytest.raises(ValueError, match=message):
            split(data, **arguments)
    with pytest.raises(ValueError, match="too few"):
        split(data.head(2))


def test_leaks():
    data = table(400).drop(columns="row")
    assert leaks(*split(data.drop_duplicates())) == []
    train, test = data.head(300), pd.concat([data.tail(100), data.head(3)])
    merged = test.merge(train.drop_duplicates(), how="inner")
    (found,) = leaks(train, test)
    assert (found.part, found.other, found.rows) == (1, 0, len(merged))
    assert leaks(train, test, columns=["y"])[0].rows == len(test)


def test_near_duplicates():
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"a": rng.normal(size=100), "b": rng.integers(0, 10**6, 100), "c": [f"c{i}" for i in range(100)]})
    test = train.iloc[:10].copy()
    test.loc[0:2, "a"] += 1  # three rows differ in one column
    test.loc[3, "b"] += 1  # one more
    test.loc[4, ["a", "c"]] = [7.5, "other"]  # in two
    (found,) = leaks(train, test, near=True)
    assert (found.rows, found.near) == (5, 4)
    assert leaks(train, test)[0].near == 0
    with pytest.raises(ValueError, match="3 columns at least"):
        leaks(train, test, columns=["a", "b"], near=True)
