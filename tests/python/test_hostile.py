"""What a shell, a full disk, a stranger's file or a killed process may do to the programs: a clear error or nothing, never a signal, and no harm."""

import json
import os
import pathlib
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pyarrow as pa
import pytest

import deepseek
from deepseek import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLI = ROOT / "build" / "deepseek"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array, colour, bits, extra=b""):
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in array)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)) + extra +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes of small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("dark", "light"):
        (folder / name).mkdir()
        for i in range(12):
            grey = np.full((8, 8), i if name == "dark" else 255 - i, np.uint8)
            (folder / name / f"{i}.png").write_bytes(png(grey, 0, 8))
    return folder


def config(folder, pictures, **train):
    keys = {"epochs": 1, "batch_size": 4, "output": str(folder / "run"), **train}
    path = folder / "run.yaml"
    path.write_text(json.dumps({"data": {"name": "image-folder", "folder": str(pictures), "size": 8, "channels": 1, "test_fraction": 0.25},
                                "model": {"name": "mlp", "width": 8}, "train": keys}))
    return path


def shell(text, cwd=None, **environment):
    return subprocess.run(["bash", "-c", "set -o pipefail; " + text], capture_output=True, text=True, cwd=cwd, timeout=120, env={**os.environ, **environment})


def test_a_full_or_closed_console_does_not_stop_training(tmp_path, pictures):
    path = config(tmp_path, pictures)
    for how, code in (("2>/dev/full", 0), ("2>&-", 0), (">&- 2>&-", 0), ("0<&- 2>&-", 0), (">/dev/full", 1), ("| true", 0)):
        done = shell(f"{CLI} train {path} {how}")
        assert done.returncode == code, (how, done)
        assert (tmp_path / "run" / "test.txt").exists()
        events = next((tmp_path / "run").glob("**/events*")).read_bytes()
        assert b"samples/s" not in events and b"model mlp" not in events, how
        if code:
            assert "cannot write to standard output: No space left on device" in done.stderr
    for what in ("ops", "models", "--help", "data steps", "tune --help"):
        done = shell(f"{CLI} {what} >/dev/full")
        assert done.returncode == 1 and "No space left on device" in done.stderr, what


def test_what_is_no_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "t.csv").write_text("a\n1\n")
    for arguments in ("train pipe.yaml", "tune pipe.yaml", "data clean pipe.yaml t.csv", "data features pipe.yaml", "data split pipe.csv -o parts"):
        done = shell(f"{CLI} {arguments}", tmp_path)
        assert done.returncode == 2 and "is a pipe, expected a file" in done.stderr, (arguments, done)
    done = shell(f"{CLI} data split t.csv -o parts --fractions 1 && {CLI} ops softmax >/dev/null; {CLI} data report t.csv -o /dev/null", tmp_path)
    assert done.returncode == 2 and "is a device or a pipe" in done.stderr
    assert pathlib.Path("/dev/null").is_char_device()


def test_a_removed_working_folder_is_an_error(tmp_path):
    (tmp_path / "steps.yaml").write_text("steps: [duplicates]")
    (tmp_path / "t.csv").write_text("a\n1\n1\n")
    for arguments in (f"data clean {tmp_path}/steps.yaml {tmp_path}/t.csv --stream -o out.csv", "train run.yaml", "tune list x.db", "data report t.csv"):
        gone = tmp_path / "gone"
        gone.mkdir()
        done = shell(f"cd {gone}; rmdir {gone}; {CLI} {arguments}")
        assert done.returncode in (1, 2) and done.stderr.startswith("error: "), (arguments, done)


def test_too_large_a_model_is_an_error(tmp_path, pictures):
    path = config(tmp_path, pictures)
    done = shell(f"ulimit -v 4000000; {CLI} train {path} --set model.width=65536", OMP_NUM_THREADS="1")
    assert done.returncode in (1, 2) and "error: " in done.stderr and "memory" in done.stderr, done


