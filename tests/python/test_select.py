"""Interactions of columns, and the choice of columns: what was planted is found, values are pandas', worth is scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score

from deepseek.data import Pipeline


def planted(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.lognormal(size=n), "d": rng.lognormal(size=n),
                          "k": rng.choice(list("wxyz"), n), "m": rng.choice(list("pq"), n)})
    frame.loc[rng.random(n) < 0.02, "a"] = np.nan
    return frame, rng


@pytest.mark.parametrize("method", ["mutual_information", "boosting"])
@pytest.mark.parametrize("name, target", [
    ("a * b", lambda f: f.a * f.b > 0),
    ("c / d", lambda f: f.c > 2 * f.d),
    ("k x m", lambda f: (f.k + f.m).isin(["wp", "xq", "yp", "zq"])),
])
def test_planted_pairs_come_first(method, name, target):
    frame, rng = planted()
    frame["y"] = np.where(rng.random(len(frame)) < 0.1, ~target(frame), target(frame)).astype(bool)
    pipeline = Pipeline([("interactions", {"target": "y", "keep": 3, "method": method})])
    out = pipeline.fit_transform(frame)
    assert out.columns[len(frame.columns)] == name or (name == "c / d" and out.columns[len(frame.columns)] == "d / c")
    assert len(out.columns) <= len(frame.columns) + 3
    assert f"{name}: " in "\n".join(pipeline.notes()) or name == "c / d"


@pytest.mark.parametrize("name, wanted", [
    ("b * d", lambda f: f.b * f.d),
    ("c / d", lambda f: f.c / f.d),
    ("a - mean by k", lambda f: f.a - f.groupby("k").a.transform("mean")),
    ("mean(a) by k", lambda f: f.groupby("k").a.transform("mean")),
])
def test_values_are_those_of_pandas(tmp_path, name, wanted):
    frame, rng = planted()
    frame["a"] += frame.k.map({"w": 0, "x": 3, "y": -4, "z": 9})
    frame["y"] = wanted(frame).fillna(0) + (0.5 * rng.normal(size=len(frame)) if name.startswith("mean") else 0)
    # The mean by k tells what k tells; against a shuffled k it tells more than its columns alone.
    columns = [] if not name.startswith("mean") else ["a", "k"]
    pipeline = Pipeline([("interactions", {"columns": columns, "keep": 100, "redundancy": 1.0, "method": "boosting"})], target="y")
    out = pipeline.fit_transform(frame)
    np.testing.assert_allclose(out[name], wanted(frame), rtol=1e-12, atol=1e-14)
    # Served: without the target, with means of training data, and of all of it for words that it did not have.
    pipeline.save(tmp_path / "p.json")
    new = frame.drop(columns="y").iloc[:5].assign(k=["w", "new", "x", None, "z"])
    served = Pipeline.load(tmp_path / "p.json").transform(new)
    assert "y" not in served and name in served
    if name.startswith("mean"):
        assert served[name].iloc[1] == pytest.approx(frame.a.mean())
        assert served[name].iloc[2] == pytest.approx(frame.a[frame.k == "x"].mean())


def test_the_target_stays_as_it_is():
    frame, _ = planted(300)
    frame["y"] = np.where(frame.b > 0, 5.0, np.nan)
    steps = [("impute", {"strategy": "mean"}), ("outliers", {"method": "iqr"}), "scale", "one_hot", "constant"]
    out = Pipeline(steps, target="y").fit_transform(frame)
    np.testing.assert_array_equal(out["y"], frame["y"])
    assert abs(out["b"].mean()) < 1e-12
    with pytest.raises(ValueError, match="target: "):
        Pipeline(steps, target="z").fit(frame)


def test_select_keeps_the_best(tmp_path):
    frame, rng = planted()
    frame["copy"] = 3 * frame.a
    frame["y"] = (frame.a.fillna(0) + frame.m.map({"p": 0.0, "q": 1.0}) + 0.1 * rng.normal(size=len(frame)) > 0.5)
    pipeline = Pipeline([("select", {"target": "y", "keep": 2})])
    out = pipeline.fit_transform(frame)
    kept = [name for name in out.columns if name != "y"]
    assert kept in (["a", "m"], ["m", "copy"])
    worth = {note.split(": ")[1]: float(note.split(": ")[2]) for note in pipeline.notes()[1:]}
    # The same number from scikit-learn, less the bias of as many cells (Miller, 1955).
    m = mutual_info_score(frame.m, frame.y) - 1 / (2 * len(frame))
    assert worth["m"] == pytest.approx(m, rel=1e-3)
    pipeline.save(tmp_path / "p.json")
    assert list(Pipeline.load(tmp_path / "p.json").transform(frame).columns) == list(out.columns)


@pytest.mark.parametrize("options, message", [
    ({}, "name the column to be predicted by the option `target`"),
    ({"target": "z"}, "interactions: target"),
    ({"target": "y", "kinds": ["sums"]}, "kinds: unknown 'sums'"),
    ({"target": "y", "max_candidates": 3}, "are more than max_candidates, 3"),
])
def test_errors(options, message):
    frame, _ = planted(100)
    with pytest.raises(ValueError, match=message):
        Pipeline([("interactions", options)]).fit(frame.assign(y=frame.b > 0))


def test_targets_of_boosting():
    frame, _ = planted(200)
    step = {"target": "y", "method": "boosting"}
    with pytest.raises(ValueError, match="the target 'y' has missing values"):
        Pipeline([("interactions", step)]).fit(frame.assign(y=frame.a))
    with pytest.raises(ValueError, match="has one value only"):
        Pipeline([("interactions", step)]).fit(frame.assign(y="same"))
    many = frame.assign(y=np.where(frame.b > 0, "p", np.where(frame.c > 1, "q", "r")))
    Pipeline([("interactions", step)]).fit(many)


def test_types_of_text():
    frame = pd.DataFrame({"n": ["1", " 2.5 ", None, "-3e2"], "b": ["yes", "No", "TRUE", None], "d": ["2024-01-31", "2024-02-29", None, "1999-12-31"],
                          "t": ["31.01.2024 10:15", "01.02.2024 00:00", "29.02.2024 23:59", None], "k": ["1", "x", "3", "4"], "empty": [None] * 4})
    frame["empty"] = frame["empty"].astype("str")
    pipeline = Pipeline(["types"])
    out = pipeline.fit_transform(frame)
    np.testing.assert_array_equal(out["n"], [1, 2.5, np.nan, -300])
    assert out["b"].tolist()[:3] == [True, False, True]
    assert out["d"].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2024-01-31", "2024-02-29"]
    assert out["t"].dt.strftime("%H:%M %d").tolist()[:3] == ["10:15 31", "00:00 01", "23:59 29"]
    assert out["k"].tolist() == frame["k"].tolist()
    # A rule for mixed columns, which the notes tell.
    mixed = Pipeline([("types", {"share": 0.75})])
    assert np.isnan(mixed.fit_transform(frame)["k"].iloc[1])
    assert "types: k: number, 1 of 4 values are none and become missing" in mixed.notes()
    with pytest.raises(ValueError, match="column 'n' is double, expected text"):
        Pipeline([("types", {"columns": ["n"]})]).fit(out)


def test_statistics_of_text():
    frame = pd.DataFrame({"note": ["A fine day, really.", None, ""], "x": [1, 2, 3]})
    out = Pipeline([("text", {"columns": ["note"], "statistics": ["num_words", "upper_case_count", "punctuation_count"]})]).fit_transform(frame)
    assert list(out.columns) == ["x", "note_num_words", "note_upper_case_count", "note_punctuation_count"]
    np.testing.assert_array_equal(out["note_num_words"], [4, np.nan, 0])
    np.testing.assert_array_equal(out["note_punctuation_count"], [2, np.nan, 0])
    with pytest.raises(ValueError, match="unknown 'words'"):
        Pipeline([("text", {"columns": ["note"], "statistics": ["words"]})]).fit(frame)
    with pytest.raises(ValueError, match="name the columns"):
        Pipeline(["text"]).fit(frame)


def test_leakage_is_told(tmp_path):
    frame, rng = planted(2000)
    frame["y"] = (frame.b + rng.normal(size=2000) > 0)
    frame["refund"] = np.where(frame.y, rng.choice(["card", "cash"], 2000), "none")  # known only after the target
    frame["row"] = rng.permutation(2000)
    pipeline = Pipeline(["leakage"], target="y")
    pipeline.fit(frame)
    notes = "\n".join(pipeline.notes())
    assert "refund: tells 9" in notes or "refund: tells 100" in notes
    assert "row: no value repeats" in notes and notes.count("leakage: ") == 2
    dropped = Pipeline([("leakage", {"action": "drop"})], target="y").fit_transform(frame)
    assert list(dropped.columns) == ["a", "b", "c", "d", "k", "m", "y"]
    numeric = frame.assign(y=frame.b * 2 + 1e-3 * rng.normal(size=2000))
    pipeline.fit(numeric)
    assert any("b: tells" in note for note in pipeline.notes())
