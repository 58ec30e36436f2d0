"""The source `arrays`: NumPy's files read back beside numpy.load, in every type, order and byte order; what becomes of them as fields;
parts, tests and predictions; and what is refused."""
import json
import subprocess
import zipfile

import numpy as np
import pytest

import deepseek
from deepseek import data

TYPES = ["?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


def loaded(path=None, **parameters):
    given = {"file": path} if path else {}
    return data.load("arrays", **{"validation_fraction": 0, "test_fraction": 0, "normalise": "none", **given, **parameters})


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_every_type_are_those_of_numpy(tmp_path, dtype, order):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 120, (5, 3, 4)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        values = (values / 8 - 5).astype(dtype)
    if np.dtype(dtype).kind == "i":
        values = (values - 60).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(values, order=order))
    np.save(tmp_path / "y.npy", np.arange(5) % 2)
    train = loaded(inputs=str(tmp_path / "x.npy"), targets={"y": str(tmp_path / "y.npy")}, layout="as_is").train
    kind = np.dtype(dtype).kind
    expected = {"f": "f32", "b": "f32"}.get(kind, "u8" if dtype == "u1" else "i64")
    assert train.fields["x"]["dtype"] == expected
    np.testing.assert_array_equal(train.inputs, np.load(tmp_path / "x.npy").astype(train.inputs.dtype))


def test_an_archive_keeps_its_names_and_text_becomes_classes(tmp_path):
    random = np.random.default_rng(1)
    image, table = random.integers(0, 256, (20, 8, 8, 3), np.uint8), random.normal(3, 2, (20, 5))
    kind = random.choice(["grün", "red", "a b"], 20)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "d.npz", image=image, table=table, kind=kind, unused=np.zeros(3))
        parts = data.load("arrays", file=tmp_path / "d.npz", inputs=["image", "table"], targets=["kind"], test_fraction=0.25, validation_fraction=0.2)
        assert (len(parts.train), len(parts.validation), len(parts.test)) == (12, 3, 5)
        fields = parts.train.fields
        assert list(fields) == ["image", "table", "kind"] and fields["kind"]["class_names"] == sorted(set(kind))
        assert fields["image"]["shape"] == (3, 8, 8) and fields["table"]["dtype"] == "f32"
        all_images = np.concatenate([p.inputs["image"] for p in parts])
        np.testing.assert_array_equal(np.sort(all_images.sum((1, 2, 3))), np.sort(image.sum((1, 2, 3), dtype=np.int64)))
        raw = parts.train.inputs["image"] / 255.0
        np.testing.assert_allclose(fields["image"]["mean"], raw.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(fields["table"]["stddev"], parts.train.inputs["table"].std(0), rtol=1e-5)
        row = np.flatnonzero((table.astype("f4") == parts.train.inputs["table"][0]).all(1))[0]
        assert fields["kind"]["class_names"][parts.train.targets[0]] == kind[row]
        np.testing.assert_array_equal(parts.train.inputs["image"][0], image[row].transpose(2, 0, 1))


def test_archives_of_keras_and_medmnist_are_parts(tmp_path):
    random = np.random.default_rng(2)
    x, y = random.integers(0, 256, (30, 6, 6), np.uint8), random.integers(0, 4, (30, 1), np.uint8)
    np.savez(tmp_path / "keras.npz", x_train=x[:20], y_train=y[:20, 0], x_test=x[20:], y_test=y[20:, 0])
    parts = data.load("arrays", file=tmp_path / "keras.npz", validation_fraction=0.25)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (15, 5, 10)
    assert parts.train.fields["x"]["shape"] == (1, 6, 6)
    np.testing.assert_array_equal(parts.test.inputs[:, 0], x[20:])
    np.savez(tmp_path / "med.npz", train_images=x[:20], train_labels=y[:20], val_images=x[20:24], val_labels=y[20:24], test_images=x[24:], test_labels=y[24:])
    parts = data.load("arrays", file=tmp_path / "med.npz")
    assert list(parts.train.fields) == ["images", "labels"]
    np.testing.assert_array_equal(parts.validation.targets, y[20:24, 0])
    np.testing.assert_array_equal(parts.test.targets, y[24:, 0])
    np.testing.assert_array_equal(parts.validation.fields["images"]["mean"], parts.train.fields["images"]["mean"])


def test_files_of_one_array_regression_and_a_test_part(tmp_path):
    random = np.random.default_rng(3)
    for name, n in (("train", 12), ("test", 4)):
        np.save(tmp_path / f"{name}_x.npy", random.normal(size=(n, 3)))
        np.save(tmp_path / f"{name}_y.npy", np.arange(n).reshape(n, 1))
    paths = {"inputs": {"x": f"{tmp_path}/train_x.npy"}, "targets": {"y": f"{tmp_path}/train_y.npy"},
             "test": {"x": f"{tmp_path}/test_x.npy", "y": f"{tmp_path}/test_y.npy"}}
    parts = loaded(**paths, task="regression")
    np.testing.assert_array_equal(parts.train.targets, np.arange(12, dtype=np.float32))
    assert len(parts.test) == 4 and parts.test.fields["y"]["dtype"] == "f32"
    parts = loaded(**paths, class_names=[f"c{i}" for i in range(12)])
    assert parts.train.class_names[11] == "c11"


def test_large_files_are_mapped(tmp_path):
    n = 40_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 1000))  # 160 MB, most of it no byte on disk
    x[7], x[n - 1] = 3, 5
    x.flush()
    np.save(tmp_path / "y.npy", np.arange(n) % 3)
    program = f"""
import resource, numpy as np
from deepseek import data
part = data.load("arrays", inputs={str(tmp_path / 'x.npy')!r}, targets={str(tmp_path / 'y.npy')!r}, test_fraction=0, validation_fraction=0, normalise="none").train
x, y = part.read([7, {n - 1}, 0])
assert x.sum(1).tolist() == [3000, 5000, 0] and y.tolist() == [1, {(n - 1) % 3}, 0]
anonymous = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")][0]
assert anonymous < 100 * 1024, anonymous
"""
    subprocess.run([__import__("sys").executable, "-c", program], check=True)


