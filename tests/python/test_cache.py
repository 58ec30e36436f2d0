"""Programs are found by what the model is, not by shapes alone: every change of a model is seen by all that compile it."""
import dataclasses
import gc
import threading

import numpy as np
import pytest
import torch

import deepseek
from deepseek import _core, nn, ops

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
Y = np.arange(4) % 3


@dataclasses.dataclass
class Config:
    power: float = 1.0
    parts: list = dataclasses.field(default_factory=lambda: [1.0])


class Many(nn.Module):
    """y = activation(x W) * scale * table * ... with every kind of thing that a forward() may read."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3, bias=False)
        self.activation = nn.ReLU()
        self.scale = 1.0
        self.table = {"a": [1.0, {"b": 1.0}]}
        self.array = np.ones(3, np.float32)
        self.config = Config()
        self.function = ops.neg
        self.choices = (1.0, [1.0])
        self.parts = [nn.LeakyReLU(0.5)]
        self.kinds = {"plain"}

    def forward(self, x):
        y = self.activation(self.fc(x)) * self.scale * self.table["a"][1]["b"] * self.array * self.choices[1][0]
        y = self.function(y) * self.config.power * self.config.parts[0]
        return self.parts[0](y) if "plain" in self.kinds else -y


@pytest.fixture(autouse=True)
def seeded():
    deepseek.manual_seed(11)


CHANGES = {
    "a number": lambda m: setattr(m, "scale", 3.0), "a part": lambda m: setattr(m, "activation", nn.Tanh()), "a layer": lambda m: setattr(m, "fc", nn.Linear(6, 3, bias=False)),
    "inside a dict": lambda m: m.table["a"][1].update(b=2.0), "inside a tuple": lambda m: m.choices[1].__setitem__(0, 5.0),
    "an array's element": lambda m: m.array.__setitem__(1, 4.0), "a new array": lambda m: setattr(m, "array", np.zeros(3, np.float32)),
    "an object's attribute": lambda m: setattr(m.config, "power", 2.0), "inside an object": lambda m: m.config.parts.__setitem__(0, -2.0),
    "a function": lambda m: setattr(m, "function", ops.abs), "a module in a list": lambda m: m.parts.__setitem__(0, nn.LeakyReLU(-1.0)),
    "a setting of a module in a list": lambda m: setattr(m.parts[0], "negative_slope", 7.0), "a set": lambda m: m.kinds.clear(),
    "an attribute that goes and comes": lambda m: (delattr(m, "scale"), setattr(m, "scale", 8.0)),
}


def loss(prediction, target):
    return ops.mean(prediction * prediction) + 0.0 * ops.mean(target)


def stepped(m):
    step = deepseek.compile(m, loss, deepseek.optim.SGD(lr=0.0))
    return lambda: (step(X, np.ones((4, 3), np.float32)), np.array(step.prediction))[1]


def evaluated(m):
    trainer = deepseek.Trainer(m, loss=loss)
    return lambda: np.array(trainer.evaluate((X, np.ones((4, 3), np.float32)))["loss"])


def trained(m):
    trainer = deepseek.Trainer(m, loss=loss, optimizer=deepseek.optim.SGD(lr=0.0), epochs=1, batch_size=4)
    return lambda: np.array(trainer.fit((X, np.ones((4, 3), np.float32)), progress=False)[-1]["training"]["loss"])


def predicted(m):
    trainer = deepseek.Trainer(m, loss=loss)
    return lambda: trainer.predict(X)


USES = {"call": lambda m: lambda: m(X), "step": stepped, "evaluate": evaluated, "fit": trained, "predict": predicted,
        "freeze": lambda m: lambda: deepseek.freeze(m)(X)}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change, use):
    model = Many()
    model.eval()
    run = USES[use](model)
    before = run()
    np.testing.assert_array_equal(run(), before)
    CHANGES[change](model)
    model.eval()
    after = run()
    assert not np.array_equal(after, before)
    np.testing.assert_allclose(after, USES[use](model)(), rtol=1e-6)  # what a new owner compiles


@pytest.mark.parametrize("use", ["step", "evaluate", "fit"])
@pytest.mark.parametrize("kind", ["module", "closure", "default", "object"])
def test_a_change_of_the_loss_is_seen(kind, use):
    logits, labels = torch.from_numpy(X[:, :3].copy()), torch.from_numpy(Y)
    held = nn.CrossEntropyLoss(label_smoothing=0.0)
    smoothing = 0.0

    class Object:
        smoothing = None

        def __call__(self, p, y):
            return nn.functional.cross_entropy(p, y, label_smoothing=self.smoothing)

    other = Object()
    other.smoothing = 0.0
    losses = {"module": held, "closure": lambda p, y: nn.functional.cross_entropy(p, y, label_smoothing=smoothing),
              "default": lambda p, y, h=[0.0]: nn.functional.cross_entropy(p, y, label_smoothing=h[0]), "object": other}
    model = nn.Linear(3, 3)
    model.load_state_dict({"weight": np.eye(3), "bias": np.zeros(3)})
    step = deepseek.compile(model, losses[kind], deepseek.optim.SGD(lr=0.0))
    trainer = deepseek.Trainer(model, loss=losses[kind], optimizer=deepseek.optim.SGD(lr=0.0), epochs=1, batch_size=4)
    run = {"step": lambda: step(X[:, :3], Y), "evaluate": lambda: trainer.evaluate((X[:, :3], Y))["loss"],
           "fit": lambda: trainer.fit((X[:, :3], Y), progress=False)[-1]["training"]["loss"]}[use]
    for value in (0.0, 0.5, 0.5, 0.0):
        smoothing = value
        held.label_smoothing = other.smoothing = value
        losses["default"].__defaults__[0][0] = value
        assert run() == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels, label_smoothing=value)), rel=1e-5)


LAYERS = [  # a layer, its input's shape, and a setting with another value; PyTorch's twin has both under the same names
    ("Dropout", lambda lib: lib.Dropout(0.5), None, "p", 0.0), ("Conv2d", lambda lib: lib.Conv2d(2, 4, 3, padding=1), (1, 2, 9, 9), "dilation", (2, 2)),
    ("Conv2d", lambda lib: lib.Conv2d(2, 4, 3, padding=1), (1, 2, 9, 9), "stride", (2, 1)), ("Conv2d", lambda lib: lib.Conv2d(2, 4, 3, padding=1), (1, 2, 9, 9), "padding", (0, 2)),
    ("ConvTranspose1d", lambda lib: lib.ConvTranspose1d(2, 3, 3, stride=2), (1, 2, 5), "output_padding", (1,)), ("LeakyReLU", lambda lib: lib.LeakyReLU(0.1), (3, 4), "negative_slope", 0.7),
    ("LayerNorm", lambda lib: lib.LayerNorm(4), (3, 4), "eps", 0.5), ("GroupNorm", lambda lib: lib.GroupNorm(2, 4), (3, 4, 2), "num_groups", 4),
    ("BatchNorm1d", lambda lib: lib.BatchNorm1d(4), (3, 4), "eps", 0.5), ("Softmax", lambda lib: lib.Softmax(0), (3, 4), "dim", 1),
    ("LSTM", lambda lib: lib.LSTM(4, 3), (2, 3, 4), "batch_first", True), ("MaxPool2d", lambda lib: lib.MaxPool2d(2), (1, 1, 6, 6), "stride", 3),
    ("TransformerEncoderLayer", lambda lib: lib.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4), "norm_first", True),
]


@pytest.mark.parametrize("name, make, shape, setting, value", LAYERS, ids=[f"{c[0]}.{c[3]}" for c in LAYERS])
def test_settings_of_layers_change_as_in_pytorch(name, make, shape, setting, value):
    ours, theirs = make(nn), make(torch.nn)
    theirs.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in ours.state_dict().items()})
    if shape is not None:
        ours.eval()
        theirs.eval()
    x = np.random.default_rng(1).normal(size=shape or (3, 4)).astype(np.float32)
    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    ours(x)
    assert getattr(ours, setting) != value
    setattr(ours, setting, value)
    setattr(theirs, setting, value)
    assert getattr(ours, setting) == value
    np.testing.assert_allclose(first(ours(x)), first(theirs(torch.from_numpy(x))).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_decides_shapes_can_be_read_and_not_set():
    layer = nn.Linear(3, 4)
    assert (layer.in_features, layer.out_features) == (3, 4) and "in_features" in dir(layer)
    with pytest.raises(AttributeError, match="make another layer"):
        layer.in_features = 5
    with pytest.raises(TypeError, match="p: 'x' is of the wrong type"):
        nn.Dropout().p = "x"
    with pytest.raises(TypeError, match="'weight' is a parameter or buffer"):
        layer.weight = np.zeros((4, 3))
    net = Many()
    with pytest.raises(TypeError, match="'fc' is a part of this module: expected a module or None"):
        net.fc = 3
    net.fc = None
    assert net.fc is None and not net.state_dict()


def test_a_part_may_change_its_mode():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = np.ones((50, 50), np.float32)
    assert net(x).max() == 4
    net[0].eval()
    assert set(np.unique(net(x))) == {0.0, 2.0}
    compiled = _core.cache_counts()["compiled"]
    for _ in range(3):
        net[0].train()
        assert net(x).max() == 4
        net[0].eval()
        assert net(x).max() == 2
    assert _core.cache_counts()["compiled"] == compiled  # modes that come back are found again


def test_a_replaced_layer_starts_with_moments_of_its_own():
    net = nn.Sequential(nn.Linear(6, 3, bias=False))
    torch.manual_seed(0)
    step = deepseek.compile(net, "mse_loss", deepseek.optim.SGD(lr=0.1, momentum=0.9))
    y = np.zeros((4, 3), np.float32)
    step(X, y)
    step(X, y)
    layer = nn.Linear(6, 3, bias=False)
    start = layer.weight.data.copy()
    net.add_module("0", layer)
    step(X, y)
    weight = torch.from_numpy(start).requires_grad_()
    torch.nn.functional.mse_loss(torch.from_numpy(X) @ weight.T, torch.from_numpy(y)).backward()
    np.testing.assert_allclose(layer.weight.data, (weight - 0.1 * weight.grad).detach().numpy(), rtol=1e-5)
    wide = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    net.add_module("0", wide)
    assert np.isfinite(step(X, y)) and "0.weight" not in step.state() and "0.1.weight" in step.state()


def test_equal_models_share_programs_and_compile_once():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(7, 5)

        def forward(self, x):
            return self.layer(x) * 1.25

    x = np.ones((3, 7), np.float32)
    models = [Own().eval() for _ in range(3)]
    before = _core.cache_counts()
    results = [m(x) for m in models]
    after = _core.cache_counts()
    assert after["compiled"] - before["compiled"] == 1 and after["found"] - before["found"] == 2
    for model, result in zip(models, results):
        np.testing.assert_allclose(result, (x @ model.layer.weight.data.T + model.layer.bias.data) * 1.25, rtol=1e-5)
    del models, model
    gc.collect()
    assert _core.cache_counts()["programs"] == before["programs"]  # they go with their last owner


def test_programs_that_had_to_go_come_again():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh()).eval()
    frozen = deepseek.freeze(model)
    want = {n: model(X[:n]) for n in range(1, 5)}
    step = deepseek.compile(nn.Linear(6, 3), "cross_entropy")
    try:
        _core.set_cache_limits(programs=0)
        dropped = _core.cache_counts()["dropped"]
        for _ in range(3):
            for n in range(1, 5):
                np.testing.assert_array_equal(model(X[:n]), want[n])
                np.testing.assert_allclose(frozen(X[:n]), want[n], rtol=1e-5)
                assert np.isfinite(step(X[:n], Y[:n]))
        assert _core.cache_counts()["dropped"] > dropped and _core.cache_counts()["programs"] <= 4
    finally:
        _core.set_cache_limits()


def test_a_frozen_model_of_many_shapes_keeps_its_weights_once():
    import os

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    model = nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024)).eval()  # 16 MiB of weights
    frozen = deepseek.freeze(model)
    for n in (1, 2):
        frozen(np.ones((n, 1024), np.float32))
    before = resident()
    for n in range(3, 43):
        frozen(np.ones((n, 1024), np.float32))
    assert resident() - before < 150 << 20, "40 shapes took as much as 40 copies of the weights"


def test_freeze_notices_rows_that_change_places():
    model = nn.Sequential(nn.Linear(4, 2, bias=False)).eval()
    frozen = deepseek.freeze(model)
    x = np.arange(4, dtype=np.float32)[None]
    first = frozen(x)
    weight = model.state_dict()["0.weight"]
    weight[...] = weight[::-1].copy()
    np.testing.assert_array_equal(frozen(x), first)
    with pytest.raises(RuntimeError, match="weights have changed since freeze"):
        frozen(np.concatenate([x, x]))
    weight[...] = weight[::-1].copy()
    np.testing.assert_allclose(frozen(np.concatenate([x, x]))[:1], first, rtol=1e-6)
    model.add_module("1", nn.ReLU().eval())
    with pytest.raises(RuntimeError, match="layers have changed since freeze"):
        frozen(np.concatenate([x, x, x]))
    np.testing.assert_array_equal(frozen(x), first)


def test_what_forward_notes_does_not_trace_it_again():
    class Notes(nn.Module):
        def __init__(self):
            super().__init__()
            self.traces = 0
            self.last = None

        def forward(self, x):
            self.traces += 1
            self.last = tuple(x.shape)
            return x * 2.0

    net = Notes().eval()
    for _ in range(4):
        net(X)
    assert net.traces == 1


def test_threads_may_call_one_module_for_many_shapes():
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    want = {n: model(np.ones((n, 6), np.float32)) for n in range(1, 20)}
    model = nn.Sequential(*model.children()).eval()
    wrong = []

    def work(seed):
        for n in np.random.default_rng(seed).permutation(19) + 1:
            try:
                np.testing.assert_allclose(model(np.ones((n, 6), np.float32)), want[n], rtol=1e-5)
            except Exception as e:
                wrong.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
