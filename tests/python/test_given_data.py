"""Data as Python has them: PyTorch's data sets and loaders, generators of batches, frames of pandas, Polars and Arrow."""
import gc
import threading

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import deepseek
from deepseek import data, nn

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Pairs:
    """A data set in PyTorch's manner, without PyTorch; counts what is asked of it."""

    def __init__(self, x=X, y=Y):
        self.x, self.y, self.asked = x, y, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.asked.append((index, threading.current_thread() is threading.main_thread()))
        return self.x[index], self.y[index]


def trained(train, validation=None, **options):
    deepseek.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    trainer = deepseek.Trainer(model, optimizer="adam", metrics=["accuracy"], batch_size=16, epochs=2, seed=1, **options)
    trainer.fit(train, validation, progress=False)
    return trainer


def weights(trainer):
    return {name: np.asarray(value) for name, value in trainer.model.state_dict().items()}


def generator():
    for i in range(0, 64, 10):
        yield X[i:i + 10], Y[i:i + 10]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(X), Y.tolist()))


@pytest.mark.parametrize("given", [
    lambda: Pairs(),
    lambda: Pairs(torch.from_numpy(X), torch.from_numpy(Y)),
    lambda: TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    lambda: DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=7, shuffle=True),
    lambda: DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=7, collate_fn=lambda rows: [torch.stack(c) for c in zip(*rows)]),
    lambda: DataLoader(Stream(), batch_size=9),
    lambda: Stream(),
    lambda: Subset(Pairs(), range(64)),
    lambda: [(x, int(y)) for x, y in zip(X, Y)],
    generator,
    lambda: ({"input": x, "y": y} for x, y in generator()),
    lambda: [{"input": x, "y": y} for x, y in zip(X, Y)],
    lambda: (pd.DataFrame(X, columns=list("abc")), pd.Series(Y)),
    lambda: (pl.DataFrame(X, schema=list("abc")), pl.Series(Y)),
    lambda: (pa.table({c: X[:, i] for i, c in enumerate("abc")}), pa.chunked_array([Y[:9], Y[9:]])),
    lambda: (pa.record_batch({c: X[:, i] for i, c in enumerate("abc")}), pa.array(Y)),
])
def test_training_is_that_of_arrays_to_the_bit(given):
    expected = weights(trained((X, Y), (X[:16], Y[:16])))
    for name, value in weights(trained(given(), (X[:16], Y[:16]))).items():
        np.testing.assert_array_equal(value, expected[name])


def test_samples_are_read_as_they_are_needed():
    samples = Pairs()
    samples.classes = ["no", "yes"]
    dataset = data.Dataset(samples)
    assert {i for i, _ in samples.asked} == {0}, "class names are known, and the first sample gives the types"
    assert dataset.class_names == ["no", "yes"] and len(dataset) == 64
    x, y = dataset.read([5, 2])
    np.testing.assert_array_equal(x, X[[5, 2]])
    np.testing.assert_array_equal(y, Y[[5, 2]])
    assert [i for i, _ in samples.asked[-2:]] == [5, 2]
    trained(dataset)
    assert any(not main for _, main in samples.asked), "batches are made ahead, on another thread"
    evaluated = trained((X, Y)).evaluate(Pairs())
    assert evaluated["loss"] == trained((X, Y)).evaluate((X, Y))["loss"]


def test_samples_by_name_of_text_and_of_pictures():
    kinds = RANDOM.choice(["grün", "a", "longer"], 12)

    class Named:
        def __len__(self):
            return 12

        def __getitem__(self, i):
            return {"image": Image.fromarray(np.full((4, 5, 3), i * 20, np.uint8)), "table": [float(i), 1.0], "kind": str(kinds[i])}

    dataset = data.Dataset(Named(), input_names=["image", "table"])
    assert dataset.class_names == sorted(set(kinds)) and dataset.fields["image"]["shape"] == (3, 4, 5)
    batch = dataset.read([3, 7])
    np.testing.assert_allclose(batch["image"][1], 140 / 255, rtol=1e-6)
    np.testing.assert_array_equal(batch["table"], [[3, 1], [7, 1]])
    assert [dataset.class_names[k] for k in batch["kind"]] == [kinds[3], kinds[7]]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(62, 3)

        def forward(self, image, table):
            return {"kind": self.layer(deepseek.ops.concat(image.reshape(image.shape[0], -1), table, axis=1))}

    trainer = deepseek.Trainer(Model(), loss=lambda out, batch: deepseek.ops.cross_entropy(out["kind"], batch["kind"]), metrics=None, epochs=1, batch_size=4)
    assert np.isfinite(trainer.fit(Named(), Named(), progress=False)[0]["training"]["loss"])


def test_several_inputs_of_a_pair_and_regression():
    samples = [((X[i], X[i, :1]), float(X[i, 0])) for i in range(8)]
    dataset = data.as_dataset(samples, input_names=["a", "b"])
    assert list(dataset.fields) == ["a", "b", "y"] and dataset.fields["y"]["dtype"] == "f32"
    np.testing.assert_array_equal(dataset.read([4])["b"], X[4:5, :1])
    alone = data.Dataset([(x,) for x in X[:4]])
    np.testing.assert_array_equal(alone.inputs, X[:4])


def test_an_error_of_a_sample_is_told_with_its_traceback():
    class Broken(Pairs):
        def __getitem__(self, index):
            if index == 40:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    samples = Broken()
    samples.classes = ["0", "1"]
    with pytest.raises(ValueError, match="(?s)sample 40: OSError: the disk is gone, raised by.*in __getitem__") as error:
        trained(samples)
    assert "_samples.py" not in str(error.value)


