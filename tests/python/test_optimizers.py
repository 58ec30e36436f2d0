"""Optimisers' defaults are the rule's own wherever it is named, and decays near 1 keep their digits; against PyTorch."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, optim

RULES = {"sgd": (optim.SGD, lambda p: torch.optim.SGD(p, lr=0.05)), "adam": (optim.Adam, torch.optim.Adam), "adamw": (optim.AdamW, torch.optim.AdamW),
         "rmsprop": (optim.RMSprop, torch.optim.RMSprop), "adagrad": (optim.Adagrad, torch.optim.Adagrad)}


def weights(optimizer, steps=5, x=None):
    deepseek.manual_seed(0)
    model = nn.Linear(3, 2)
    start = {name: value.copy() for name, value in model.state_dict().items()}
    step = deepseek.compile(model, "mse_loss", optimizer)
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(4, 3)).astype(np.float32), random.normal(size=(4, 2)).astype(np.float32)) for _ in range(steps)]
    for x, y in batches:
        step(x, y)
    return start, batches, {name: value.copy() for name, value in model.state_dict().items()}


def torch_weights(start, batches, make):
    model = torch.nn.Linear(3, 2).double()
    model.load_state_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()})
    optimizer = make(model.parameters())
    for x, y in batches:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(torch.tensor(x).double()), torch.tensor(y).double()).backward()
        optimizer.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", RULES)
def test_defaults_are_the_same_by_name_by_class_and_in_torch(name):
    rule, theirs = RULES[name]
    start, batches, by_name = weights(name)
    for other in (rule(), {"name": name}):
        _, _, values = weights(other)
        for key in by_name:
            np.testing.assert_array_equal(values[key], by_name[key])
    for key, value in torch_weights(start, batches, theirs).items():
        np.testing.assert_allclose(by_name[key], value, rtol=2e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name, rate", [("sgd", 0.05), ("adam", 1e-3), ("adamw", 1e-3), ("lamb", 1e-3), ("rmsprop", 1e-2), ("adagrad", 1e-2),
                                        ("lion", 1e-4)])
def test_learning_rates_in_a_trainer_and_a_run_folder(name, rate, tmp_path):
    for i, optimizer in enumerate([name, {"name": name}, {"name": name, "learning_rate": "auto"}]):
        trainer = deepseek.Trainer(nn.Linear(3, 2), "mse_loss", optimizer, epochs=1, output=str(tmp_path / str(i)))
        history = trainer.fit((np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32)), progress=False)
        assert history[0]["learning_rate"] == rate
        assert f"learning_rate: {rate}\n" in (tmp_path / str(i) / "config.yaml").read_text().replace("1e-04", "0.0001")


@pytest.mark.parametrize("rule, beta1, beta2", [("Adam", 0.9, 1 - 1e-8), ("Adam", 1 - 1e-7, 1 - 1e-9), ("AdamW", 1 - 1e-6, 0.9999999), ("Adam", 0.0, 0.0)])
def test_decays_near_one(rule, beta1, beta2):
    start, batches, ours = weights(getattr(optim, rule)(lr=0.01, beta1=beta1, beta2=beta2))
    theirs = torch_weights(start, batches, lambda p: getattr(torch.optim, rule)(p, lr=0.01, betas=(beta1, beta2)))
    for key, value in theirs.items():
        assert np.abs(value - start[key]).max() > 0.005
        np.testing.assert_allclose(ours[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_a_decay_of_one_is_refused(name):
    with pytest.raises(ValueError, match=f"optimizer.{name}: expected a number in .0, 1., got 1"):
        weights(optim.Adam(**{name: 1.0}))


def test_an_average_with_a_decay_near_one():
    """next + (average - next) * decay has no digits left for 1 - decay; the sum of small moves must not be lost."""
    model = nn.Linear(1, 1, bias=False)
    model.state_dict()["weight"][...] = 0
    step = deepseek.compile(model, lambda p, t: p.mean(), optim.SGD(lr=1.0), ema_decay=1 - 1e-9)
    step.steps = 10**11  # the decay has grown to its limit
    average, w = 0.0, 0.0
    for _ in range(50):
        step(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
        w -= 1
        average += (w - average) * 1e-9
    assert step.state()["ema/weight"].item() == pytest.approx(average, rel=1e-4)
