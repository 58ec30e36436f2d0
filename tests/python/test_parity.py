"""Training parity: same model, same initial weights, same batches; losses agree with PyTorch step by step.

PyTorch trains in float64: in float32 a unit near zero can fall on the other side of its ReLU, and its own losses then
part from the exact ones by more than the tolerance.
"""
import numpy as np
import pytest
import torch
from torch import nn

import deepseek


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class GlobalAverage(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def small_resnet(width):
    return nn.Sequential(nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), BasicBlock(width, width, 1),
                         BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 4 * width, 2), GlobalAverage(), nn.Linear(4 * width, 5))


def mlp(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(144, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5))


MODELS = {"mlp": (mlp, 32), "small_resnet": (small_resnet, 4)}
OPTIMIZERS = {
    "sgd": (dict(momentum=0.9, nesterov=True, weight_decay=1e-3), lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3), 0.02),
    "adam": (dict(weight_decay=1e-2), lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-2), 1e-3),
    "adamw": (dict(weight_decay=1e-2), lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=1e-2), 1e-3),
    "rmsprop": (dict(momentum=0.5), lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5), 1e-3),
    "adagrad": (dict(), lambda p: torch.optim.Adagrad(p, 1e-2, eps=1e-8), 1e-2),
}


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_losses_agree_for_50_steps(model, optimizer, clip_norm):
    torch.manual_seed(3)
    options, make_optimizer, rate = OPTIMIZERS[optimizer]
    build, width = MODELS[model]
    theirs = build(width).double()
    ours = deepseek.Step(model, [1, 12, 12], 5, {"width": str(width)}, 16, optimizer, clip_norm=clip_norm, **options)
    state = ours.state()
    for name, tensor in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            state[name][...] = tensor.numpy()
    update = make_optimizer(theirs.parameters())
    random = np.random.default_rng(1)
    centres = random.standard_normal((5, 1, 12, 12))
    for step in range(50):
        y = random.integers(0, 5, 16)
        x = (centres[y] + random.standard_normal((16, 1, 12, 12))).astype(np.float32)
        loss = nn.functional.cross_entropy(theirs(torch.from_numpy(x).double()), torch.from_numpy(y))
        update.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
        update.step()
        tolerance = 1e-4 if step < 10 else 1e-3
        assert ours.run(x, y, rate) == pytest.approx(loss.item(), rel=tolerance, abs=1e-6), f"step {step}"
    for name, buffer in theirs.named_buffers():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(state[name], buffer.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


def test_bad_input_names_the_input_and_both_types():
    step = deepseek.Step("mlp", [4], 3, {"width": "8"}, 2, "sgd")
    with pytest.raises(ValueError, match=r"input 'x': expected f32\[2,4\], got f32\[3,4\]"):
        step.run(np.zeros((3, 4), np.float32), np.zeros(2, np.int64), 0.1)
    with pytest.raises(ValueError, match="there is no model 'mpl'"):
        deepseek.Step("mpl", [4], 3, {}, 2, "sgd")
    with pytest.raises(ValueError, match="there is no optimizer 'sdg'; known are: sgd, adam"):
        deepseek.Step("mlp", [4], 3, {}, 2, "sdg")
