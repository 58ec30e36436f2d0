"""The zoo beside the same architectures in PyTorch, with its initial weights: outputs and all gradients.

PyTorch computes in float64, see test_parity.py.
"""

import pathlib
import sys

import numpy as np
import pytest
import torch

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


def vectors(random):
    return [random.standard_normal((3, 10, 64)).astype(np.float32)]


CASES = {
    "resnet18": ("resnet18", dict(width=8, blocks=1), lambda: torch_models.resnet18(width=8, blocks=1, classes=5), images),
    "resnet50": ("resnet50", dict(width=4, blocks=2), lambda: torch_models.resnet50(width=4, blocks=2, classes=5), images),
    "bert": ("bert", dict(dropout=0, **BERT), lambda: torch_models.BertClassifier(5, dropout=0, **BERT), tokens),
    "bert_mlm": ("bert", dict(dropout=0, head="mlm", **BERT), lambda: torch_models.BertMaskedLanguage(dropout=0, **BERT), tokens),
    "bert_stack": ("bert", dict(dropout=0, head="none", width=64, layers=2, heads=4),
                   lambda: torch_models.Bert(0, 64, 2, 4, dropout=0), vectors),
}


def assert_close(ours, theirs, what, tolerance=1e-4):
    """Relative to the largest element."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert error <= tolerance * scale + 1e-9, f"{what}: error {error:.3g} where the largest element is {scale:.3g}"


class WithLoss(deepseek.nn.Module):
    """The sum of squares of what the model gives, beside that."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        y = self.model(*inputs)
        return ops.sum(y * y), y


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_agree_with_torch(case, training):
    name, parameters, build, make_inputs = CASES[case]
    torch.manual_seed(5)
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
