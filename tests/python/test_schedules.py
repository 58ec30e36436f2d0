"""Learning rates over time: an SGD step on loss = w moves w by exactly the rate; PyTorch's schedulers are the yardstick."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, optim


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(np.zeros(1, np.float32))

    def forward(self, x):
        return x * 0 + self.w


def rates(schedule, steps=8, epochs=8):
    """The rates of `steps` updates; the monitored value gets worse in every epoch but the first."""
    model, moved = One(), [0.0]
    trainer = deepseek.Trainer(model, loss=lambda p, t: p.mean(), optimizer=optim.SGD(lr=1.0), schedule=schedule, metrics=["mae"], epochs=epochs,
                               batch_size=4)
    trainer.fit((np.zeros((4 * steps // epochs, 1), np.float32), np.full((4 * steps // epochs, 1), 100, np.float32)), progress=False,
                callback=lambda _: moved.append(float(model.w.data[0])))
    return -np.diff(moved)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle", {"warmup": 0.5}, None])
def test_only_plateau_looks_at_the_monitor(schedule):
    w = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([w], lr=1.0)
    schedulers = torch.optim.lr_scheduler
    if schedule == "cosine":
        scheduler = schedulers.CosineAnnealingLR(sgd, 8)
    elif schedule == "one_cycle":
        scheduler = schedulers.OneCycleLR(sgd, 1.0, total_steps=8, pct_start=0.3, div_factor=25, final_div_factor=1e15, cycle_momentum=False)
    elif isinstance(schedule, dict):
        scheduler = schedulers.LinearLR(sgd, 0.25, 1, 3)
    else:
        scheduler = schedulers.ConstantLR(sgd, 1.0)
    theirs = []
    for _ in range(8):
        theirs.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step() if len(theirs) < 8 else None
    np.testing.assert_allclose(rates(schedule), theirs, atol=1e-5)


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 100])
def test_one_cycle_ends_at_its_final_factor(total):
    w = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([w], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(sgd, 1.0, total_steps=total, pct_start=0.3, div_factor=25, final_div_factor=1 / (25 * 0.01),
                                                    cycle_momentum=False)
    theirs = []
    for i in range(total):
        theirs.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if i + 1 < total:
            scheduler.step()
    ours = rates({"name": "one_cycle", "final_factor": 0.01}, total, total)
    assert ours[-1] == pytest.approx(0.01, abs=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def nan_in_every_epoch(**options):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 4)).astype(np.float32), random.integers(0, 2, 64)
    trainer = deepseek.Trainer(nn.Linear(4, 2), metrics=["auc"], **options)
    history = trainer.fit((x, y), validation=(x[:16], np.ones(16, np.int64)), progress=False)  # auc of one class
    assert all(np.isnan(e["validation"]["auc"]) for e in history)
    return trainer, history


def test_patience_ends_with_a_monitor_that_is_nan_from_the_start(tmp_path):
    trainer, history = nan_in_every_epoch(patience=2, epochs=12, output=str(tmp_path / "run"))
    assert len(history) == 2
    assert "auc has not been a number for 2 epochs" in (tmp_path / "run" / "log.txt").read_text()
    best = deepseek.load(tmp_path / "run" / "best.safetensors")  # the last weights, as none were better
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(best[name], value)


def test_plateau_drops_with_a_monitor_that_is_nan():
    _, history = nan_in_every_epoch(optimizer="sgd", schedule={"name": "plateau", "patience": 0}, epochs=4)
    w = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([w], lr=history[0]["learning_rate"])
    plateau, theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, mode="max", patience=0, eps=0), []
    for _ in history:
        theirs.append(sgd.param_groups[0]["lr"])
        plateau.step(float("nan"))
    np.testing.assert_allclose([e["learning_rate"] for e in history], theirs)


def test_more_updates_than_can_be_counted():
    for options in ({"epochs": 2**60}, {"epochs": 2**63 - 1}):
        with pytest.raises(ValueError, match="train.epochs: .* are more than"):
            deepseek.Trainer(nn.Linear(4, 2), batch_size=1, **options).fit((np.zeros((9, 4), np.float32), np.zeros(9, int)), progress=False)
    history = deepseek.Trainer(nn.Linear(4, 2), epochs=1, batch_size=2**62, accumulate=2**63 - 1).fit(
        (np.zeros((9, 4), np.float32), np.arange(9) % 2), progress=False)
    assert len(history) == 1