def test_a_run_trains_and_predicts_from_files(tmp_path):
    random = np.random.default_rng(4)
    x = random.normal(size=(300, 4))
    kind = np.where(x[:, 0] > 0, "up", "down")
    np.savez(tmp_path / "d.npz", x=x, y=kind)
    parts = data.load("arrays", file=tmp_path / "d.npz")
    deepseek.manual_seed(0)
    model = deepseek.nn.Sequential(deepseek.nn.Linear(4, 16), deepseek.nn.ReLU(), deepseek.nn.Linear(16, 2))
    trainer = deepseek.Trainer(model, optimizer="adam", metrics=["accuracy"], epochs=20, batch_size=16)
    trainer.fit(parts.train, parts.validation, progress=False)
    assert trainer.evaluate(parts.test)["accuracy"] > 0.85
    trainer.save(tmp_path / "m.dsk")
    np.save(tmp_path / "new.npy", x[:6])
    np.savez(tmp_path / "new.npz", x=x[:6], other=np.zeros(2))
    rows = {}
    for name in ("new.npy", "new.npz"):
        out = tmp_path / (name + ".jsonl")
        subprocess.run(["build/deepseek", "predict", tmp_path / "m.dsk", tmp_path / name, "-o", out], check=True, capture_output=True)
        rows[name] = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows["new.npy"] == rows["new.npz"] and [r["row"] for r in rows["new.npy"]] == list(range(6))
    assert sum(r["prediction"] == k for r, k in zip(rows["new.npy"], kind)) >= 5
    np.save(tmp_path / "bad.npy", x[:6, :3])
    failed = subprocess.run(["build/deepseek", "predict", tmp_path / "m.dsk", tmp_path / "bad.npy"], capture_output=True, text=True)
    assert failed.returncode and "is f64 [6,3], expected [4] per sample" in failed.stderr


@pytest.mark.parametrize(("arrays", "parameters", "message"), [
    ({"a": np.zeros((3, 2))}, {}, "none of the arrays is a target (there are: a)"),
    ({"x": np.zeros((3, 2)), "y": np.zeros(2, int)}, {}, "'x' has 3 samples but 'y' 2"),
    ({"x": np.zeros((3, 2)), "y": np.zeros(3, int)}, {"inputs": ["table"]}, "has no array 'table'; it has: x, y"),
    ({"x": np.array(["a", "b"]), "y": np.zeros(2, int)}, {}, "'x' of"),
    ({"x": np.zeros((3, 2)), "y": np.array([0.5, 1, 2])}, {"task": "classes"}, "'y' holds 0.5 at position 0, expected whole numbers"),
    ({"x": np.zeros((3, 2)), "y": np.array([0, 1, -100])}, {}, "label of sample 2 is -100"),
    ({"x": np.zeros((3, 2)), "y": np.array([0, 1, 10**9])}, {}, "number the classes 0, 1, 2"),
    ({"x": np.array([[1], [np.nan]]), "y": np.zeros(2, int)}, {}, "holds nan at position 0"),
    ({"x": np.zeros((3, 2), complex), "y": np.zeros(3, int)}, {}, "complex numbers"),
    ({"x": np.zeros((3, 2), "M8[s]"), "y": np.zeros(3, int)}, {}, "holds times"),
    ({"x": np.zeros(3, [("a", "f4")]), "y": np.zeros(3, int)}, {}, "structured array"),
    ({"x": np.float32(3), "y": np.zeros(3, int)}, {}, "expected a first axis of samples"),
    ({"x": np.full((3, 2), 2**63, np.uint64), "y": np.zeros(3, int)}, {}, "expected numbers below 2^63"),
])
def test_what_is_wrong_is_told(tmp_path, arrays, parameters, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises((ValueError, NotImplementedError)) as error:
        loaded(tmp_path / "d.npz", **parameters)
    assert message in str(error.value)


def test_pickles_and_broken_archives_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.array([{}, []], object), y=np.zeros(2, int))
    with pytest.raises(Exception, match="a pickle.*could run any code"):
        loaded(tmp_path / "p.npz")
    np.savez_compressed(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(9, 9)), y=np.zeros(9, int))
    whole = (tmp_path / "d.npz").read_bytes()
    for cut in (3, 50, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="cut.npz"):
            loaded(tmp_path / "cut.npz")
    flipped = bytearray(whole)
    flipped[200] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match="flipped.npz"):
        loaded(tmp_path / "flipped.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("model.pkl", "x")
    with pytest.raises(ValueError, match="it holds 'model.pkl', expected arrays"):
        loaded(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no file of arrays"):
        loaded(tmp_path / "text.npz")
