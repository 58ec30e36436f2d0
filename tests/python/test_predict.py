"""The main job: raw file in, trained and saved model out, predictions for a new raw file."""

import csv
import json
import os
import subprocess

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from sklearn.datasets import load_wine

import deepseek

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(deepseek.__file__))), "deepseek")


def deepseek_command(folder, *arguments, code=0):
    done = subprocess.run([PROGRAM, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wine")
    data = load_wine(as_frame=True)
    frame = data.frame.rename(columns={"target": "kind"})
    frame["kind"] = [str(data.target_names[k]) for k in frame["kind"]]
    rng = np.random.default_rng(0)
    frame["region"] = rng.choice(["north", "south"], len(frame))
    frame.loc[rng.random(len(frame)) < 0.1, "alcohol"] = np.nan
    frame.to_csv(folder / "wine.csv", index=False)
    frame.drop(columns="kind").to_csv(folder / "new.csv", index=False)
    (folder / "wine.yaml").write_text("""
data: {name: table, file: wine.csv, target: kind, pipeline: [impute, scale, one_hot]}
model: {name: mlp, width: 32}
optimizer: {name: adamw}
train: {epochs: 60, batch_size: 16, output: run}
""")
    deepseek_command(folder, "train", "wine.yaml")
    deepseek_command(folder, "export", "run", "-o", "wine.dsk")
    return folder, frame


def test_a_table_from_the_raw_file_to_predictions(wine):
    folder, frame = wine
    assert float(deepseek_command(folder, "evaluate", "run").split("accuracy")[1].split()[0]) > 90
    assert "178 predictions in out.csv" in deepseek_command(folder, "predict", "wine.dsk", "new.csv", "-o", "out.csv")
    out = pd.read_csv(folder / "out.csv")
    assert list(out) == ["row", "prediction", "probability", "probability_class_0", "probability_class_1", "probability_class_2"]
    assert (out["prediction"] == frame["kind"]).mean() > 0.95
    shares = out[[c for c in out if c.startswith("probability_")]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-9)
    np.testing.assert_array_equal(shares.max(1), out["probability"])


def test_every_format_says_the_same(wine):
    folder, _ = wine
    for name in ("o.csv", "o.parquet", "o.jsonl"):
        deepseek_command(folder, "predict", "run", "new.csv", "-o", name)
    table = pyarrow.parquet.read_table(folder / "o.parquet").to_pylist()
    lines = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
    assert lines == table
    assert [float(row["probability"]) for row in csv.DictReader(open(folder / "o.csv"))] == [row["probability"] for row in table]
    columns = deepseek.InferenceSession(folder / "wine.dsk").predict(folder / "new.csv")
    assert columns == {name: [row[name] for row in table] for name in table[0]}
    text = deepseek_command(folder, "predict", "run", "new.csv").splitlines()
    assert text[0].startswith(f"0: {table[0]['prediction']} (") and len(text) == len(table)


def test_predictions_are_those_of_evaluation(wine):
    """Bit for bit: the file's rows as training's data source reads them, through the saved model."""
    folder, frame = wine
    session = deepseek.InferenceSession(folder / "run")
    test = deepseek.data.load("table", file=folder / "wine.csv", target="kind", pipeline=["impute", "scale", "one_hot"]).test
    x, y = test.read(list(range(len(test))))
    logits, = session.run(None, {"x": x})
    shown = float(deepseek_command(folder, "evaluate", "run").split("accuracy")[1].split()[0])
    assert shown == pytest.approx(100 * (logits.argmax(1) == y).mean(), abs=0.005)


def test_a_file_that_does_not_fit_is_told(wine, tmp_path):
    folder, frame = wine
    frame.drop(columns=["kind", "alcohol"]).to_csv(tmp_path / "less.csv", index=False)
    assert "alcohol" in deepseek_command(folder, "predict", "wine.dsk", tmp_path / "less.csv", "-o", tmp_path / "o.csv", code=2)
    assert not (tmp_path / "o.csv").exists()
    assert "none.csv" in deepseek_command(folder, "predict", "wine.dsk", tmp_path / "none.csv", code=1)
    assert "none.dsk" in deepseek_command(folder, "predict", tmp_path / "none.dsk", "new.csv", code=1)
    assert "csv" in deepseek_command(folder, "predict", "new.csv", "new.csv", code=2).split("error:")[1].lower()


def test_pictures(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(1)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(level, level + 40, (12, 14, 3)).astype(np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "run.yaml").write_text("""
data: {name: image-folder, folder: pictures, size: 8}
model: {name: mlp, width: 8}
optimizer: {name: adam, learning_rate: 0.01}
train: {epochs: 20, batch_size: 8, output: run}
""")
    deepseek_command(tmp_path, "train", "run.yaml")
    deepseek_command(tmp_path, "export", "run", "-o", "m.dsk")
    deepseek_command(tmp_path, "predict", "m.dsk", "pictures", "-o", "out.csv")
    out = pd.read_csv(tmp_path / "out.csv")
    assert len(out) == 40 and all(row.prediction in row.file for row in out.itertuples())
    assert deepseek_command(tmp_path, "predict", "m.dsk", "pictures/light/3.png").startswith("pictures/light/3.png: light (")


def test_what_data_there_is_and_their_keys(tmp_path):
    assert "table" in deepseek_command(tmp_path, "data", "sets") and "image-folder" in deepseek.data.sources()
    text = deepseek_command(tmp_path, "data", "sets", "table")
    assert text == deepseek.data.sources("table") and "test_fraction" in text and "name: table" in text
    assert "did you mean 'table'" in deepseek_command(tmp_path, "data", "sets", "tables", code=2)
