"""Processes and threads around the library: forks, spawned workers, pickles, the interpreter's end, errors without its lock."""
import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import deepseek
from deepseek import nn, ops

HEAD = "import os, sys, threading, time\nimport numpy as np\nimport deepseek\nfrom deepseek import nn, ops\n"


def run(code, *arguments):
    return subprocess.run([sys.executable, *arguments, "-c", HEAD + code], capture_output=True, text=True, timeout=60)


class Net(nn.Module):
    def __init__(self, scale=2.0):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.LeakyReLU(0.3), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4 * 4 * 4, 5))
        self.gain = nn.Parameter(np.full(5, 1.5, np.float32))
        self.scale = scale
        self.sizes = [4, 5]

    def forward(self, x):
        return self.body(self.norm(self.conv(x))) * self.gain * self.scale


def images(n=3):
    return np.random.default_rng(0).normal(size=(n, 2, 4, 4)).astype(np.float32)


# Errors that are raised while other threads may run.

def test_an_error_of_compilation_is_an_exception():
    done = run("class M(nn.Module):\n  def forward(self, x): return x + ops.gather(np.arange(4.0), np.array([9]))\n"
               "try:\n  M()(np.zeros(1))\nexcept Exception as e:\n  print(type(e).__name__)")
    assert done.returncode == 0 and done.stdout.strip() in ("ValueError", "NotImplementedError"), done.stderr


def test_memory_that_is_not_there_is_a_memory_error():
    done = run("import resource\nmodel = nn.Linear(4, 4).eval()\nmodel(np.zeros((2, 4), np.float32))\n"
               "program = deepseek.compile(deepseek.trace(lambda x: ops.broadcast_to(x, dims=[1 << 20, 1 << 12]), np.zeros((1, 1), np.float32)))\n"
               "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
               "try:\n  program.run([np.zeros((1, 1), np.float32)])\nexcept (MemoryError, OSError) as e:\n  print('told')")
    assert done.returncode == 0 and done.stdout.strip() == "told", done.stderr


# Forks.

def test_a_forked_child_computes_after_its_parent_did():
    model, x = nn.Sequential(nn.Linear(256, 256), nn.ReLU()).eval(), np.ones((512, 256), np.float32)
    want = model(x)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        result = pool.map_async(model, [x, x])
        for got in result.get(timeout=60):
            np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(model(x), want)


def test_the_workers_of_a_loader_compute():
    model = nn.Linear(64, 64).eval()
    want = model(np.full((512, 64), 3, np.float32))

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return model(np.full((512, 64), i, np.float32))

    for context in ("fork",):
        batches = list(torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=2, multiprocessing_context=context, timeout=60))
        np.testing.assert_array_equal(batches[1][1].numpy(), want)


def test_spawned_processes_take_models():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval()
    x = np.ones((4, 8), np.float32)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_allclose(pool.apply_async(model, (x,)).get(timeout=120), model(x), rtol=1e-6)


# Pickles and copies.

@pytest.fixture(params=["pickle", "deepcopy"])
def twin(request):
    return (lambda x: pickle.loads(pickle.dumps(x))) if request.param == "pickle" else copy.deepcopy


def test_a_module_of_ones_own_comes_back(twin):
    net = Net(3.0)
    net.conv.dilation = 2
    net.conv.padding = 2
    net(images())  # the running statistics move
    net.body[1].eval()
    other = twin(net)
    assert [m.training for m in other.modules()] == [m.training for m in net.modules()]
    assert list(other.state_dict()) == list(net.state_dict())
    assert (other.scale, other.sizes, other.conv.dilation) == (3.0, [4, 5], (2,)) and other.gain.trainable
    np.testing.assert_array_equal(other.eval()(images()), net.eval()(images()))
    other.state_dict()["gain"][...] = 0  # memory of its own
    assert net.state_dict()["gain"][0] == 1.5
    assert other.conv is dict(other.named_modules())["conv"]


@pytest.mark.parametrize("make, shape", [
    (lambda: nn.Linear(3, 4, bias=False), (2, 3)), (lambda: nn.Conv1d(2, 4, 3, padding="same", groups=2), (1, 2, 9)),
    (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (1, 2, 4, 4)), (lambda: nn.BatchNorm1d(3, momentum=None), (4, 3)),
    (lambda: nn.InstanceNorm2d(2, affine=True), (1, 2, 4, 4)), (lambda: nn.LayerNorm([3], eps=0.1), (2, 3)), (lambda: nn.RMSNorm(3), (2, 3)),
    (lambda: nn.GroupNorm(2, 4), (1, 4, 5)), (lambda: nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5, bidirectional=True), (2, 5, 3)),
    (lambda: nn.GRU(3, 4), (5, 2, 3)), (lambda: nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True), (2, 3, 8)),
    (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True), 2, nn.LayerNorm(8)), (2, 3, 8)),
    (lambda: nn.Softmax(-1), (2, 3)), (lambda: deepseek.models.create("resnet18", [3, 32, 32], 4), (1, 3, 32, 32)),
], ids=lambda p: None)
def test_every_layer_comes_back(twin, make, shape):
    layer = make().eval()
    deepseek.manual_seed(3)
    draw = nn.Linear(2, 2).state_dict()["weight"]
    deepseek.manual_seed(3)
    other = twin(layer)
    np.testing.assert_array_equal(nn.Linear(2, 2).state_dict()["weight"], draw)  # restoring draws nothing
    assert type(other) is type(layer) and not other.training
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    np.testing.assert_array_equal(first(other(x)), first(layer(x)))


