"""The data source `table`, beside scikit-learn's imputer, scaler and encoders fitted on the same rows."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, OneHotEncoder, StandardScaler

from deepseek import data

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = 2000
    frame = pd.DataFrame({
        "id": np.arange(rows),
        "age": rng.integers(18, 90, rows).astype(float),
        "income": rng.lognormal(8, 1, rows),
        "city": rng.choice(["Berlin", "Paris", "Rome", "Oslo"], rows, p=[0.5, 0.3, 0.199, 0.001]),
        "member": rng.random(rows) < 0.4,
        "price": rng.normal(size=rows),
        "species": rng.choice(["setosa", "versicolor", "virginica"], rows, p=[0.6, 0.3, 0.1]),
    }).astype({"city": object})
    for column, share in (("age", 0.1), ("income", 0.05), ("city", 0.05)):
        frame.loc[rng.random(rows) < share, column] = np.nan
    path = tmp_path_factory.mktemp("table") / "people.csv"
    frame.to_csv(path, index=False)
    return path, frame


def fields(path, **parameters):
    """By part, its fields as arrays."""
    splits = data.load("table", file=str(path), **parameters)
    return {name: dict(zip("xy", part.read(list(range(len(part)))))) for name, part in zip(PARTS, splits)}


def rows(people, **parameters):
    """By part, its rows as a frame: what is drawn does not depend on the inputs."""
    path, frame = people
    ids = fields(path, columns="id", pipeline="impute", **parameters)
    return {name: frame.iloc[np.asarray(part["x"])[:, 0].astype(int)] for name, part in ids.items()}


def encoder(numbers, scaler):
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer([("numbers", make_pipeline(SimpleImputer(strategy=numbers), scaler), ["age", "income"]),
                              ("booleans", "passthrough", ["member"]), ("text", text, ["city"])], sparse_threshold=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pipeline, numbers, scaler", [
    (None, "median", StandardScaler()),
    ("impute, scale, one_hot", "median", StandardScaler()),
    (json.dumps([{"impute": {"strategy": "mean"}}, {"scale": {"method": "minmax"}}, "one_hot"]), "mean", MinMaxScaler()),
])
def test_inputs_are_scikit_learns(people, pipeline, numbers, scaler, seed):
    parts = rows(people, target="price", seed=seed)
    chosen = {} if pipeline is None else {"pipeline": pipeline}
    made = fields(people[0], target="price", columns="age,income,city,member", seed=seed, **chosen)
    reference = encoder(numbers, scaler).fit(parts["train"])
    assert [len(part) for part in parts.values()] == [1440, 160, 400]
    for name, part in parts.items():
        np.testing.assert_allclose(np.asarray(made[name]["x"]), reference.transform(part).astype(np.float32), rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(np.asarray(made[name]["y"]), part["price"].to_numpy(np.float32))


def test_a_category_that_training_rows_lack_is_all_zeros(people, tmp_path):
    test = pd.DataFrame({"age": [30.0], "city": ["Atlantis"], "price": [1.0]})
    test.to_csv(tmp_path / "test.csv", index=False)
    made = fields(people[0], target="price", columns="age,city", pipeline="impute, one_hot", test=str(tmp_path / "test.csv"))
    assert len(rows(people, target="price", test=str(people[0]))["train"]) == 1800
    assert np.asarray(made["test"]["x"]).tolist() == [[30, 0, 0, 0, 0]]


def test_labels_are_label_encoders_and_shared_out_evenly(people):
    parts = rows(people, target="species")
    made = fields(people[0], target="species", columns="age")
    encoded = LabelEncoder().fit(people[1]["species"])
    shares = people[1]["species"].value_counts(normalize=True)
    for name, part in parts.items():
        np.testing.assert_array_equal(np.asarray(made[name]["y"]), encoded.transform(part["species"]))
        assert (part["species"].value_counts() - shares * len(part)).abs().max() < 1
