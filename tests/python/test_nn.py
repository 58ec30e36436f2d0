"""Modules from Python: against PyTorch with the same weights, and the messages of mistakes."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, ops


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 5))
        self.scale = nn.Parameter(np.full(5, 2.0, np.float32))

    def forward(self, x):
        return self.body(self.norm(self.conv(x))) * self.scale + 1.0


def torch_twin(net):
    twin = torch.nn.Module()
    twin.conv = torch.nn.Conv2d(2, 4, 3, 2, 1)
    twin.norm = torch.nn.BatchNorm2d(4)
    twin.body = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    twin.scale = torch.nn.Parameter(torch.zeros(5))
    twin.forward = lambda x: twin.body(twin.norm(twin.conv(x))) * twin.scale + 1
    twin.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in net.state_dict().items()})
    return twin


def test_a_module_equals_its_torch_twin_in_training_and_evaluation():
    net = Net()
    twin = torch_twin(net)
    assert set(twin.state_dict()) == set(net.state_dict())
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype(np.float32)
    for _ in range(2):
        np.testing.assert_allclose(net(x), twin.forward(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(net.state_dict()["norm.running_var"], twin.norm.running_var.numpy(), rtol=1e-5)
    assert net.state_dict()["norm.num_batches_tracked"] == 2
    net.eval()
    twin.eval()
    np.testing.assert_allclose(net(x), twin.forward(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_parameters_and_state_dict():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "body.2.weight", "body.2.bias"]
    other = Net()
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other.state_dict()["conv.weight"], net.state_dict()["conv.weight"])
    with pytest.raises(ValueError, match="'conv.bias' is missing\n  'extra' is not a tensor of the model"):
        net.load_state_dict({**{n: v for n, v in net.state_dict().items() if n != "conv.bias"}, "extra": np.zeros(1)})


def test_the_graph_prints_with_name_scopes():
    text = str(Net().graph(np.zeros((1, 2, 8, 8), np.float32)))
    assert 'state %1 "conv.weight" : f32[4,2,3,3]' in text
    assert '@"body/2"' in text


def test_dlpack_goes_in():
    layer = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    np.testing.assert_array_equal(layer(x), layer(x.numpy()))


def test_a_function_traces():
    x, y = np.float32([[1, -2]]), np.float32([[3, 4]])
    graph = deepseek.trace(lambda a, b: ops.relu(a) * 2 - b / 4 + 1, x, y)
    np.testing.assert_allclose(deepseek.compile(graph).run([x, y])[0], np.maximum(x, 0) * 2 - y / 4 + 1)


def test_dropout_draws_anew_and_is_off_in_evaluation():
    layer = nn.Dropout(0.5)
    x = np.ones((100, 100), np.float32)
    a, b = layer(x), layer(x)
    assert set(np.unique(a)) == {0.0, 2.0} and abs(a.mean() - 1) < 0.1 and (a != b).any()
    np.testing.assert_array_equal(layer.eval()(x), x)


def test_embedding():
    layer = nn.Embedding(7, 3)
    np.testing.assert_array_equal(layer(np.array([[1, 6]])), layer.state_dict()["weight"][[[1, 6]]])


def test_signatures_and_docs_come_from_the_registry():
    import inspect

    assert str(inspect.signature(ops.softmax)) == "(x: 'TensorLike', /, *, axis: 'int' = -1) -> 'Value'"
    assert "along an axis" in ops.softmax.__doc__


def test_mistakes():
    net = Net()
    with pytest.raises(ValueError, match=r"\[matmul\] node 'body/2': expected equal inner sizes"):
        net(np.zeros((1, 2, 16, 16), np.float32))
    with pytest.raises(TypeError, match="relu\\(\\) has no argument 'slope'"):
        deepseek.trace(lambda x: ops.relu(x, slope=1), np.float32([1]))
    with pytest.raises(TypeError, match="softmax: 'axis' expected a int, got 'last'"):
        deepseek.trace(lambda x: ops.softmax(x, axis="last"), np.float32([1]))
    with pytest.raises(TypeError, match="no truth value"):
        deepseek.trace(lambda x: x if x > 0 else -x, np.float32([1]))
    with pytest.raises(AttributeError, match="no op 'rleu'"):
        ops.rleu
    with pytest.raises(ValueError, match="only while a module or function is traced"):
        ops.relu(np.float32([1]))
