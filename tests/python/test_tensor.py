"""Symbolic values and nn.functional against PyTorch's tensors: indexing, methods, operators; parameters; containers."""

import gc

import numpy as np
import pytest
import torch

import deepseek
from deepseek import _core, models, nn
from deepseek.nn import functional as F

TF = torch.nn.functional
X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
N = np.array([[2, 0, 1], [1, 1, 3]])


def ours(function, *arrays):
    out = deepseek.compile(deepseek.trace(function, *arrays)).run(list(arrays))
    return out[0] if len(out) == 1 else out


def check(function, *arrays, theirs=None, rtol=1e-5, atol=1e-6):
    expected = (theirs or function)(*[torch.from_numpy(a) for a in arrays])
    expected = list(expected) if isinstance(expected, tuple) else [expected]
    got = ours(function, *arrays)
    got = got if isinstance(got, list) else [got]
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert g.shape == tuple(e.shape) and g.dtype == e.numpy().dtype, (g.dtype, e.dtype)
        np.testing.assert_allclose(g, e.numpy(), rtol=rtol, atol=atol)


INDICES = {
    "last_step": np.s_[:, -1], "first_three": np.s_[..., :3], "int": np.s_[1], "ints": np.s_[1, 2, -3], "step": np.s_[:, 1::2], "new_axis": np.s_[:, None, 2:],
    "new_axis_end": np.s_[..., None], "negative": np.s_[-2:, :-1, -3:-1], "empty": np.s_[2:1], "everything": np.s_[...], "middle": np.s_[0, ..., 1], "beyond": np.s_[:, :99],
    "array": np.s_[:, [3, 0, -1]], "array_2d": np.s_[1:, np.array([[0, 1], [2, 3]]), 0], "none_first": np.s_[None, 0, :, None, -1],
}


@pytest.mark.parametrize("name", INDICES)
def test_indexing(name):
    check(lambda x: x[INDICES[name]], X)


def test_indexing_by_a_value():
    check(lambda x, i: x[:, i], X, N)
    check(lambda x, i: x[i], X, np.array(2))


@pytest.mark.parametrize("index, error, message", [
    (np.s_[3], IndexError, "index 0: 3 is out of range for an axis of 3"),
    (np.s_[0, 0, 0, 0], IndexError, r"too many indices for a value of shape \(3, 4, 5\)"),
    (np.s_[..., ...], IndexError, "too many indices"),
    (np.s_[::-1], ValueError, "expected a step >= 1, got -1; reverse with flip"),
    (np.s_[:, [4]], IndexError, "is out of range for an axis of 4"),
    (np.s_[[0], [1]], IndexError, "at most one array"),
    (np.s_["a"], IndexError, "expected ints, slices, None"),
    (np.s_[True], IndexError, "expected ints, slices, None"),
])
def test_indexing_mistakes(index, error, message):
    with pytest.raises(error, match=message):
        ours(lambda x: x[index], X)


