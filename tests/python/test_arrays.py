"""Arrays as Python has them: read-only, of the other byte order, strided, without axes, bfloat16; numbers to the last digit."""
import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, ops

RNG = np.random.default_rng(0)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(tmp_path, a):
    np.save(tmp_path / "a.npy", a)
    return np.load(tmp_path / "a.npy", mmap_mode="r")


FORMS = {
    "read-only": read_only, "other byte order": lambda a: a.astype(a.dtype.newbyteorder(">")), "strided": lambda a: np.repeat(a, 2, 0)[::2],
    "Fortran": np.asfortranarray, "reversed": lambda a: a[::-1].copy()[::-1], "torch": lambda a: torch.from_numpy(a.copy()),
}
USES = {
    "module": lambda x, y: nn.ReLU()(x), "freeze": lambda x, y: deepseek.freeze(nn.Tanh().eval())(x),
    "program": lambda x, y: deepseek.compile(deepseek.trace(lambda a: a * 2, np.zeros((6, 3), np.float32))).run([x])[0],
    "step": lambda x, y: deepseek.compile(fixed(), "cross_entropy")(x, y), "constant": lambda x, y: Adds(x)(np.ones((6, 3), np.float32)),
    "trainer": lambda x, y: [e["training"] for e in deepseek.Trainer(fixed(), epochs=2, batch_size=3).fit((x, y), progress=False)],
    "evaluate": lambda x, y: deepseek.Trainer(fixed()).evaluate((x, y))["loss"], "predict": lambda x, y: deepseek.Trainer(fixed()).predict(x),
    "metrics": lambda x, y: deepseek.metrics.compute(["accuracy", "f1"], x, y), "parameter": lambda x, y: nn.Parameter(x).data,
    "reference": lambda x, y: deepseek.trace(lambda a: a * 2, np.zeros((6, 3), np.float32)).evaluate_reference([x])[0],
}


class Adds(nn.Module):
    def __init__(self, array):
        super().__init__()
        self.array = array

    def forward(self, x):
        return x + np.asarray(self.array)


def fixed():
    layer = nn.Linear(3, 3)
    layer.load_state_dict({"weight": np.eye(3), "bias": np.zeros(3)})
    return layer


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_in_everywhere(form, use):
    x, y = RNG.normal(size=(6, 3)).astype(np.float32), np.arange(6) % 3
    want, got = USES[use](x, y), USES[use](FORMS[form](x), FORMS[form](y))
    if isinstance(want, np.ndarray):
        np.testing.assert_array_equal(got, want)
    else:
        assert got == want


def test_mapped_files_go_in_and_stay_read_only(tmp_path):
    x = mapped(tmp_path, np.arange(12, dtype=np.float32).reshape(4, 3))
    data = deepseek.data.Dataset(x, np.zeros(4, np.int64))
    assert np.shares_memory(data.inputs, x) and not data.inputs.flags.writeable
    own = np.zeros((4, 3), np.float32)
    assert deepseek.data.Dataset(own, np.zeros(4, np.int64)).inputs.flags.writeable
    deepseek.save({"x": x}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(deepseek.load(tmp_path / "x.safetensors")["x"], x)


def test_state_is_never_written_into_read_only_memory():
    step = deepseek.Graph.parse('graph {\n  state %0 "s" : f32[2]\n  %1 = add(%0, %0) : f32[2]\n  output "y" %1\n  update "s" %1\n}')
    program = deepseek.compile(step)
    state = np.ones(2, np.float32)
    program.run([state])
    assert state[0] == 2
    for bad in (read_only(state), np.ones(4, np.float32)[::2], state.astype(">f4")):
        with pytest.raises(ValueError, match="'s' is state.*writable, contiguous"):
            program.run([bad])


def test_arrays_without_axes(tmp_path):
    deepseek.save({"n": np.array(3, np.int64), "x": np.float32(1.5)}, tmp_path / "a.safetensors")
    back = deepseek.load(tmp_path / "a.safetensors")
    assert back["n"].shape == () and back["n"] == 3 and back["x"].shape == ()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    model(np.ones((2, 1, 5, 5), np.float32))
    deepseek.save(model, tmp_path / "m.safetensors")
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    other.load_state_dict(deepseek.load(tmp_path / "m.safetensors"))
    assert other.state_dict()["1.num_batches_tracked"] == 1
    assert nn.ReLU()(np.float32(-2)).shape == ()


def compute(f, *arrays):
    return deepseek.compile(deepseek.trace(f, *arrays)).run(list(arrays))[0]


@pytest.mark.parametrize("n", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0])
def test_integers_are_exact(n):
    zero = np.zeros(1, np.int64)
    assert compute(lambda a: a + n, zero)[0] == n
    assert compute(lambda a: n + a, zero)[0] == n
    assert compute(lambda a: a + np.int64(n), zero)[0] == n
    assert compute(lambda a: ops.select(a == 0, n, a), zero)[0] == n
    assert compute(lambda a: a + np.array([n]), zero)[0] == n


@pytest.mark.parametrize("dtype, n", [(np.int64, 2**63), (np.int32, 2**31), (np.int8, 128), (np.uint8, 256), (np.uint8, -1), (np.int32, 10**30)])
def test_integers_that_do_not_fit_are_refused_as_numpy_does(dtype, n):
    with pytest.raises(OverflowError):
        np.zeros(1, dtype) + n
    with pytest.raises((OverflowError, ValueError), match="out of bounds|does not fit"):
        deepseek.trace(lambda a: a + n, np.zeros(1, dtype))


def test_bfloat16_goes_in_and_out():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = RNG.normal(size=(4, 5)).astype(ml_dtypes.bfloat16)
    got = nn.ReLU()(x)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got.astype(np.float32), np.maximum(x.astype(np.float32), 0))
    np.testing.assert_array_equal(nn.ReLU()(torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16)).astype(np.float32), got.astype(np.float32))
    parameter = nn.Parameter(x)
    assert parameter.dtype == "bf16" and parameter.data.dtype == x.dtype


@pytest.mark.parametrize("name", ["x0", "x1", "x", "random", "_random", "y0", "step", "y", "weight", "learning_rate"])
def test_parameters_may_have_any_name(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.drop = nn.Dropout(0.5)
            setattr(self, name, nn.Parameter(np.full(4, 2.0, np.float32)))

        def forward(self, a, b):
            return self.drop(self.layer(a) + b) * getattr(self, name)

    net, x = Named(), np.ones((3, 4), np.float32)
    want = (x @ net.layer.weight.data.T + net.layer.bias.data + x) * 2
    np.testing.assert_allclose(net.eval()(x, x), want, rtol=1e-5)
    np.testing.assert_allclose(deepseek.freeze(net)(x, x), want, rtol=1e-5)
    trained = net.train()(x, x)
    np.testing.assert_allclose(trained[trained != 0], 2 * want[trained != 0], rtol=1e-5)
    assert not np.array_equal(net(x, x) != 0, net(x, x) != 0) or not np.array_equal(net(x, x) != 0, trained != 0)  # masks are drawn anew


def test_a_parameter_called_random_trains():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.random = nn.Parameter(np.ones(4, np.float32))

        def forward(self, a):
            return self.drop(a * self.random)

    net = Named()
    step = deepseek.compile(net, "mse_loss", deepseek.optim.SGD(lr=0.1))
    x = np.ones((8, 4), np.float32)
    assert step(x, np.zeros_like(x)) != step(x, np.zeros_like(x)) and (net.random.data < 1).all()
