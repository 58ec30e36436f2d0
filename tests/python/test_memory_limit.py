"""Training under a memory limit: the same losses in less memory, and errors that say what to do."""

import re
import subprocess
import sys

import numpy as np
import pytest

import deepseek


def make_step(model, memory=None):
    return deepseek.compile(model, "cross_entropy", deepseek.optim.AdamW(lr=1e-3), memory=memory)


def make_case(name):
    rng = np.random.default_rng(0)
    if name == "transformer":
        layer = deepseek.nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, dropout=0.1, batch_first=True)
        model = deepseek.nn.Sequential(deepseek.nn.TransformerEncoder(layer, 4), deepseek.nn.Flatten(), deepseek.nn.Linear(64 * 32, 5))
        return model, rng.standard_normal((16, 64, 32), np.float32), rng.integers(0, 5, 16)
    model = deepseek.models.create(name, (3, 32, 32), 10, width=16) if name == "resnet18" else deepseek.models.create(name, (1, 16, 16, 16), 2, channels=(8, 16))
    shape = (16, 3, 32, 32) if name == "resnet18" else (4, 1, 16, 16, 16)
    labels = rng.integers(0, 10, 16) if name == "resnet18" else rng.integers(0, 2, (4, 16, 16, 16))
    return model, rng.standard_normal(shape, np.float32), labels


@pytest.mark.parametrize("name", ["resnet18", "unet3d", "transformer"])
@pytest.mark.parametrize("share", [0.85, 0.7])
def test_same_losses_in_less_memory(name, share):
    model, x, y = make_case(name)
    start = {key: np.array(value) for key, value in model.state_dict().items()}
    free = make_step(model)
    expected = [free(x, y) for _ in range(3)]
    assert free.notes == []
    state = sum(value.nbytes for value in free.state().values())
    limit = int(state + share * (free.memory_bytes - state))
    model.load_state_dict(start)
    step = make_step(model, memory=f"{limit}")
    losses = [step(x, y) for _ in range(3)]
    assert step.memory_bytes <= limit < free.memory_bytes
    assert re.match(r".* would not fit in the memory limit of .*: \d+ values are computed again", step.notes[0])
    # The first step is the same sum in another order at most; later ones amplify rounding.
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(losses, expected, rtol=2e-3)


def test_errors_say_what_to_do():
    model, x, y = make_case("resnet18")
    with pytest.raises(ValueError, match=r"the program needs .* the limit is 64\.0 KiB; use smaller batches, or raise the limit"):
        make_step(model, memory="64KiB")(x, y)
    with pytest.raises(ValueError, match=r"expected an amount of memory such as 8GiB or 500MB, got 'much'[\s\S]*memory\.limit"):
        make_step(model, memory="much")(x, y)
    with pytest.raises(ValueError, match=r"expected a share such as 20% or 0\.2, below 1, got '120%'[\s\S]*memory\.reserve"):
        make_step(model, memory={"reserve": "120%"})(x, y)
    with pytest.raises(ValueError, match="memory.limt"):
        make_step(model, memory={"limt": "1GiB"})


def test_reserve_bounds_the_limit():
    model, x, y = make_case("resnet18")
    with pytest.raises(ValueError, match="the limit is"):
        make_step(model, memory={"limit": "1TiB", "reserve": "99.9999%"})(x, y)


def test_trainer_says_so():
    model, x, y = make_case("resnet18")
    free = make_step(model)
    free(x, y)
    code = f"""
import numpy as np, deepseek
model = deepseek.models.create("resnet18", (3, 32, 32), 10, width=16)
x = np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32)
y = np.arange(16) % 10
deepseek.Trainer(model, optimizer=deepseek.optim.AdamW(lr=1e-3), memory="{int(free.memory_bytes * 0.93)}", epochs=1, batch_size=16).fit((x, y))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "a step takes" in run.stderr
    assert "values are computed again" in run.stderr
