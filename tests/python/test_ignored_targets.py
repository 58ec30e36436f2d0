"""Targets that don't count (ignore_index): losses, gradients and metrics are those of the others, however batches are cut."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, optim

N, T, C = 8, 6, 5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        deepseek.manual_seed(0)
        self.conv = nn.Conv1d(4, C, 1, bias=False)

    def forward(self, x):
        return self.conv(x)


def sequences(ignored):
    """Sequences of many lengths, two of which are nothing but padding."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(N, 4, T)).astype(np.float32), random.integers(1, C, (N, T))
    for i, length in enumerate([6, 6, 6, 6, 1, 1, 0, 0]):
        y[i, length:] = ignored
    return x, y


def torch_loss(weight, x, y, ignored):
    logits = torch.nn.functional.conv1d(torch.tensor(x), weight)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(y), ignore_index=ignored)


@pytest.mark.parametrize("ignored", [0, -100, 255])
@pytest.mark.parametrize("size, accumulate", [(8, 1), (2, 4), (1, 8), (3, 3)])
def test_micro_batches_are_one_batch(ignored, size, accumulate):
    x, y = sequences(ignored)
    model = Net()
    start = model.state_dict()["conv.weight"].copy()
    weight = torch.tensor(start, requires_grad=True)
    loss = torch_loss(weight, x, y, ignored)
    loss.backward()
    history = deepseek.Trainer(model, loss={"name": "cross_entropy", "ignore_index": ignored}, optimizer=optim.SGD(lr=1.0), batch_size=size,
                               accumulate=accumulate, epochs=1).fit((x, y), progress=False)
    np.testing.assert_allclose(start - model.state_dict()["conv.weight"], weight.grad.numpy(), atol=1e-5)
    assert history[0]["training"]["loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_an_update_of_nothing_but_padding_changes_nothing():
    x, y = sequences(-100)
    y[:] = -100
    y[0] = 1
    model = Net()
    start = model.state_dict()["conv.weight"].copy()
    weight = torch.tensor(start, requires_grad=True)
    torch_loss(weight, x, y, -100).backward()
    trainer = deepseek.Trainer(model, optimizer=optim.SGD(lr=1.0), batch_size=1, epochs=1)  # eight updates, one with targets
    history = trainer.fit((x, y), progress=False)
    np.testing.assert_allclose(start - model.state_dict()["conv.weight"], weight.grad.numpy(), atol=1e-5)
    assert np.isfinite(history[0]["training"]["loss"])
    y[0] = -100
    assert np.isnan(deepseek.Trainer(Net(), batch_size=4, epochs=1).fit((x, y), progress=False)[0]["training"]["loss"])


@pytest.mark.parametrize("ignored", [0, -100, 255])
def test_evaluation_weighs_by_targets(ignored):
    x, y = sequences(ignored)
    x, y = np.tile(x, (64, 1, 1)), np.repeat(y, 64, 0)  # two batches of 256; the second is mostly padding
    model = Net()
    got = deepseek.Trainer(model, loss={"name": "cross_entropy", "ignore_index": ignored}).evaluate((x, y))
    weight = torch.tensor(model.state_dict()["conv.weight"])
    used = y != ignored
    assert got["loss"] == pytest.approx(torch_loss(weight, x, y, ignored).item(), abs=1e-5)
    predicted = torch.nn.functional.conv1d(torch.tensor(x), weight).argmax(1).numpy()
    assert got["accuracy"] == pytest.approx((predicted == y)[used].mean())
    assert got["confusion"].sum() == used.sum()


def test_a_data_set_names_them():
    x, y = sequences(255)
    data = deepseek.data.Dataset(x, y, ignore_index=255)
    assert len(data.class_names) == C and data.ignore_index == 255
    pair = deepseek.Trainer(Net(), loss={"name": "cross_entropy", "ignore_index": 255}).evaluate((x, y))
    assert deepseek.Trainer(Net()).evaluate(data)["loss"] == pair["loss"]  # the loss leaves out what the data says
    with pytest.raises(ValueError, match="loss.ignore_index is 1, the data's is 255"):
        deepseek.Trainer(Net(), loss={"name": "cross_entropy", "ignore_index": 1}).evaluate(data)
    with pytest.raises(ValueError, match="label of sample 4 is -100, expected 0 to 4 .5 classes.; targets that do not count need ignore_index"):
        deepseek.data.Dataset(*sequences(-100))
    with pytest.raises(ValueError, match="label of sample 0 is 7, expected 0 to 4 .5 classes. or 255, which is ignored"):
        deepseek.data.Dataset(x, np.where(y == 1, 7, y), [str(i) for i in range(C)], ignore_index=255)


def test_mixed_samples_need_a_class_each():
    x, y = np.zeros((4, 1, 8, 8), np.float32), np.array([0, 1, -100, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(ValueError, match="need a class for each sample, some of 'y' have the ignored label -100"):
        deepseek.Trainer(model, augmentation={"methods": ["mixup"]}).fit((x, y), progress=False)
