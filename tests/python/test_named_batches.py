"""Batches of named tensors: several inputs, targets, outputs and terms of a loss, equal to PyTorch's."""

import pickle

import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, ops, optim

RNG = np.random.default_rng(0)
N = 24


class Both(nn.Module):
    """A picture and a row of a table; a class and a number."""

    def __init__(self):
        super().__init__()
        self.conv, self.table = nn.Conv2d(1, 3, 3), nn.Linear(5, 4)
        self.kind, self.value = nn.Linear(3 * 4 * 4 + 4, 3), nn.Linear(3 * 4 * 4 + 4, 1)

    def forward(self, image, table):
        h = ops.concat(ops.relu(self.conv(image)).reshape(image.shape[0], -1), ops.tanh(self.table(table)), axis=1)
        return {"kind": self.kind(h), "value": self.value(h)[:, 0]}


class TorchBoth(torch.nn.Module):
    def __init__(self, like):
        super().__init__()
        self.conv, self.table = torch.nn.Conv2d(1, 3, 3), torch.nn.Linear(5, 4)
        self.kind, self.value = torch.nn.Linear(52, 3), torch.nn.Linear(52, 1)
        self.load_state_dict({name: torch.tensor(np.array(value)) for name, value in like.state_dict().items()})

    def forward(self, image, table):
        h = torch.cat([torch.relu(self.conv(image)).flatten(1), torch.tanh(self.table(table))], 1)
        return {"kind": self.kind(h), "value": self.value(h)[:, 0]}


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(N, 5)).astype(np.float32)
    return {"image": rng.normal(size=(N, 1, 6, 6)).astype(np.float32), "table": table, "kind": rng.integers(0, 3, N), "value": table.sum(1)}


def two_terms(out, batch):
    return {"kind": ops.cross_entropy(out["kind"], batch["kind"]), "value": (ops.mse_loss(out["value"], batch["value"]), 0.25)}


def test_twenty_steps_with_two_inputs_outputs_and_terms_equal_pytorchs(batch):
    deepseek.manual_seed(0)
    model = Both()
    reference = TorchBoth(model)
    step = deepseek.compile(model, two_terms, optim.AdamW(lr=0.01, weight_decay=0.02))
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.02)
    given = {name: torch.tensor(values) for name, values in batch.items()}
    for _ in range(20):
        out = reference(given["image"], given["table"])
        terms = {"kind": torch.nn.functional.cross_entropy(out["kind"], given["kind"]), "value": torch.nn.functional.mse_loss(out["value"], given["value"])}
        expected = terms["kind"] + 0.25 * terms["value"]
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert step(batch) == pytest.approx(expected.item(), rel=1e-4)
        assert step.loss_terms == pytest.approx({name: term.item() for name, term in terms.items()}, rel=1e-4)
        for name, value in step.prediction.items():
            np.testing.assert_allclose(value, out[name].detach().numpy(), rtol=1e-4, atol=1e-4)
    for name, value in reference.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], value.numpy(), rtol=1e-4, atol=1e-4)


def test_default_losses_and_metrics_are_those_of_each_target(batch):
    deepseek.manual_seed(0)
    trainer = deepseek.Trainer(Both(), optimizer=optim.Adam(lr=0.01), epochs=30, batch_size=8)
    history = trainer.fit(batch, validation=batch, progress=False)
    assert set(history[-1]["validation"]) == {"loss", "loss/kind", "loss/value", "kind/accuracy", "value/mae", "value/rmse", "value/r2"}
    result = trainer.evaluate(batch)
    out = trainer.predict({"image": batch["image"], "table": batch["table"]})
    assert result["kind/accuracy"] == pytest.approx((out["kind"].argmax(1) == batch["kind"]).mean())
    assert result["value/mae"] == pytest.approx(np.abs(out["value"] - batch["value"]).mean(), rel=1e-5)
    logits = torch.tensor(out["kind"])
    kind = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["kind"])).item()
    assert result["loss/kind"] == pytest.approx(kind, rel=1e-5)
    assert result["loss"] == pytest.approx(result["loss/kind"] + result["loss/value"], rel=1e-6)
    assert result["confusion"].sum() == N
    assert result["value/r2"] > 0.3 and history[-1]["training"]["loss"] < history[0]["training"]["loss"]


def test_trained_with_a_loss_of_outputs_and_batch_without_metrics(batch):
    trainer = deepseek.Trainer(Both(), loss=two_terms, metrics=None, epochs=2, batch_size=8)
    history = trainer.fit(batch, progress=False)
    assert set(history[0]["training"]) == {"loss", "loss/kind", "loss/value"}
    assert history[0]["validation"] == {}


