"""No name of a parameter, buffer or module meets what a step or a call has of its own."""
import numpy as np
import pytest

import deepseek
from deepseek import nn

NAMES = ["x", "y", "x0", "y0", "step", "learning_rate", "weight", "random", "loss", "prediction", "scale", "gradient_norm", "skipped"]
X, Y = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), np.random.default_rng(1).normal(size=(8, 1)).astype(np.float32)


def net(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            deepseek.manual_seed(0)
            self.layer, self.dropout = nn.Linear(4, 1), nn.Dropout(0.0)
            setattr(self, name, nn.Parameter(np.full(1, 2, np.float32)))

        def forward(self, a):
            return self.dropout(self.layer(a)) * getattr(self, name)

    return Net()


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_be_called(name, tmp_path):
    def trained(name):
        model = net(name)
        trainer = deepseek.Trainer(model, "mse_loss", batch_size=4, accumulate=2, epochs=2, ema_decay=0.5, output=str(tmp_path / name))
        history = trainer.fit((X, Y), progress=False)
        return model, trainer, [e["training"] for e in history]

    model, trainer, history = trained(name)
    other, _, expected = trained("plain")
    assert history == expected
    np.testing.assert_array_equal(getattr(model, name).data, other.plain.data)
    assert not np.array_equal(getattr(model, name).data, np.full(1, 2, np.float32))
    np.testing.assert_array_equal(model.eval()(X), other.eval()(X))
    np.testing.assert_array_equal(trainer.predict(X), deepseek.freeze(model)(X))
    np.testing.assert_allclose(deepseek.freeze(model)(X), model(X), rtol=1e-6)
    assert set(deepseek.load(tmp_path / name / "best.safetensors")) == {name, "layer.weight", "layer.bias"}
    step, twin = deepseek.compile(net(name).train(), "mse_loss"), deepseek.compile(net("plain").train(), "mse_loss")
    assert [step(X, Y), step(X, Y)] == [twin(X, Y), twin(X, Y)]
    net(name).train()(X)  # with the counter of the dropout


@pytest.mark.parametrize("name", ["a.b", "a/b", "step/weight", "random/counter", ""])
def test_names_with_dots_and_slashes_are_refused(name):
    with pytest.raises(ValueError, match="expected a name without dots and slashes"):
        net(name)(X)
    parent = nn.Module()
    with pytest.raises(ValueError, match="expected a name without dots and slashes"):
        parent.add_module(name, nn.Linear(2, 2))
        deepseek.compile(parent, "mse_loss")(X, Y)
