"""The installed library from C++: examples/cpp built against it runs a model file to the trainer's bits."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import deepseek
from deepseek import nn

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(deepseek.__file__).parents[2]


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not (BUILD / "CMakeCache.txt").exists() or shutil.which("cmake") is None, reason="needs the build folder and CMake")
def test_a_program_of_thirty_lines_runs_a_model(tmp_path):
    assert len((ROOT / "examples" / "cpp" / "run_model.cc").read_text().splitlines()) <= 32
    deepseek.manual_seed(0)
    x, y = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32), np.arange(50) % 3
    trainer = deepseek.Trainer(nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)), epochs=2)
    trainer.fit((x, y), progress=False)
    trainer.save(tmp_path / "m.dsk")
    x.tofile(tmp_path / "x.f32")
    run("cmake", "--install", BUILD, "--component", "infer", "--prefix", tmp_path / "installed")
    run("cmake", "-S", ROOT / "examples" / "cpp", "-B", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}")
    run("cmake", "--build", tmp_path / "example")
    name, *values = run(tmp_path / "example" / "run_model", tmp_path / "m.dsk", tmp_path / "x.f32", 50).split()
    assert name == "output"
    np.testing.assert_array_equal(np.array(values, np.float32).reshape(50, 3), trainer.predict(x))
    library = next((tmp_path / "installed").rglob("libdeepseek_infer.so"))
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert not any(name in needed for name in ("cairo", "turbojpeg", "libpng", "arrow", "libdeepseek.so"))