def test_metrics_of_one_target(batch):
    trainer = deepseek.Trainer(Both(), metrics=["kind/top2", "r2"], epochs=1)
    trainer.fit(batch, progress=False)
    assert set(trainer.evaluate(batch)) == {"loss", "loss/kind", "loss/value", "kind/top2", "value/r2", "confusion"}
    with pytest.raises(ValueError, match="nothing is compared with a target 'kin'; targets: kind, value"):
        deepseek.Trainer(Both(), metrics=["kin/accuracy"], epochs=1).fit(batch, progress=False)


def test_a_monitor_of_one_target(batch):
    trainer = deepseek.Trainer(Both(), monitor="value/mae", epochs=3)
    assert len(trainer.fit(batch, validation=batch, progress=False)) == 3
    with pytest.raises(ValueError, match="train.monitor: 'mae' is neither loss nor one of"):
        deepseek.Trainer(Both(), monitor="mae", epochs=1).fit(batch, progress=False)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, left, right=None):
        y = self.a(left)
        return y if right is None else y + self.b(right)


def test_inputs_as_a_tuple_and_inputs_that_may_be_missing():
    left, right, y = RNG.normal(size=(6, 3)).astype(np.float32), RNG.normal(size=(6, 4)).astype(np.float32), RNG.integers(0, 2, 6)
    model = Two()
    trainer = deepseek.Trainer(model, epochs=1)
    trainer.fit(((left, right), y), progress=False)
    model.eval()
    np.testing.assert_allclose(trainer.predict((left, right)), model(left, right), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trainer.predict({"right": right, "left": left}), model(left, right), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trainer.predict(left), model(left), rtol=1e-5, atol=1e-6)
    step = deepseek.compile(model)
    assert np.isfinite(step((left, right), y)) and np.isfinite(step(left, y)) and np.isfinite(step({"left": left, "right": right, "y": y}))


def test_names_that_the_model_lacks_are_told(batch):
    model = Both()
    wrong = {"image": batch["image"], "kind": batch["kind"], "value": batch["value"]}
    with pytest.raises(ValueError, match="the model's input 'table' is missing in the batch, which has: image"):
        deepseek.compile(model)(wrong)
    with pytest.raises(ValueError, match="none of the data's names"):
        deepseek.Trainer(model).fit({"picture": batch["image"], "kind": batch["kind"]}, progress=False)
    with pytest.raises(ValueError, match="the model has no output for the target 'other'; its outputs are: kind, value"):
        deepseek.compile(model)({**batch, "other": batch["kind"]})
    with pytest.raises(ValueError, match="has no input 'rows'"):
        deepseek.Trainer(model).predict({"image": batch["image"], "rows": batch["table"]})
    with pytest.raises(ValueError, match="hold no '/'"):
        deepseek.compile(model)({**batch, "step/number": batch["kind"]})
    with pytest.raises(TypeError, match="expected x and y, or a dict"):
        deepseek.compile(model)(batch["image"])


