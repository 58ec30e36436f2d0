"""Mixed precision: the same training as PyTorch under autocast, no reference kernels, and the same without bf16 instructions."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from test_parity import MODELS
from torch import nn

import deepseek
from deepseek import _core

STEPS = 40


def batches(shape, steps=STEPS):
    random = np.random.default_rng(1)
    centres = random.standard_normal((5, *shape))
    for _ in range(steps):
        y = random.integers(0, 5, 16)
        yield (centres[y] + random.standard_normal((16, *shape))).astype(np.float32), y


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_losses_follow_autocast(name, precision, tmp_path):
    """bfloat16 beside autocast in bfloat16, which rounds elsewhere; float16, which rounds less, beside float32."""
    torch.manual_seed(3)
    build, shape, sizes = MODELS[name]
    theirs = build(**sizes)
    model = deepseek.models.create(name, shape, 5, **sizes)
    ours = deepseek.compile(model, "cross_entropy", {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9}, precision=precision)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    state = model.state_dict()
    for key, tensor in _core.load_safetensors(str(tmp_path / "theirs.safetensors"))[0].items():
        state[key][...] = tensor
    update = torch.optim.SGD(theirs.parameters(), 0.02, momentum=0.9)
    got, wanted = [], []
    for x, y in batches(shape):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            try:
                loss = nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
            except RuntimeError as error:
                if "could not create a primitive" not in str(error):
                    raise
                pytest.skip(f"PyTorch has no {precision} {name} on this CPU: {error}")
        update.zero_grad()
        loss.backward()
        update.step()
        wanted.append(loss.item())
        got.append(ours(x, y))
    # Relative to the first loss: where the data is learned, losses near zero are all noise. Rounding turns units near
    # zero off or on, of which the ResNet has many; with tanh in place of ReLU, float16's gradients agree to 1e-3.
    tolerance = 0.03 if precision == "bfloat16" or name == "small_resnet" else 0.01
    # PyTorch's own sums differ from CPU to CPU, so that one step of all may be further off.
    off = np.sort(np.abs(np.subtract(got, wanted))) / wanted[0]
    assert off[-2] <= tolerance and off[-1] <= 1.5 * tolerance, off[-5:]
    assert np.mean(wanted[-10:]) < np.mean(wanted[:10])
    state = ours.state()
    assert all(array.dtype in (np.float32, np.int64) for array in state.values())  # the master weights and all else
    if precision == "float16":
        assert state["loss_scale/scale"] == 65536 and state["loss_scale/skipped"] == 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_no_node_falls_to_the_reference(name, precision):
    _, shape, sizes = MODELS[name]
    step = deepseek.compile(deepseek.models.create(name, shape, 5, **sizes), "cross_entropy", "adamw", clip_norm=1, precision=precision)
    nodes = step.profile(*next(batches(shape)))
    assert [n for n in nodes if n["implementation"].startswith("reference")] == []
    products = [n for n in nodes if n["op"] == "matmul" or n["op"].startswith("conv")]
    assert products and all("bf16[" in n["types"] if precision == "bfloat16" else "f16[" in n["types"] for n in products)
    native = precision == "bfloat16" and deepseek.isa() == "avx512_bf16"
    assert all(n["implementation"].startswith("onednn" if native else "upcast") for n in products)


EMULATED = """
import json, sys
sys.path.insert(0, {tests!r})
import deepseek, test_mixed_precision as t
deepseek.manual_seed(0)
_, shape, sizes = t.MODELS["small_resnet"]
step = deepseek.compile(deepseek.models.create("small_resnet", shape, 5, **sizes), "cross_entropy", "adamw", precision="bfloat16")
losses = [step(x, y) for x, y in t.batches(shape, 10)]
nodes = step.profile(*next(t.batches(shape)))
print(json.dumps([losses, [n["implementation"] for n in nodes if n["op"] == "conv"]]))
"""


def test_without_bf16_instructions_it_is_emulated():
    """oneDNN is told of a lesser CPU, as those without bf16 are."""
    code = EMULATED.format(tests=os.path.dirname(__file__))
    runs = [json.loads(subprocess.run([sys.executable, "-c", code], env={**os.environ, **extra}, check=True, capture_output=True, text=True).stdout)
            for extra in ({}, {"ONEDNN_MAX_CPU_ISA": "AVX2"})]
    assert all(name.startswith("upcast") for name in runs[1][1]), runs[1][1]
    np.testing.assert_allclose(runs[1][0], runs[0][0], atol=0.02 * runs[0][0][0], rtol=0)


def test_trainer_takes_the_options():
    x = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    losses = {}
    for precision in ("float32", "bfloat16", "float16", "auto"):
        deepseek.manual_seed(0)
        model = deepseek.nn.Sequential(deepseek.nn.Linear(2, 16), deepseek.nn.Tanh(), deepseek.nn.Linear(16, 2))
        trainer = deepseek.Trainer(model, "cross_entropy", deepseek.optim.AdamW(lr=0.02), epochs=5, precision=precision, loss_scale_interval=10)
        history = trainer.fit((x, y), progress=False)
        losses[precision] = history[-1]["training"]["loss"]
        assert ("skipped_updates" in history[-1]["training"]) == (precision == "float16")
    assert max(losses.values()) - min(losses.values()) < 0.03, losses
    assert losses["float32"] != losses["bfloat16"] != losses["float16"]
    with pytest.raises(ValueError, match="'train.precision' expected one of auto, float32, bfloat16, float16, got 'fp8'"):
        deepseek.Trainer(model, precision="fp8")