def test_damaged_definitions_of_features_are_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n2,3\n")
    (tmp_path / "b.csv").write_text("id,a,y\n1,1,5\n2,1,6\n3,2,7\n")
    (tmp_path / "f.yaml").write_text("tables:\n  a: {file: a.csv, index: id}\n  b: {file: b.csv, index: id}\nrelationships: [b.a -> a]\ntarget: a\n"
                                     "aggregations: [mean]\ndepth: 1\n")
    done = shell(f"{CLI} data features f.yaml --save f.json -o out.csv", tmp_path)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "f.json").read_text())
    tried = 0
    for at in range(len(saved["synthesis"]["features"])):
        for key in saved["synthesis"]["features"][at]:
            for damage in ("missing", None):
                broken = json.loads(json.dumps(saved))
                if damage:
                    del broken["synthesis"]["features"][at][key]
                else:
                    broken["synthesis"]["features"][at][key] = None
                (tmp_path / "broken.json").write_text(json.dumps(broken))
                try:
                    deepseek.data.FeatureSynthesis.load(tmp_path / "broken.json").transform(
                        {name: deepseek.data.read(tmp_path / f"{name}.csv") for name in ("a", "b")})
                except ValueError as error:
                    assert str(error)
                tried += 1
    assert tried > 20
    del broken["synthesis"]["features"][0]["kind"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    done = shell(f"{CLI} data features broken.json --table a=a.csv --table b=b.csv", tmp_path)
    assert done.returncode == 1 and "damaged" in done.stderr


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3)])
def test_samples_of_16_bits_are_srgb(tmp_path, colour, channels):
    values = (np.arange(64 * channels).reshape(8, 8, channels) * (65535 // (64 * channels))).astype(np.uint16)
    x = first_picture(tmp_path, png(values, colour, 16))
    np.testing.assert_allclose(x, np.broadcast_to(values / 257.0, (8, 8, 3)), atol=0.51)


@pytest.mark.parametrize("colour, channels", [(4, 1), (6, 3)])
def test_transparency_is_laid_on_white_sample_by_sample(tmp_path, colour, channels):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (8, 8, channels + 1), dtype=np.uint8)
    opaque = values[..., -1:] / 255.0
    x = first_picture(tmp_path, png(values, colour, 8))
    np.testing.assert_allclose(x, np.broadcast_to(values[..., :-1] * opaque + 255 * (1 - opaque), (8, 8, 3)), atol=0.51)


def test_one_colour_may_be_transparent(tmp_path):
    values = (np.arange(64).reshape(8, 8) * 3).astype(np.uint8)
    x = first_picture(tmp_path, png(values, 0, 8, chunk(b"tRNS", struct.pack(">H", 30))))
    np.testing.assert_allclose(x[..., 0], np.where(values == 30, 255, values), atol=0.01)


def first_picture(folder, data):
    (folder / "a").mkdir()
    for i in range(4):
        (folder / "a" / f"{i}.png").write_bytes(data)
    part = deepseek.data.load("image-folder", folder=folder, size=8, channels=3, test_fraction=0.3, validation_fraction=0).train
    x = part.read([0])[0][0]
    return (255 * (x * np.reshape(part.stddev, (3, 1, 1)) + np.reshape(part.mean, (3, 1, 1)))).transpose(1, 2, 0)


def test_pictures_of_too_many_pixels_are_refused(tmp_path):
    claim = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65500, 65500) + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0" + bytes(200)
    rows = zlib.compress(bytes(1000))
    big = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    for name, data in (("a.jpg", claim), ("a.png", big)):
        folder = tmp_path / name
        (folder / "a").mkdir(parents=True)
        for i in range(4):
            (folder / "a" / f"{i}{name[1:]}").write_bytes(data)
        with pytest.raises(ValueError, match="at most 178956970 pixels are allowed"):
            deepseek.data.load("image-folder", folder=folder, size=8, channels=3, test_fraction=0.3)