def test_no_name_of_a_users_meets_the_steps_own():
    """Learning rate, weight and number of the step are inputs of its graph, as are tensors of the model."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.loss = nn.Parameter(np.ones((2, 1), np.float32)), nn.Parameter(np.zeros(1, np.float32))

        def forward(self, number, learning_rate, weight):
            return {"loss": (number + learning_rate + weight) @ self.weight + self.loss}

    x = RNG.normal(size=(8, 2)).astype(np.float32)
    given = {"number": x, "learning_rate": x, "weight": x, "loss": (x @ np.array([[1.0], [2.0]]) * 3).astype(np.float32), "step": RNG.normal(size=8)}
    trainer = deepseek.Trainer(Odd(), loss=lambda out, batch: ops.mse_loss(out["loss"], batch["loss"]), epochs=200, batch_size=4)
    history = trainer.fit(given, progress=False)
    assert history[-1]["training"]["loss"] < 1e-3


def test_outputs_of_another_shape_than_the_target():
    """Three quantiles of one number, by the pinball loss of Koenker and Bassett (1978)."""
    x = RNG.normal(size=(200, 1)).astype(np.float32)
    y = (2 * x[:, 0] + RNG.normal(size=200)).astype(np.float32)
    quantiles = np.array([0.1, 0.5, 0.9], np.float32)

    def pinball(out, target):
        e = target.reshape(-1, 1) - out
        return ops.maximum(e * quantiles, e * (quantiles - 1)).mean()

    trainer = deepseek.Trainer(nn.Linear(1, 3), loss=pinball, optimizer=optim.Adam(lr=0.05), epochs=60)
    assert set(trainer.fit((x, y), progress=False)[-1]["training"]) == {"loss"}
    below = (y[:, None] < trainer.predict(x)).mean(0)
    np.testing.assert_allclose(below, quantiles, atol=0.06)


def test_labels_of_text():
    x = np.repeat(np.eye(3, dtype=np.float32), 8, axis=0)
    y = np.repeat(["red", "green", "blue"], 8)
    trainer = deepseek.Trainer(nn.Linear(3, 3), optimizer=optim.Adam(lr=0.1), epochs=20)
    trainer.fit((x, y), progress=False)
    assert trainer.evaluate((x[:8], y[:8]))["accuracy"] == 1.0
    data = deepseek.data.Dataset(x, y)
    assert data.class_names == ["blue", "green", "red"] and list(data.targets[::8]) == [2, 1, 0]
    with pytest.raises(ValueError, match="targets: label 'purple' is none of the 3 classes blue, green, red"):
        trainer.evaluate((x[:1], np.array(["purple"])))
    pd = pytest.importorskip("pandas")
    assert deepseek.data.Dataset(x, pd.Series(y, dtype="category")).class_names == ["blue", "green", "red"]


def test_a_data_set_by_names(batch):
    data = deepseek.data.Dataset({"image": batch["image"], "table": batch["table"]}, {"kind": batch["kind"], "value": batch["value"]},
                                 class_names={"kind": ["a", "b", "c"]}, scale={"image": 0.5}, mean={"table": [0, 1, 2, 3, 4]})
    assert len(data) == N and data.class_names == {"kind": ["a", "b", "c"], "value": []}
    assert data.fields["table"]["shape"] == (5,) and data.fields["kind"]["role"] == "target"
    read = data.read([3, 1])
    np.testing.assert_allclose(read["image"], batch["image"][[3, 1]] * 0.5)
    np.testing.assert_allclose(read["table"], batch["table"][[3, 1]] - np.arange(5), rtol=1e-6)
    np.testing.assert_array_equal(read["kind"], batch["kind"][[3, 1]])
    other = pickle.loads(pickle.dumps(data.subset([5, 6])))
    np.testing.assert_array_equal(other.read([1])["table"], data.read([6])["table"])
    assert other.fields == data.fields and len(other) == 2
    with pytest.raises(ValueError, match="'kind' is among the inputs and among the targets"):
        deepseek.data.Dataset({"kind": batch["table"]}, {"kind": batch["kind"]})
    with pytest.raises(ValueError, match="scale: there is no input 'img'; there are: image"):
        deepseek.data.Dataset({"image": batch["image"]}, scale={"img": 2})


def test_augmented_pictures_beside_a_table(batch):
    """Flips change the pictures alone; mixing mixes all."""
    trainer = deepseek.Trainer(Both(), loss=two_terms_of_weights, metrics=None, epochs=1, batch_size=8, augmentation={"methods": ["flip", "mixup"]})
    history = trainer.fit(batch, progress=False)
    assert np.isfinite(history[0]["training"]["loss"])


def two_terms_of_weights(out, batch):
    assert batch["kind"].shape[1:] == (3,)  # weights of classes
    return ops.cross_entropy(out["kind"], batch["kind"]) + ops.mse_loss(out["value"], batch["value"])


def test_resumed_with_terms_to_the_same_bits(tmp_path, batch):
    def train(folder, epochs, **more):
        deepseek.manual_seed(4)
        trainer = deepseek.Trainer(Both(), loss=two_terms, epochs=epochs, batch_size=8, output=str(tmp_path / folder), schedule="constant")
        return trainer, trainer.fit(batch, validation=batch, progress=False, **more)

    whole, history = train("whole", 4)
    train("parts", 2)
    parts, resumed = train("parts", 4, resume=True)
    assert [e["training"] for e in resumed] == [e["training"] for e in history]
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(parts.model.state_dict()[name], value)
    assert "loss/kind" in (tmp_path / "whole" / "history.csv").read_text().splitlines()[0]


def test_the_loss_may_return_what_a_term_is_by_mistake(batch):
    model = Both()
    with pytest.raises(ValueError, match="the loss's term 'kind' must be a float scalar, got f32\\[24,3\\]"):
        deepseek.compile(model, lambda out, batch: {"kind": out["kind"], "value": out["value"].mean()})(batch)
    with pytest.raises(ValueError, match="expected a scalar or a pair"):
        deepseek.compile(model, lambda out, batch: {"kind": (1, 2, 3)})(batch)
    with pytest.raises(ValueError, match="the loss has no terms"):
        deepseek.compile(model, lambda out, batch: {})(batch)