@pytest.mark.parametrize(("samples", "message"), [
    ([(X[0], 1), (X[1, :2], 0), (X[2], 1)], r"sample 1: x is float32 \[2\], but of sample 0 float32 \[3\]"),
    ([(X[0], 1), (X[1], 0.5), (X[2], 1)], r"sample 1: y is float32 \[\], but of sample 0 int64 \[\]"),
    ([(X[0], 1), (X[1] * np.nan, 0), (X[2], 1)], "'x' of sample 1 holds nan at position 0"),
    ([(X[0], 1), (X[1], -3), (X[2], 1)], "'y': label of sample 1 is -3, expected 0 to 1"),
    ([{"x": X[0], "y": 1}, {"x": X[0]}, {"x": X[0], "y": 1}], "sample 1 lacks 'y', which sample 0 has"),
    ([(X[0], X[0], 1)] * 3, r"sample 0: it is a tuple of 3, expected a pair \(inputs, target\) or a dict"),
])
def test_samples_that_do_not_fit_are_named(samples, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data.as_dataset(samples, class_names={"y": ["0", "1"]} if "label" in message or "nan" in message or "float32 \\[2\\]" in message else None).read([0, 1, 2])


def test_what_is_no_data_is_told():
    for given, message in [(X, "got ndarray"), (torch.from_numpy(X), "got Tensor"), (3, "got int"), ((X, Y, Y), "got tuple"), ([], "got list"), ("a", "got str"),
                           (pd.DataFrame({"a": [1]}), "a DataFrame doesn't say which column to learn.*from_frame"), (pd.Series([1.0]), "got Series"),
                           (DataLoader(Pairs(), sampler=WeightedRandomSampler([1.0] * 64, 64)), "WeightedRandomSampler chooses samples")]:
        with pytest.raises(TypeError, match=message):
            data.as_dataset(given)
    with pytest.raises(ValueError, match="gave no batches"):
        data.as_dataset(iter([]))
    with pytest.raises(ValueError, match="batch 1 has x, but batch 0 x, y|batch 1 has"):
        data.as_dataset(iter([{"x": X, "y": Y}, {"x": X}]))
    with pytest.raises(ValueError, match="do not fit together"):
        data.as_dataset(iter([(X, Y), (X[:, :2], Y)]))


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_become_fields(make):
    frame = make({"age": [1, 2, 3], "on": [True, False, True], "height": [1.5, 2.5, 3.5], "kind": ["b", "a", "b"], "value": [0.5, 1.5, 2.5]})
    choose = (lambda names: frame.select(names)) if make is pa.table else (lambda names: frame[names])
    inputs = choose(["age", "on", "height"])
    dataset = data.Dataset(inputs, frame["kind"])
    np.testing.assert_array_equal(dataset.inputs, np.array([[1, 1, 1.5], [2, 0, 2.5], [3, 1, 3.5]], np.float32))
    assert dataset.class_names == ["a", "b"] and dataset.targets.tolist() == [1, 0, 1]
    with pytest.raises(TypeError, match="inputs: expected numbers, got a .* whose column 'kind' is not of numbers; drop or encode it: deepseek.data.Pipeline"):
        data.Dataset(frame, [0, 1, 0])
    without = frame.drop(columns="kind") if make is pd.DataFrame else frame.drop(["kind"])
    one = data.Dataset.from_frame(without, "value")
    assert one.inputs.shape == (3, 3) and one.targets.tolist() == [0.5, 1.5, 2.5]
    two = data.Dataset.from_frame(frame, ["kind", "value"])
    assert set(two.targets) == {"kind", "value"} and two.inputs.shape == (3, 3)
    assert set(data.Dataset(inputs, choose(["kind", "value"])).targets) == {"kind", "value"}
    with pytest.raises(ValueError, match="no column 'label'; it has: age"):
        data.Dataset.from_frame(frame, "label")


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_missing_values_of_frames_are_named(make):
    frame = make({"a": [1.0, None, 3.0], "b": ["x", None, "y"]})
    with pytest.raises(ValueError, match="inputs: column 'a': 1 of its 3 values are missing; fill them in"):
        data.Dataset(frame[["a"]] if make is not pa.table else frame.select(["a"]), [0, 1, 0])
    with pytest.raises(ValueError, match="1 of its 3 values are missing"):
        data.Dataset(np.zeros((3, 1)), frame["b"])


def test_categories_and_prediction_from_a_frame():
    frame = pd.DataFrame(X, columns=list("abc"))
    kind = pd.Series(np.where(Y == 1, "up", "down")).astype("category")
    trainer = trained((frame, kind))
    np.testing.assert_array_equal(trainer.predict(frame), trainer.predict(X))
    assert trainer.evaluate((frame, kind))["loss"] == trainer.evaluate((X, Y))["loss"]
    assert data.Dataset(pl.DataFrame(frame), pl.Series(kind.astype(str)).cast(pl.Categorical)).class_names == ["down", "up"]


def test_samples_go_when_the_data_set_does():
    samples = Pairs()
    gone = []
    import weakref
    weakref.finalize(samples, gone.append, 1)
    dataset = data.Dataset(samples).subset([1, 2])
    del samples
    np.testing.assert_array_equal(dataset.inputs, X[1:3])
    del dataset
    gc.collect()
    assert gone == [1]