def test_scalars_keep_their_shape(tmp_path):
    from safetensors.numpy import load_file

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model(np.zeros((2, 1, 5, 5), np.float32))
    values = {**model.state_dict(), "scalar": np.float32(3), "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    deepseek.save(values, tmp_path / "m.safetensors")
    for stored in (load_file(tmp_path / "m.safetensors"), deepseek.load(tmp_path / "m.safetensors")):
        assert {name: a.shape for name, a in stored.items()} == {name: np.shape(a) for name, a in values.items()}
        for name, a in values.items():
            np.testing.assert_array_equal(stored[name], a)


def test_labels_far_apart_are_an_error():
    with pytest.raises(ValueError, match="label 1099511627776 would be one of 1099511627777 classes"):
        deepseek.data.Dataset(np.zeros((2, 3), np.float32), np.array([0, 2**40]))


def test_numbers_of_changes_and_threads_are_bounded():
    with pytest.raises(ValueError, match=r"randaugment_ops: 4611686018427387904 is not in \[1, 1000\]"):
        deepseek.data.ImageAugmenter(["randaugment"], randaugment_ops=2**62)
    with pytest.raises(ValueError, match="crop_padding: .* is not in"):
        deepseek.data.ImageAugmenter(["crop"], crop_padding=2**62)
    for wrong in (0, -3, 10**5, 2**31):
        with pytest.raises(ValueError, match=f"threads: expected 1 to 4096, got {wrong}"):
            deepseek.set_num_threads(wrong)


def test_a_locale_with_commas_changes_no_number(tmp_path, pictures):
    """A checkpoint is read where 0,5 is a half as it was written where 0.5 is."""
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"], check=True, capture_output=True)
    code = f"""
import locale, sys, numpy as np, deepseek
from deepseek import nn
if len(sys.argv) > 2:
    locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
    assert locale.localeconv()["decimal_point"] == ","
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)).astype(np.float32), rng.integers(0, 2, 64)
deepseek.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
for epochs in (2, 4):
    trainer = deepseek.Trainer(model, optimizer={{"name": "sgd", "learning_rate": 0.05}}, schedule={{"name": "plateau"}}, epochs=epochs, output=sys.argv[1])
    trainer.fit((x, y), (x, y), resume=epochs == 4, progress=False)
print([[h["training"]["loss"], h["validation"]["loss"], h["learning_rate"]] for h in trainer.history])
"""
    histories = []
    for name, extra in (("plain", []), ("comma", ["de"])):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name, *extra], capture_output=True, text=True, env={**os.environ, "LOCPATH": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        histories.append(json.loads(done.stdout))
        histories.append((tmp_path / name / "history.csv").read_text().replace("\r", "").splitlines()[0])
    assert histories[0] == histories[2] and histories[1] == histories[3]


def tune_config(folder, pictures):
    path = config(folder, pictures, epochs=2000, output=str(folder / "unused"))
    text = json.loads(path.read_text())
    text["tune"] = {"output": str(folder / "study"), "trials": 4, "sampler": "random", "parameters": {"optimizer.learning_rate": {"low": 0.001, "high": 0.1}}}
    path.write_text(json.dumps(text))
    return path


def children_of(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_workers_of_a_killed_search_end(tmp_path, pictures):
    parent = subprocess.Popen([CLI, "tune", tune_config(tmp_path, pictures), "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.time() + 30
        while len(list((tmp_path / "study").glob("trial-*/last.safetensors"))) < 2 and time.time() < deadline:
            time.sleep(0.05)
        workers = children_of(parent.pid)
        assert len(workers) == 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.time() + 20
    while any(map(alive, workers)) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    with sqlite3.connect(tmp_path / "study" / "study.db") as study:
        assert {state for (state,) in study.execute("SELECT state FROM trials")} == {"waiting"}  # they have told before they ended


@pytest.mark.parametrize("when", [1e300, -1e300, 9e18, float("inf"), "soon"])
def test_a_study_of_any_time_is_listed(tmp_path, when):
    from deepseek import tune

    study = tune.Study({"x": (0.0, 1.0)}, storage=f"sqlite:///{tmp_path}/study.db", name="s", max_trials=1)
    study.optimize(lambda trial: trial.params["x"])
    del study
    with sqlite3.connect(tmp_path / "study.db") as file:
        file.execute("UPDATE studies SET created = ?", (when,))
    file.close()
    done = shell(f"{CLI} tune list {tmp_path}/study.db")
    assert done.returncode == 0 and done.stdout.splitlines()[1].split() == ["s", "1", "1", "-"], done


def test_a_full_console_does_not_stop_python(tmp_path):
    code = """
import numpy as np, os, sys, deepseek
from deepseek import nn
deepseek.Trainer(nn.Linear(4, 2), epochs=2, output=sys.argv[1]).fit((np.zeros((64, 4), 'f4'), np.zeros(64, 'i8')))
"""
    for how in ("2>/dev/full", "2>&-"):
        done = shell(f"{sys.executable} -c \"$CODE\" {tmp_path}/run {how}", CODE=code)
        assert done.returncode == 0, (how, done)
        assert (tmp_path / "run" / "history.csv").exists()


def test_a_path_is_any_bytes_but_0(tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    deepseek.save({"a": np.arange(3.0)}, odd + ".safetensors")
    np.testing.assert_array_equal(deepseek.load(pathlib.Path(odd + ".safetensors"))["a"], np.arange(3.0))
    deepseek.data.write(pa.table({"a": [1, 2]}), odd + ".parquet")
    assert deepseek.data.read(odd + ".parquet").to_pydict() == {"a": [1, 2]}
    pipeline = deepseek.data.Pipeline(["duplicates"])
    pipeline.fit(pa.table({"a": [1, 2]}))
    pipeline.save(odd + ".json")
    assert deepseek.data.Pipeline.load(odd + ".json").fitted
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        deepseek.load(odd + "none.safetensors")
    (tmp_path / "a.safetensors").write_bytes((pathlib.Path(odd + ".safetensors")).read_bytes())
    for read in (deepseek.load, deepseek.data.read, deepseek.data.Pipeline.load):
        with pytest.raises((TypeError, ValueError)):
            read(str(tmp_path / "a.safetensors") + "\0.csv")


def test_archives_that_unpack_to_too_much_are_refused(tmp_path):
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "claim.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(1000))
    (tmp_path / "claim.npy").write_bytes(header.getvalue() + bytes(1000))
    for name in ("claim.npy", "claim.npz"):
        with pytest.raises(ValueError, match=name):
            deepseek.data.read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        for i in range(4000):
            archive.writestr(f"{i}.npy", b"")
    data = (tmp_path / "bomb.npz").read_bytes()
    claimed = data.split(b"PK\1\2")  # entries of the directory, of 4 GB each
    claimed = claimed[:1] + [entry[:20] + struct.pack("<I", 2**32 - 2) + entry[24:] for entry in claimed[1:]]
    (tmp_path / "bomb.npz").write_bytes(b"PK\1\2".join(claimed))
    with pytest.raises(ValueError, match="bomb.npz.*more than the memory there is"):
        deepseek.data.read(tmp_path / "bomb.npz")