METHODS = {
    "reshape": lambda x: x.reshape(6, -1),
    "reshape_list": lambda x: x.reshape((2, 30)),
    "view": lambda x: x.view(12, 5),
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(2, 0, 1),
    "T": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "flatten": lambda x: x.flatten(),
    "flatten_from": lambda x: x.flatten(1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unsqueeze_last": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x[:, :1, None].squeeze(),
    "squeeze_dim": lambda x: x[:1, :1].squeeze(1),
    "expand": lambda x: x[:, :1].expand(-1, 4, 5),
    "expand_new": lambda x: x[0].expand(2, 4, 5),
    "sum": lambda x: x.sum(),
    "sum_dim": lambda x: x.sum(-1),
    "sum_dims": lambda x: x.sum((0, 2), keepdim=True),
    "mean": lambda x: x.mean(dim=1),
    "mean_all": lambda x: x.mean(),
    "max_all": lambda x: x.max(),
    "max": lambda x: tuple(x.max(1)),
    "min": lambda x: tuple(x.min(dim=-1, keepdim=True)),
    "amax": lambda x: x.amax((0, 1)),
    "argmax": lambda x: x.argmax(),
    "argmax_dim": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(-1, keepdim=True),
    "var": lambda x: x.var(1),
    "var_biased": lambda x: x.var((0, 1), unbiased=False),
    "std": lambda x: x.std(),
    "prod": lambda x: x.prod(1),
    "chunk": lambda x: x.chunk(2, 1),
    "split": lambda x: x.split([1, 3], 1),
    "split_even": lambda x: x.split(2, -1),
    "unbind": lambda x: x.unbind(1),
    "unpack": lambda x: tuple(row for row in x),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0),
    "abs": lambda x: abs(x),
    "neg": lambda x: -x,
    "exp": lambda x: x.exp(),
    "log": lambda x: x.abs().log(),
    "sqrt": lambda x: x.square().sqrt(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(1),
    "to": lambda x: (x * 10).to(torch.int64),
    "long": lambda x: (x * 10).long(),
    "bool_to_float": lambda x: (x > 0).float(),
    "masked_fill": lambda x: x.masked_fill(x > 0, -7.0),
    "topk": lambda x: tuple(x.topk(2)),
    "cumsum": lambda x: x.cumsum(1),
    "flip": lambda x: x.flip((0, 2)),
    "matmul": lambda x: x @ x.mT,
    "pow": lambda x: x ** 2,
    "rpow": lambda x: 2 ** x,
    "rsub": lambda x: 1 - x,
    "rdiv": lambda x: 1 / (x * x + 1),
    "eq": lambda x: x == x.abs(),
    "ne": lambda x: x != x.abs(),
    "lt": lambda x: 0.5 < x,
    "and": lambda x: (x > 0) & (x < 1),
    "or": lambda x: (x < 0) | (x > 1),
    "not": lambda x: ~(x > 0),
    "mask_times_x": lambda x: (x > 0) * x,
    "size": lambda x: x.reshape(x.size(0), x.size()[1] * x.size(2)),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "int_of_float": lambda x: x.long() + 1,
    "float_of_int": lambda x: x.long() * 2.5,
    "numel": lambda x: x / x.numel() + x.dim(),
}


@pytest.mark.parametrize("name", METHODS)
def test_method(name):
    check(METHODS[name], X, rtol=1e-4)


def test_values_hash_by_identity_and_have_no_truth_value():
    def f(x):
        assert len({x, x, x + 1}) == 2 and hash(x) == hash(x)
        with pytest.raises(TypeError, match="no truth value"):
            bool(x == x)
        assert len(x) == 3
        return x

    ours(f, X)


NUMPY = {
    "number_right": lambda x: x * np.float32(2),
    "number_left": lambda x: np.float32(2) * x,
    "integer": lambda x: x + np.int64(3),
    "array_left": lambda x: np.ones(5, np.float32) - x,
    "read_only": lambda x: x + np.broadcast_to(np.float32(2), (4, 5)),
    "transposed": lambda x: x + np.arange(20, dtype=np.float32).reshape(5, 4).T,
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_beside_values(name):
    np.testing.assert_allclose(ours(NUMPY[name], X), NUMPY[name](X), rtol=1e-6)


FUNCTIONS = {
    "linear": (lambda m: lambda x, w, b: m.linear(x, w, b), X, X[0, :2], X[0, 0, :2]),
    "conv2d": (lambda m: lambda x, w, b: m.conv2d(x, w, b, stride=2, padding=1, groups=2), X.reshape(1, 4, 5, 3),
               X.reshape(-1)[:48].reshape(6, 2, 2, 2), X[0, 0, [0, 1, 2, 3, 4, 0]]),
    "conv1d_same": (lambda m: lambda x, w: m.conv1d(x, w, padding="same"), X, X.reshape(5, 4, 3)),
    "conv_transpose1d": (lambda m: lambda x, w: m.conv_transpose1d(x, w, stride=2, output_padding=1), X, X.reshape(4, 5, 3)),
    "max_pool_indices": (lambda m: lambda x: tuple(m.max_pool1d(x, 2, return_indices=True)), X),
    "avg_pool1d": (lambda m: lambda x: m.avg_pool1d(x, 3, 2, 1, count_include_pad=False), X),
    "adaptive_max_pool1d": (lambda m: lambda x: m.adaptive_max_pool1d(x, 2), X),
    "layer_norm": (lambda m: lambda x, w: m.layer_norm(x, (4, 5), w), X, X[0]),
    "layer_norm_plain": (lambda m: lambda x: m.layer_norm(x, [5]), X),
    "rms_norm": (lambda m: lambda x: m.rms_norm(x, [5]), X),
    "group_norm": (lambda m: lambda x, b: m.group_norm(x, 2, bias=b), X, X[0, :, 0].copy()),
    "instance_norm": (lambda m: lambda x: m.instance_norm(x), X),
    "batch_norm": (lambda m: lambda x: m.batch_norm(x, None, None, training=True), X),
    "batch_norm_inference": (lambda m: lambda x, mean, var: m.batch_norm(x, mean, var, eps=1e-3), X, X[0, :, 0].copy(), abs(X[0, :, 1]) + 1),
    "embedding": (lambda m: lambda i, w: m.embedding(i, w, padding_idx=0), N, X[0]),
    "one_hot": (lambda m: lambda i: m.one_hot(i, 4), N),
    "nearest": (lambda m: lambda x: m.interpolate(x, size=7), X),
    "linear_resize": (lambda m: lambda x: m.interpolate(x, scale_factor=2, mode="linear", align_corners=False), X),
    "pad": (lambda m: lambda x: m.pad(x, (1, 2, 0, 1), value=3), X),
    "pad_cut": (lambda m: lambda x: m.pad(x, (-1, 2)), X),
    "gelu": (lambda m: lambda x: m.gelu(x, approximate="tanh"), X),
    "leaky_relu": (lambda m: lambda x: m.leaky_relu(x, 0.2), X),
    "softmax": (lambda m: lambda x: m.softmax(x, dim=1), X),
    "softplus": (lambda m: lambda x: m.softplus(x), X),
    "attention": (lambda m: lambda q, k: m.scaled_dot_product_attention(q, k, k, is_causal=True), X, X + 1),
    "attention_mask": (lambda m: lambda q, k: m.scaled_dot_product_attention(q, k, k, q[0, :, :4] > -1.5, scale=0.3), X, X + 1),
    "attention_plain": (lambda m: lambda q, k: m.scaled_dot_product_attention(q, k, k), X[0], X[1]),
    "cross_entropy": (lambda m: lambda x: m.cross_entropy(x[0], (x[0, :, 0] > 0).long(), label_smoothing=0.1), X),
    "mse_loss": (lambda m: lambda x: m.mse_loss(x[0], x[1], reduction="sum"), X),
    "dropout_off": (lambda m: lambda x: m.dropout(x, 0.5, training=False), X),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    make, *arrays = FUNCTIONS[name]
    check(make(F), *[np.ascontiguousarray(a) for a in arrays], theirs=make(TF), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function, message", [
    (lambda x: F.conv2d(x, x), "conv2d: expected an input of 4 axes"),
    (lambda x: F.interpolate(x, size=3, mode="bicubic"), "expected mode 'nearest' or 'linear' for 1 spatial axes, got 'bicubic'"),
    (lambda x: F.interpolate(x), "expected either size or scale_factor"),
    (lambda x: F.pad(x, (1, 1), mode="reflect"), "expected mode 'constant', got 'reflect'"),
    (lambda x: F.max_pool1d(x, (2, 2)), r"kernel_size: expected one number or 1, got \(2, 2\)"),
    (lambda x: F.mse_loss(x, x, reduction="avg"), 'reduction: expected "mean", "sum" or "none", got "avg"'),
    (lambda x: F.dropout(x), "only inside another module's forward"),
    (lambda x: x.flatten(2, 1), "expected start_dim <= end_dim"),
    (lambda x: x.split([1, 1], 1), r"split: expected sizes that sum to 4, got \[1, 1\]"),
])
def test_mistakes(function, message):
    with pytest.raises(ValueError, match=message):
        ours(function, X)


def test_functional_dropout_inside_a_module():
    class Net(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.25, self.training)

    net, x = Net(), np.ones((50, 50), np.float32)
    y = net(x)
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert abs(y.mean() - 1) < 0.1 and (net(x) != y).any()
    # A trace of evaluation, as the engine makes for validation, turns it off whatever the module's own flag says.
    assert net.training
    assert "dropout" in str(_core.trace_module(net, [("f32", [2])], True))
    assert "dropout" not in str(_core.trace_module(net, [("f32", [2])], False))
    np.testing.assert_array_equal(net.eval()(x), x)


# Parameters.


class Scale(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return x * self.weight


def test_a_parameter_neither_keeps_its_module_nor_dangles():
    weight = nn.Parameter(np.float32([2, 3]))
    module = Scale(weight)
    np.testing.assert_array_equal(module(np.float32([1, 1])), [2, 3])
    module.weight.data[...] = 5
    np.testing.assert_array_equal(module(np.float32([1, 1])), [5, 5])
    with pytest.raises(ValueError, match="this Parameter is 'weight' of a module already"):
        Scale(weight)
    del module
    gc.collect()
    with pytest.raises(ValueError, match="this Parameter belongs to no module of the trace"):
        deepseek.trace(lambda x: x * weight, np.float32([1, 1]))
    np.testing.assert_array_equal(Scale(weight)(np.float32([1, 1])), [5, 5])


def test_parameters_of_layers_are_attributes():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(6, 3)
            self.register_buffer("offset", np.ones(6, np.float32))

        def forward(self, i):
            return self.embedding(i) @ self.embedding.weight.T + self.offset

    net = Tied()
    w = net.state_dict()["embedding.weight"]
    assert net.embedding.weight.shape == (6, 3) and [n for n, _ in net.named_buffers()] == ["offset"]
    np.testing.assert_allclose(net(np.array([1, 4])), w[[1, 4]] @ w.T + 1, rtol=1e-5, atol=1e-6)
    with pytest.raises(AttributeError, match="'Tied' has no attribute 'wieght'"):
        net.wieght


def test_modules_in_evaluation_stay_so_while_others_train():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    net[0].eval()
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    y = net(x)
    assert (y == 0).any() and not net.state_dict()["0.num_batches_tracked"]
    np.testing.assert_allclose(y[y != 0], 2 * x[y != 0] / (1 + 1e-5) ** 0.5, rtol=1e-5)


def test_read_only_and_transposed_arrays_go_in():
    layer = nn.Linear(4, 2)
    x = np.broadcast_to(np.float32(2), (3, 4))
    np.testing.assert_array_equal(layer(x), layer(x.copy()))
    np.testing.assert_array_equal(layer(X[0].T[:, :4]), layer(X[0].T[:, :4].copy()))


def test_a_missing_input_is_an_error():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(None)

    with pytest.raises(TypeError, match="expected a symbolic value, Parameter, array or number, got <class 'NoneType'>"):
        Net()(X)


def test_structures_go_in_and_out():
    class Net(nn.Module):
        def forward(self, pair, scale=1, extra=None):
            a, b = pair
            return {"sum": (a + b) * scale, "rest": [a, None if extra is None else a - extra["x"]]}

    out = Net()((X, X), scale=2, extra={"x": X})
    np.testing.assert_allclose(out["sum"], 4 * X)
    np.testing.assert_array_equal(out["rest"][1], 0 * X)
    assert Net()((X, X))["rest"][1] is None
    with pytest.raises(TypeError, match="expected arrays, numbers, strings, None"):
        Net()((X, object()))


# Containers.


def test_containers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.list = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)]).append(nn.Tanh())
            self.dict = nn.ModuleDict({"a": nn.Linear(3, 2)})
            self.dict["b"] = nn.ReLU()
            self.chain = nn.Sequential({"first": nn.Linear(2, 2), "second": nn.Identity()})

        def forward(self, x):
            for module in self.list:
                x = module(x)
            return self.chain(self.dict["b"](self.dict["a"](x)))

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.list = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(2)]).append(torch.nn.Tanh())
            self.dict = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})
            self.chain = torch.nn.Sequential()
            self.chain.add_module("first", torch.nn.Linear(2, 2))

    net, twin = Net(), Twin()
    assert set(net.state_dict()) == set(twin.state_dict())
    twin.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in net.state_dict().items()})
    x = X[0, :, :3]
    y = torch.from_numpy(x)
    for module in twin.list:
        y = module(y)
    np.testing.assert_allclose(net(x), twin.chain(torch.relu(twin.dict["a"](y))).detach().numpy(), rtol=1e-4, atol=1e-6)
    assert len(net.list) == 3 and len(net.list[:2]) == 2 and list(net.dict) == ["a", "b"] and "c" not in net.dict
    assert [name for name, _ in net.named_modules()][:4] == ["", "list", "list.0", "list.1"]
    assert repr(net.dict) == "ModuleDict(\n  (a): Linear(weight: [2, 3], bias: [2])\n  (b): ReLU(inplace=False)\n)"


# The zoo.


def test_the_zoo_from_python():
    assert {"mlp", "small_resnet", "lstm", "transformer"} <= set(models.names())
    model = models.create("transformer", input=[7, 6], classes=5, width=8, layers=1, heads=2)
    assert model(X[:, :, :1].repeat(7, 1)[:, :7].repeat(6, 2)).shape == (3, 5)
    assert model.state_dict()["encoder.layers.0.self_attn.in_proj_weight"].shape == (24, 8)
    tokens = models.create("lstm", input=[9], classes=4, vocabulary=11, width=6)
    assert tokens(np.zeros((2, 9), np.int64)).shape == (2, 4)
    with pytest.raises(ValueError, match="there is no model 'lstn'"):
        models.create("lstn", input=[3])
    with pytest.raises(ValueError, match="model 'lstm' has no such parameter; it has: width, layers, vocabulary"):
        models.create("lstm", input=[3, 2], depth=2)
