"""The zoo beside the same architectures in PyTorch, with its initial weights: outputs and all gradients.

The peers are of bench/torch_models.py and of the package efficientnet_pytorch.
PyTorch computes in float64, see test_parity.py.
"""

import pathlib
import sys

import numpy as np
import pytest
import torch
from efficientnet_pytorch import EfficientNet

import deepseek
from deepseek import ops

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "bench"))
import torch_models  # noqa: E402

BERT = dict(vocabulary=50, width=64, layers=2, heads=4, positions=12)


def images(random):
    return [random.standard_normal((4, 3, 64, 64)).astype(np.float32)]


def tokens(random):
    mask = np.ones((3, 10), np.int64)
    mask[1, 7:] = 0
    return [random.integers(0, 50, (3, 10)), mask, random.integers(0, 2, (3, 10))]


def words(random):
    return [random.integers(0, 50, (3, 10))]


def vectors(random):
    return [random.standard_normal((3, 10, 64)).astype(np.float32)]


def odd_images(random):
    """Sizes that "same" padding does not halve evenly."""
    return [random.standard_normal((4, 3, 45, 38)).astype(np.float32)]


def volumes(random):
    return [random.standard_normal((2, 2, 8, 12, 16)).astype(np.float32)]


def efficientnet(size, **options):
    """The published implementation, with padding for any size of picture. Not for widths below 0.3, where stages of as many
    channels follow each other: the first block of the second has a shortcut in the authors' code and ours, but not there.
    """
    return EfficientNet.from_name(f"efficientnet-{size}", image_size=None, dropout_rate=0, drop_connect_rate=0, num_classes=5, **options)


NO_DROPS = dict(dropout=0, drop_connect=0)
CASES = {
    "mlp": ("mlp", dict(width=256, layers=3), lambda: torch_models.mlp(3 * 64 * 64, layers=3, classes=5), images),
    "lstm": ("lstm", dict(width=512, layers=2), lambda: torch_models.Lstm(64, width=512, layers=2, classes=5), vectors),
    "lstm_words": ("lstm", dict(width=16, vocabulary=50), lambda: torch_models.Lstm(width=16, vocabulary=50, classes=5), words),
    "transformer": ("transformer", dict(width=32), lambda: torch_models.Transformer(10, 64, width=32, classes=5), vectors),
    "resnet18": ("resnet18", dict(width=8, blocks=1), lambda: torch_models.resnet(18, width=8, blocks=1, classes=5), images),
    "resnet34": ("resnet34", dict(width=8), lambda: torch_models.resnet(34, width=8, last_norm=0.2, classes=5), images),
    "resnet50": ("resnet50", dict(width=4, blocks=2), lambda: torch_models.resnet(50, width=4, blocks=2, classes=5), images),
    "resnet101": ("resnet101", dict(width=8), lambda: torch_models.resnet(101, width=8, last_norm=0.2, classes=5), images),
    "resnet152": ("resnet152", dict(width=8), lambda: torch_models.resnet(152, width=8, last_norm=0.2, classes=5), images),
    "efficientnet_b0": ("efficientnet_b0", NO_DROPS, lambda: efficientnet("b0"), odd_images),
    "efficientnet_b3": ("efficientnet_b3", NO_DROPS, lambda: efficientnet("b3"), odd_images),
    "efficientnet_b7": ("efficientnet_b7", dict(width=0.3, **NO_DROPS), lambda: efficientnet("b7", width_coefficient=0.3), odd_images),
    "unet3d": ("unet3d", dict(channels="8,12,16"), lambda: torch_models.Unet3d((8, 12, 16), 2, 5), volumes),
    "unet3d_strided": ("unet3d", dict(channels="8,12", slope=0.01, down="stride"),
                       lambda: torch_models.Unet3d((8, 12), 2, 5, slope=0.01, strided=True), volumes),
    "bert": ("bert", dict(dropout=0, **BERT), lambda: torch_models.BertClassifier(5, dropout=0, **BERT), tokens),
    "bert_mlm": ("bert", dict(dropout=0, head="mlm", **BERT), lambda: torch_models.BertMaskedLanguage(dropout=0, **BERT), tokens),
    "bert_stack": ("bert", dict(dropout=0, head="none", width=64, layers=2, heads=4),
                   lambda: torch_models.Bert(0, 64, 2, 4, dropout=0), vectors),
}