def test_attention_and_embedding_come_back(twin):
    attention, x = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True).eval(), np.ones((1, 3, 8), np.float32)
    key, value = np.ones((1, 5, 4), np.float32), np.ones((1, 5, 6), np.float32)
    np.testing.assert_array_equal(twin(attention)(x, key, value)[0], attention(x, key, value)[0])
    embedding = nn.Embedding(5, 2, padding_idx=-1).eval()
    np.testing.assert_array_equal(twin(embedding)(np.array([0, 4])), embedding(np.array([0, 4])))


def test_a_part_of_a_zoo_model_says_why_not():
    with pytest.raises(pickle.PicklingError, match="pickle the model"):
        pickle.dumps(next(c for c in deepseek.models.create("resnet18", [3, 32, 32], 2).children() if c.children()))


def test_shared_parts_stay_shared(twin):
    part = nn.Linear(2, 2)
    other = twin(nn.Sequential(part, nn.ReLU(), part))
    assert other[0] is other[2]


def test_graphs_data_sets_and_frozen_modules_come_back(twin):
    graph = deepseek.trace(lambda x: ops.relu(x) + np.arange(3, dtype=np.float32), np.zeros((2, 3), np.float32))
    assert str(twin(graph)) == str(graph)
    data = deepseek.data.Dataset(np.arange(12, dtype=np.uint8).reshape(4, 3), [0, 1, 1, 0], ["a", "b"], scale=0.5, mean=1.0, stddev=2.0)
    other = twin(data)
    assert len(other) == 4 and other.class_names == ["a", "b"] and type(other) is type(data)
    for a, b in zip(other.read([2, 0]), data.read([2, 0])):
        np.testing.assert_array_equal(a, b)
    frozen = deepseek.freeze(nn.Linear(3, 2).eval())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(twin(frozen)(x), frozen(x))


def test_trainers_and_steps_go_on(twin):
    x, y = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32), np.arange(16) % 3
    trainer = deepseek.Trainer(nn.Linear(4, 3), loss="cross_entropy", optimizer=deepseek.optim.Adam(lr=0.01), epochs=2, batch_size=8)
    trainer.fit((x, y), progress=False)
    other = twin(trainer)
    assert other.history == trainer.history and other.evaluate((x, y))["loss"] == trainer.evaluate((x, y))["loss"]
    step = deepseek.compile(nn.Linear(4, 3), "cross_entropy", deepseek.optim.Adam(lr=0.01))
    step(x, y)
    other = twin(step)
    assert [other(x, y) for _ in range(3)] == [step(x, y) for _ in range(3)] and other.steps == 4


def test_pipelines_come_back(twin):
    pytest.importorskip("pyarrow")
    pipeline = deepseek.data.Pipeline(["impute"])
    table = {"a": np.array([1.0, np.nan, 3.0])}
    assert not twin(pipeline).fitted
    pipeline.fit(table)
    np.testing.assert_array_equal(np.asarray(twin(pipeline).transform(table)["a"]), np.asarray(pipeline.transform(table)["a"]))


# Threads.

@pytest.mark.parametrize("work", [
    "f = deepseek.freeze(nn.Linear(256, 256).eval()); g = lambda: f(np.ones((64, 256), 'f4'))",
    "s = deepseek.compile(nn.Linear(64, 8), 'cross_entropy'); g = lambda: s(np.ones((64, 64), 'f4'), np.zeros(64, 'i8'))",
    "t = deepseek.Trainer(nn.Linear(4, 2), epochs=10**6, batch_size=1); g = lambda: t.fit((np.ones((8, 4), 'f4'), np.zeros(8, 'i8')), progress=False)",
    "t = deepseek.Trainer(nn.Linear(4, 2), epochs=10**6, batch_size=8); "
    "g = lambda: t.fit((np.ones((8, 4), 'f4'), np.zeros(8, 'i8')), progress=False, callback=lambda r: sum(range(1000)))",
])
def test_the_interpreter_ends_while_a_thread_computes(work):
    for _ in range(3):
        done = run(work + "\ndef loop():\n  while True: g()\nfor _ in range(2): threading.Thread(target=loop, daemon=True).start()\n"
                   "time.sleep(0.4)\nprint('end')")
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_a_step_used_by_threads_counts_every_update():
    """Each update adds 1 to a parameter, whatever the order of the threads."""
    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(np.zeros(20000, np.float32))

        def forward(self, x):
            return x * 0.0 - ops.sum(self.bias)

    model = Bias()
    step = deepseek.compile(model, lambda p, y: ops.mean(p), deepseek.optim.SGD(lr=1.0))
    x = np.zeros((1, 1), np.float32)
    step(x, x)
    seen = []

    def work():
        for _ in range(100):
            step(x, x)
            state = step.state()["bias"]
            seen.append(step.steps)
            assert state.min() >= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert step.steps == 401 and len(seen) == 400
    np.testing.assert_array_equal(model.state_dict()["bias"], np.full(20000, 401, np.float32))


def test_a_trainer_used_by_threads_and_in_its_own_callback():
    x, y = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), np.arange(64) % 3
    trainer = deepseek.Trainer(nn.Linear(4, 3), loss="cross_entropy", epochs=3, batch_size=8)
    losses = []
    threads = [threading.Thread(target=trainer.fit, args=((x, y),), kwargs={"progress": False, "callback": lambda r: losses.append(trainer.evaluate((x, y))["loss"])}),
               *(threading.Thread(target=lambda: losses.append(trainer.evaluate((x, y))["loss"])) for _ in range(8))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(losses) == 11 and np.isfinite(losses).all()
