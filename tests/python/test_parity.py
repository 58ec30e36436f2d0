"""Training parity: same model, same initial weights, same batches; losses agree with PyTorch step by step.

PyTorch trains in float64: in float32 a unit near zero can fall on the other side of its ReLU, and its own losses then
part from the exact ones by more than the tolerance.
"""
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import deepseek
from deepseek import _core


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


class Lstm(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.lstm = nn.LSTM(6, width, layers, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.input = nn.Linear(6, width)
        self.position = nn.Parameter(0.02 * torch.randn(7, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.encoder(self.input(x) + self.position).mean(1))


MODELS = {
    "mlp": (mlp, [1, 12, 12], dict(width=32)),
    "small_resnet": (small_resnet, [1, 12, 12], dict(width=4)),
    "lstm": (Lstm, [7, 6], dict(width=8, layers=2)),
    "transformer": (Transformer, [7, 6], dict(width=8, layers=2, heads=2)),
}
OPTIMIZERS = {
    "sgd": (dict(momentum=0.9, nesterov=True, weight_decay=1e-3), lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3), 0.02),
    "adam": (dict(weight_decay=1e-2), lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-2), 1e-3),
    "adamw": (dict(weight_decay=1e-2), lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=1e-2), 1e-3),
    # With a small epsilon the first steps are the gradients' signs, which rounding decides where a gradient is nearly zero.
    "rmsprop": (dict(momentum=0.5, epsilon=1e-3), lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, eps=1e-3), 1e-3),
    "adagrad": (dict(epsilon=1e-8), lambda p: torch.optim.Adagrad(p, 1e-2, eps=1e-8), 1e-2),
}


CASES = [(model, optimizer) for model in MODELS for optimizer in OPTIMIZERS if model in ("mlp", "small_resnet") or optimizer in ("sgd", "adamw")]


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("model, optimizer", CASES)
def test_losses_agree_for_50_steps(model, optimizer, clip_norm, tmp_path):
    # A unit within rounding of its ReLU's kink flips in one of the two now and then, whatever computes it. So a first
    # seed that disagrees must be the only one of three; a wrong gradient disagrees on all.
    try:
        losses_agree(model, optimizer, clip_norm, 3, tmp_path)
    except AssertionError:
        if model not in ("mlp", "small_resnet"):
            raise
        losses_agree(model, optimizer, clip_norm, 4, tmp_path)
        losses_agree(model, optimizer, clip_norm, 5, tmp_path)


def losses_agree(model, optimizer, clip_norm, seed, tmp_path):
    torch.manual_seed(seed)
    options, make_optimizer, rate = OPTIMIZERS[optimizer]
    build, shape, sizes = MODELS[model]
    theirs = build(**sizes)
    model = deepseek.models.create(model, shape, 5, **sizes)
    ours = deepseek.compile(model, "cross_entropy", {"name": optimizer, "learning_rate": rate, **options}, clip_norm=clip_norm)
    state = model.state_dict()
    # The initial weights go through a file that PyTorch writes.
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    for name, tensor in _core.load_safetensors(str(tmp_path / "theirs.safetensors"))[0].items():
        state[name][...] = tensor
    theirs = theirs.double()
    update = make_optimizer(theirs.parameters())
    random = np.random.default_rng(1)
    centres = random.standard_normal((5, *shape))
    for step in range(50):
        y = random.integers(0, 5, 16)
        x = (centres[y] + random.standard_normal((16, *shape))).astype(np.float32)
        loss = nn.functional.cross_entropy(theirs(torch.from_numpy(x).double()), torch.from_numpy(y))
        update.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm)
        update.step()
        tolerance = 1e-4 if step < 10 else 1e-3
        assert ours(x, y) == pytest.approx(loss.item(), rel=tolerance, abs=1e-6), f"step {step}"
    for name, buffer in theirs.named_buffers():
        np.testing.assert_allclose(state[name], buffer.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)
    # The trained weights go back through a file that the engine writes; PyTorch predicts the same with them.
    names = theirs.state_dict()
    _core.save_safetensors(str(tmp_path / "ours.safetensors"), {n: state[n] for n in names}, {})
    twin = build(**sizes)
    twin.load_state_dict(safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    x = torch.from_numpy(x).double()
    np.testing.assert_allclose(twin.double()(x).detach().numpy(), theirs(x).detach().numpy(), rtol=2e-2, atol=5e-3)