def assert_close(ours, theirs, what, tolerance=1e-4, floor=1e-9):
    """Relative to the largest element; `floor` is absolute."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert error <= tolerance * scale + floor, f"{what}: error {error:.3g} where the largest element is {scale:.3g}"


class WithLoss(deepseek.nn.Module):
    """The sum of squares of what the model gives, beside that."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        y = self.model(*inputs)
        return ops.sum(y * y), y


# Networks so deep that rounding may turn a ReLU's input from one side of 0 to the other, and then many gradients with it (or
# is multiplied by batch norms to near the tolerance), in PyTorch's own float32 too. A draw of weights where that happens says
# nothing, so one that agrees is enough.
DRAWS = {"resnet34": 3, "resnet101": 6, "resnet152": 10, "efficientnet_b3": 3}
# In training its batch norms, one after the other, multiply rounding to beyond the tolerance, PyTorch's too.
EVALUATION_ONLY = {"efficientnet_b7"}


@pytest.mark.parametrize("training, case", [(t, c) for c in CASES for t in (True, False) if not (t and c in EVALUATION_ONLY)])
def test_outputs_and_gradients_agree_with_torch(case, training):
    for left in reversed(range(DRAWS.get(case, 1))):
        try:
            return assert_agreement(case, training, seed=5 + left)
        except AssertionError:
            if left == 0:
                raise


def assert_agreement(case, training, seed):
    name, parameters, build, make_inputs = CASES[case]
    torch.manual_seed(seed)
    theirs = build()
    arrays = make_inputs(np.random.default_rng(4))
    model = deepseek.models.create(name, arrays[0].shape[1:], 5, **parameters)
    model.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    theirs = theirs.double().train(training)
    inputs = [torch.from_numpy(a) for a in arrays]
    expected = theirs(*(x.double() if x.is_floating_point() else x for x in inputs))
    (expected**2).sum().backward()

    ours = WithLoss(model).train(training)
    graph = ours.graph(*arrays)
    names = [n for n, _ in ours.named_parameters()]
    program = deepseek.compile(deepseek._core.autodiff(graph, "y0", names))
    given = {f"x{i}": a for i, a in enumerate(arrays)} | {n: np.array(v) for n, v in ours.state_dict().items()}
    outputs = program.run([given[n] for n in program.input_names])
    assert_close(outputs[1], expected, "output")
    peers = dict(theirs.named_parameters())
    assert names == ["model." + n for n in peers]
    largest = max(p.grad.abs().max().item() for p in peers.values())
    for n, gradient in zip(names, outputs[2:]):
        peer = peers[n.removeprefix("model.")].grad
        if peer.abs().max() < 1e-9 * largest:  # zero but for rounding: the keys' bias moves all scores alike
            assert np.abs(gradient).max() < 1e-5 * largest, n
        else:
            assert_close(gradient, peer, n)


def assert_trains_as_its_peer(name, parameters, theirs, x, y):
    """Some steps of SGD: the losses, and what batch norm's momentum makes of the running statistics."""
    model = deepseek.models.create(name, x.shape[1:], 5, **parameters)
    model.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    theirs = theirs.double().train()
    step = deepseek.compile(model, "cross_entropy", deepseek.optim.SGD(0.01))
    optimizer = torch.optim.SGD(theirs.parameters(), 0.01)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x).double()), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step(x, y) == pytest.approx(loss.item(), rel=1e-4)
    state = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        if "running" in name:
            assert_close(np.array(state[name]), tensor, name, floor=1e-7)  # some means are 0 but for rounding


def test_efficientnet_trains_as_its_peer():
    torch.manual_seed(5)
    random = np.random.default_rng(4)
    theirs = efficientnet("b0", width_coefficient=0.5)
    assert_trains_as_its_peer("efficientnet_b0", dict(width=0.5, **NO_DROPS), theirs, odd_images(random)[0], random.integers(0, 5, 4))


def test_unet3d_learns_a_class_for_each_voxel_as_its_peer():
    torch.manual_seed(5)
    random = np.random.default_rng(4)
    x, y = volumes(random)[0], random.integers(0, 5, (2, 8, 12, 16))
    assert_trains_as_its_peer("unet3d", dict(channels=[8, 12, 16]), torch_models.Unet3d((8, 12, 16), 2, 5), x, y)


@pytest.mark.parametrize("size", range(8))
def test_efficientnet_has_the_names_and_shapes_of_its_peer(size):
    with torch.device("meta"):
        theirs = EfficientNet.from_name(f"efficientnet-b{size}", width_coefficient=0.3)
    ours = deepseek.models.create(f"efficientnet_b{size}", [3, 32, 32], 1000, width=0.3)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: tuple(t.shape) for n, t in theirs.state_dict().items()}
