"""A loss or gradient that is not finite is found: its layer and op, the update, and a file that shows it again."""

import numpy as np
import pytest

import deepseek
from deepseek import nn, ops, optim


class Risky(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.second(ops.log(ops.abs(self.first(x)) * x.reshape(-1, 4)))


def data(bad):
    x = np.abs(np.random.default_rng(0).normal(size=(32, 4))).astype(np.float32) + 1
    if bad is not None:
        x[bad] = -1.0  # whose logarithm is none
    return x, x.sum(1)


def test_the_first_layer_and_op_of_a_nan(tmp_path):
    deepseek.manual_seed(0)
    trainer = deepseek.Trainer(Risky(), epochs=1, batch_size=8, check_numerics=True, output=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"at update \d \(epoch 1, batch \d\) the loss is not finite; it begins where log gives 4 nan of f32\[8,4\]"):
        trainer.fit(data(13), progress=False)
    kept = deepseek.load(tmp_path / "run" / "not_finite.safetensors")
    assert (kept["batch/x"] == -1).any() and kept["batch/x"].shape == (8, 4) and "first.weight" in kept
    assert np.isnan(Risky()(kept["batch/x"])).any()


def test_training_is_the_same_where_all_is_finite():
    histories = []
    for check in (False, True):
        deepseek.manual_seed(0)
        trainer = deepseek.Trainer(Risky(), optimizer=optim.SGD(lr=1e-3), epochs=2, batch_size=8, check_numerics=check)
        histories.append([e["training"] for e in trainer.fit(data(None), progress=False)])
    assert histories[0] == histories[1]


def test_without_it_the_error_says_how():
    with pytest.raises(ValueError, match="the loss is nan at update .* train.check_numerics tells where it comes from"):
        deepseek.Trainer(Risky(), epochs=1, batch_size=8).fit(data(13), progress=False)
