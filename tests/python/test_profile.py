"""deepseek.profile and `deepseek profile`: structure and sums, which hold however fast the machine is."""

import json
import pathlib
import struct
import subprocess

import numpy as np
import pytest

import deepseek
from deepseek import nn

CLI = pathlib.Path(deepseek.__file__).absolute().parents[2] / "deepseek"


def net():
    deepseek.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))


def data(n=100):
    random = np.random.default_rng(0)
    return random.standard_normal((n, 6)).astype(np.float32), random.integers(0, 4, n)


def check(profile, samples):
    """What every profile promises, and that the model's products are counted."""
    products = [n for n in profile["nodes"] if n["op"] == "matmul"]
    # Forward and the weights' gradient of both layers, the input's gradient of the second.
    assert sorted(n["flops"] for n in products) == sorted([2 * samples * 6 * 32] * 2 + [2 * samples * 32 * 4] * 3)
    total = sum(n["ms"] for n in profile["nodes"])
    for key in ("by_scope", "by_op"):
        assert sum(g["ms"] for g in profile[key]) == pytest.approx(total)
        assert sum(g["nodes"] for g in profile[key]) == len(profile["nodes"])
        assert sum(g["flops"] for g in profile[key]) == profile["flops"]
        assert [g["ms"] for g in profile[key]] == sorted((g["ms"] for g in profile[key]), reverse=True)
    layers = {g["name"]: g for g in profile["by_scope"]}
    assert {"0", "1", "3", "loss", "optimizer", "copies"} <= set(layers)
    assert layers["0"]["forward_ms"] > 0 and layers["0"]["backward_ms"] > 0 and layers["0"]["update_ms"] == 0
    assert layers["optimizer"]["forward_ms"] == 0 and layers["optimizer"]["update_ms"] > 0
    assert profile["peak"]["flops_per_second"] > 0 and profile["peak"]["device"].startswith(deepseek.isa())
    assert len(profile["hints"]) <= 8


def check_trace(trace):
    step, *nodes = trace["traceEvents"]
    at = step["ts"]
    for event in nodes:
        assert event["ph"] == "X" and set(event["args"]) == {"scope", "types", "flops", "bytes"}
        assert event["ts"] >= at - 1e-3
        at = event["ts"] + event["dur"]
    assert at <= step["ts"] + step["dur"] + 1e-3


def test_profile_of_a_model(tmp_path):
    model = net().eval()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    profile = deepseek.profile(model, data(), optimizer="adamw", steps=3, warmup=1, batch_size=40)
    for name, value in model.state_dict().items():  # weights and running statistics
        np.testing.assert_array_equal(value, before[name])
    assert not model.training
    check(profile.to_dict(depth=1), 40)
    assert profile.to_dict()["steps"] == 3
    assert str(profile).startswith("a training step of 40 samples: ")
    assert "the slowest 2 of" in profile.text(depth=1, nodes=2)
    assert profile.hints == profile.to_dict()["hints"]
    profile.save_trace(str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert len(trace["traceEvents"]) == 1 + len(profile.to_dict()["nodes"])
    check_trace(trace)


def test_a_trainer_profiles_and_then_trains():
    trainer = deepseek.Trainer(net(), loss=lambda p, t: deepseek.ops.mean(deepseek.ops.cross_entropy(p, t)), epochs=1, batch_size=1000)
    check(trainer.profile(data(), steps=1).to_dict(depth=1), 100)  # fewer samples than a batch
    plain = deepseek.Trainer(net(), loss="cross_entropy", epochs=1, batch_size=1000)
    assert trainer.fit(data(), progress=False)[0]["training"]["loss"] == pytest.approx(plain.fit(data(), progress=False)[0]["training"]["loss"])


def test_a_step_of_ones_own_counts_as_the_profile_does():
    x, y = data(40)
    step = deepseek.compile(net(), optimizer="adamw")
    step(x, y)
    expected = deepseek.profile(net(), (x, y), optimizer="adamw", steps=1, batch_size=40).to_dict()
    assert sum(n["flops"] for n in step.profile(x, y)) == expected["flops"]
    assert deepseek._core.measure_peak().keys() == {"flops_per_second", "bytes_per_second"}


def test_profile_refuses_no_steps_and_bad_data():
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        deepseek.profile(net(), data(), steps=0)
    with pytest.raises(ValueError, match="expected equal inner sizes"):
        deepseek.profile(net(), (np.zeros((10, 5), np.float32), np.zeros(10, np.int64)))


@pytest.fixture
def config(tmp_path):
    """A run on 64 random pictures of 8 x 8 pixels, in the files of MNIST."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        (tmp_path / f"{part}_images").write_bytes(struct.pack(">IIII", 0x803, 64, 8, 8) + random.bytes(64 * 64))
        (tmp_path / f"{part}_labels").write_bytes(struct.pack(">II", 0x801, 64) + bytes(i % 4 for i in range(64)))
    files = "".join(f"  {key}: {tmp_path / key}\n" for key in ("train_images", "train_labels", "test_images", "test_labels"))
    path = tmp_path / "run.yaml"
    path.write_text(f"data:\n  name: idx\n  validation_fraction: 0\n{files}  class_names: a,b,c,d\nmodel:\n  name: small_resnet\n  width: 4\n"
                    f"train:\n  batch_size: 16\n  output: {tmp_path / 'run'}\n")
    return path


def run(*args):
    return subprocess.run([CLI, *map(str, args)], capture_output=True, text=True)


def test_the_command_writes_text_json_and_a_trace(config):
    folder = config.parent
    done = run("profile", config, "--set", "train.batch_size=32", "--steps", 2, "--depth", 1, "--nodes", 3, "--json", folder / "p.json", "--trace",
               folder / "t.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small_resnet on idx, a training step of 32 samples: ")
    for part in ("\npeak ", "\nby layer\n", "\nby op and implementation\n", "\nthe slowest 3 of "):
        assert part in done.stdout
    profile = json.loads((folder / "p.json").read_text())
    assert {"conv", "conv_weight_grad"} & {n["op"].removeprefix("blocked_") for n in profile["nodes"]}
    check_trace(json.loads((folder / "t.json").read_text()))
    assert not (folder / "run").exists()  # nothing was trained


def test_the_command_refuses_wrong_use(config):
    assert run("profile", config, "--steps", 0).returncode == 2
    assert "train.batchsize" in run("profile", config, "--set", "train.batchsize=1").stderr
    done = run("profile", config, "--trace", config.parent / "none" / "t.json")
    assert done.returncode == 1 and "none" in done.stderr


def test_devices_show_the_peak_when_asked():
    assert "peak" not in run("devices").stdout
    assert "GFLOP/s" in run("devices", "--measure").stdout
