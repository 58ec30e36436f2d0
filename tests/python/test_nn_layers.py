"""Each layer against PyTorch's in float64 with the weights exchanged by name: outputs, gradients, running statistics."""

import numpy as np
import pytest
import torch

from deepseek import _core, nn

T = torch.nn
HIDDEN = np.triu(np.ones((5, 5), bool), 1)  # hides the later keys
PADDING = np.arange(5) >= np.array([[5], [3], [4]])


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [] if value is None else [value]


class Weighted(nn.Module):
    """The module's outputs, and first their sum weighted by fixed numbers: a scalar that all of them reach."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        out = leaves(self.module(*args, **kwargs))
        return [sum((y * weights_like(y.shape)).sum() for y in out), *out]


def weights_like(shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def to_torch(x):
    if isinstance(x, tuple):
        return tuple(to_torch(v) for v in x)
    if not isinstance(x, np.ndarray):
        return x
    return torch.from_numpy(x).double().requires_grad_() if x.dtype == np.float32 else torch.from_numpy(x)


def run_ours(module, args, kwargs):
    """Outputs, and gradients by name of the float inputs and the parameters."""
    wrapper = Weighted(module)
    arrays = leaves(args) + leaves(list(kwargs.values()))
    arrays = [a for a in arrays if isinstance(a, np.ndarray)]
    given = {f"x{i}": a for i, a in enumerate(arrays)}
    names = [n for n, a in given.items() if a.dtype == np.float32] + ["module." + n for n, _ in module.named_parameters()]
    graph = wrapper.graph(*args, **kwargs)
    known = _core.compile(graph).input_names
    names = [n for n in names if n in known]
    program = _core.compile(_core.autodiff(graph, "y0", names))
    state = wrapper.state_dict()
    results = program.run([given[n] if n in given else state[n] for n in program.input_names])
    count = len(results) - len(names)
    return results[1:count], {n.removeprefix("module."): g for n, g in zip(names, results[count:])}


def check(ours, theirs, *args, atol=2e-5, **kwargs):
    """Training and evaluation of both, in this order, on the same weights."""
    for i, parameter in enumerate(ours.parameters()):  # not the ones and zeros that layers start with
        parameter += 0.1 * np.random.default_rng(i).standard_normal(parameter.shape).astype(np.float32)
    theirs = theirs.double()
    assert [(n, v.shape) for n, v in sorted(ours.state_dict().items())] == [(n, tuple(v.shape)) for n, v in sorted(theirs.state_dict().items())]
    theirs.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in ours.state_dict().items()})
    for mode in (True, False):
        ours.train(mode)
        theirs.train(mode)
        their_args, their_kwargs = tuple(to_torch(a) for a in args), {k: to_torch(v) for k, v in kwargs.items()}
        expected = leaves(theirs(*their_args, **their_kwargs))
        outputs, gradients = run_ours(ours, args, kwargs)
        assert len(outputs) == len(expected)
        for y, e in zip(outputs, expected):
            assert y.shape == tuple(e.shape)
            np.testing.assert_allclose(y, e.detach().numpy(), rtol=1e-4, atol=atol)
        theirs.zero_grad()
        sum((e * torch.from_numpy(weights_like(tuple(e.shape)))).sum() for e in expected).backward()
        inputs = [t for t in leaves(their_args) + leaves(list(their_kwargs.values())) if isinstance(t, torch.Tensor)]
        expected_gradients = {f"x{i}": t.grad for i, t in enumerate(inputs) if t.grad is not None}
        expected_gradients.update({n: p.grad for n, p in theirs.named_parameters() if p.grad is not None})
        assert set(expected_gradients) == set(gradients)
        for name, gradient in expected_gradients.items():
            np.testing.assert_allclose(gradients[name], gradient.numpy(), rtol=1e-4, atol=10 * atol, err_msg=f"gradient of {name}, training {mode}")
    for name, buffer in theirs.named_buffers():
        np.testing.assert_allclose(ours.state_dict()[name], buffer.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONVOLUTIONS = {
    "1d": ("Conv1d", (4, 6, 3), dict(stride=2, padding=1), (2, 4, 9)),
    "2d": ("Conv2d", (4, 6, (3, 2)), dict(padding=(1, 0), dilation=2, groups=2), (2, 4, 7, 8)),
    "2d_same": ("Conv2d", (3, 2, 4), dict(padding="same", bias=False), (2, 3, 6, 5)),
    "3d": ("Conv3d", (2, 3, (1, 2, 3)), dict(stride=(1, 2, 1)), (1, 2, 3, 5, 4)),
    "transposed_1d": ("ConvTranspose1d", (4, 6, 3), dict(stride=2, output_padding=1), (2, 4, 5)),
    "transposed_2d": ("ConvTranspose2d", (4, 6, 3), dict(stride=2, padding=1, groups=2), (2, 4, 3, 4)),
    "transposed_3d": ("ConvTranspose3d", (2, 3, 2), dict(bias=False), (1, 2, 2, 3, 2)),
}
NORMS = {
    "batch_1d": ("BatchNorm1d", (4,), {}, (6, 4)),
    "batch_1d_time": ("BatchNorm1d", (4,), dict(momentum=0.3), (3, 4, 5)),
    "batch_2d_plain": ("BatchNorm2d", (4,), dict(affine=False, eps=1e-3), (3, 4, 3, 5)),
    "batch_2d_no_statistics": ("BatchNorm2d", (4,), dict(track_running_stats=False), (3, 4, 3, 5)),
    "batch_3d_mean_of_all": ("BatchNorm3d", (2,), dict(momentum=None), (2, 2, 2, 3, 2)),
    "layer": ("LayerNorm", (6,), {}, (2, 3, 6)),
    "layer_2_axes": ("LayerNorm", ((3, 6),), dict(bias=False), (2, 3, 6)),
    "layer_plain": ("LayerNorm", (6,), dict(elementwise_affine=False), (2, 6)),
    "rms": ("RMSNorm", (6,), dict(eps=1e-6), (2, 3, 6)),
    "group": ("GroupNorm", (2, 6), {}, (2, 6, 3, 4)),
    "group_plain": ("GroupNorm", (3, 6), dict(affine=False), (2, 6, 5)),
    "instance_1d": ("InstanceNorm1d", (4,), {}, (2, 4, 5)),
    "instance_2d": ("InstanceNorm2d", (4,), dict(affine=True), (2, 4, 3, 4)),
    "instance_3d": ("InstanceNorm3d", (2,), dict(affine=True, track_running_stats=True), (2, 2, 2, 3, 2)),
}
POOLS = {
    "max_1d": ("MaxPool1d", (3,), {}, (2, 3, 9)),
    "max_2d": ("MaxPool2d", (3, 2), dict(padding=1, ceil_mode=True), (2, 3, 8, 7)),
    "max_2d_dilated": ("MaxPool2d", (2,), dict(stride=1, dilation=2), (2, 3, 6, 7)),
    "max_3d": ("MaxPool3d", (2,), {}, (1, 2, 4, 4, 5)),
    "avg_1d": ("AvgPool1d", (3, 2, 1), {}, (2, 3, 9)),
    "avg_2d": ("AvgPool2d", ((2, 3),), dict(padding=1, count_include_pad=False), (2, 3, 6, 7)),
    "avg_3d": ("AvgPool3d", (2,), {}, (1, 2, 4, 4, 5)),
    "adaptive_1d": ("AdaptiveAvgPool1d", (4,), {}, (2, 3, 7)),
    "adaptive_2d": ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 7, 5)),
    "adaptive_3d": ("AdaptiveAvgPool3d", (1,), {}, (2, 3, 2, 3, 4)),
    "nearest": ("Upsample", (), dict(scale_factor=2), (2, 3, 4, 5)),
    "linear": ("Upsample", (), dict(size=8, mode="linear"), (2, 3, 5)),
    "bilinear": ("Upsample", (), dict(scale_factor=2, mode="bilinear", align_corners=True), (2, 3, 4, 5)),
    "trilinear": ("Upsample", ((3, 4, 5),), dict(mode="trilinear"), (1, 2, 2, 3, 2)),
    "flatten": ("Flatten", (), {}, (2, 3, 4)),
    "flatten_part": ("Flatten", (0, 1), {}, (2, 3, 4)),
    "identity": ("Identity", (), {}, (2, 3)),
    "linear_layer": ("Linear", (5, 4), {}, (2, 3, 5)),
    "linear_plain": ("Linear", (5, 4, False), {}, (2, 5)),
}
ACTIVATIONS = {
    "relu": ("ReLU", (), {}), "gelu": ("GELU", (), {}), "gelu_tanh": ("GELU", ("tanh",), {}), "silu": ("SiLU", (), {}), "sigmoid": ("Sigmoid", (), {}),
    "tanh": ("Tanh", (), {}), "elu": ("ELU", (0.5,), {}), "leaky_relu": ("LeakyReLU", (), dict(negative_slope=0.2)), "hardswish": ("Hardswish", (), {}),
    "softmax": ("Softmax", (1,), {}), "log_softmax": ("LogSoftmax", (), dict(dim=-1)),
}
CASES = {**CONVOLUTIONS, **NORMS, **POOLS, **{n: (*c, (3, 4, 5)) for n, c in ACTIVATIONS.items()}}


@pytest.mark.parametrize("name", CASES)
def test_layer(name):
    kind, args, kwargs, shape = CASES[name]
    check(getattr(nn, kind)(*args, **kwargs), getattr(T, kind)(*args, **kwargs), 3 * normal(*shape))


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(padding_idx):
    ours, theirs = nn.Embedding(7, 3, padding_idx), T.Embedding(7, 3, padding_idx)
    if padding_idx is not None:
        assert not ours.state_dict()["weight"][padding_idx].any()
    check(ours, theirs, np.array([[1, 2, 6], [2, 0, 1]]))


RECURRENT = {
    "plain": {},
    "no_bias": dict(bias=False),
    "batch_first": dict(batch_first=True),
    "two_layers_both_ways": dict(num_layers=2, bidirectional=True),
}


@pytest.mark.parametrize("options", RECURRENT)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent(kind, options):
    options = RECURRENT[options]
    runs = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    ours, theirs = getattr(nn, kind)(4, 5, **options), getattr(T, kind)(4, 5, **options)
    check(ours, theirs, normal(3, 2, 4))
    h, c = (normal(runs, 3 if options.get("batch_first") else 2, 5, seed=seed) for seed in (1, 2))
    check(ours, theirs, normal(3, 2, 4), (h, c) if kind == "LSTM" else h)


def test_recurrent_dropout_is_between_layers_in_training_only():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    x = normal(2, 2, 3)
    a, b = layer(x)[0], layer(x)[0]
    assert (a != b).any()
    theirs = T.LSTM(3, 4, num_layers=2)
    theirs.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in layer.state_dict().items()})
    np.testing.assert_allclose(layer.eval()(x)[0], theirs(torch.from_numpy(x))[0].detach().numpy(), rtol=1e-4, atol=1e-5)


ATTENTION = {
    "self": ({}, dict()),
    "no_bias_batch_first": (dict(bias=False, batch_first=True), dict(need_weights=False)),
    "hidden": ({}, dict(attn_mask=HIDDEN)),
    "added": ({}, dict(attn_mask=normal(5, 5, seed=5), average_attn_weights=False)),
    "padding": (dict(batch_first=True), dict(key_padding_mask=PADDING)),
    "both": (dict(batch_first=True), dict(key_padding_mask=PADDING, attn_mask=HIDDEN, need_weights=False)),
    "per_head": (dict(batch_first=True), dict(attn_mask=normal(6, 5, 5, seed=5))),
}


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case):
    options, call = ATTENTION[case]
    x = normal(3, 5, 4) if options.get("batch_first") else normal(5, 3, 4)

    class Self(nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.attention = attention

        def forward(self, x, **kwargs):
            return self.attention(x, x, x, **kwargs)

    theirs = T.Module()
    theirs.attention = T.MultiheadAttention(4, 2, **options)
    theirs.forward = lambda x, **kwargs: theirs.attention(x, x, x, **kwargs)
    check(Self(nn.MultiheadAttention(4, 2, **options)), theirs, x, **call)


def test_cross_attention_of_other_widths():
    check(nn.MultiheadAttention(4, 2, kdim=3, vdim=6), T.MultiheadAttention(4, 2, kdim=3, vdim=6), normal(5, 2, 4), normal(7, 2, 3), normal(7, 2, 6))
    check(nn.MultiheadAttention(4, 2), T.MultiheadAttention(4, 2), normal(5, 2, 4), normal(7, 2, 4), normal(7, 2, 4, seed=1))


def test_causal_attention_needs_no_mask():
    layer, x = nn.MultiheadAttention(4, 2), normal(5, 3, 4)
    expected, weights = layer(x, x, x, attn_mask=HIDDEN)
    assert not weights[:, HIDDEN].any()
    for need_weights in (True, False):
        np.testing.assert_allclose(layer(x, x, x, need_weights=need_weights, is_causal=True)[0], expected, rtol=1e-5, atol=1e-6)


def test_attention_dropout_drops_weights_in_training_only():
    layer, x = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True), normal(8, 16, 4)
    _, weights = layer(x, x, x, average_attn_weights=False)
    _, kept = layer.eval()(x, x, x, average_attn_weights=False)
    dropped = weights == 0
    assert 0.4 < dropped.mean() < 0.6
    np.testing.assert_allclose(weights[~dropped], 2 * kept[~dropped], rtol=1e-5)
    np.testing.assert_allclose(kept.sum(-1), 1, rtol=1e-5)
    encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.5)
    assert (encoder(x) != encoder(x)).any()
    np.testing.assert_array_equal(encoder.eval()(x), encoder(x))


@pytest.mark.parametrize("options", [{}, dict(batch_first=True, norm_first=True, activation="gelu"), dict(bias=False, layer_norm_eps=1e-3)])
def test_transformer_encoder(options):
    x = normal(3, 5, 4) if options.get("batch_first") else normal(5, 3, 4)
    options = dict(dim_feedforward=6, dropout=0.0, **options)
    ours, theirs = nn.TransformerEncoderLayer(4, 2, **options), T.TransformerEncoderLayer(4, 2, **options)
    check(ours, theirs, x)
    check(ours, theirs, x, src_mask=HIDDEN, src_key_padding_mask=PADDING)
    check(nn.TransformerEncoder(ours, 2, nn.LayerNorm(4)), T.TransformerEncoder(theirs, 2, T.LayerNorm(4), enable_nested_tensor=False), x)


def test_encoder_layers_start_alike_and_apart():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2)
    state = encoder.state_dict()
    np.testing.assert_array_equal(state["layers.0.linear1.weight"], state["layers.1.linear1.weight"])
    encoder.layers[0].linear1.weight.data[...] = 0
    assert state["layers.1.linear1.weight"].any() and not state["layers.0.linear1.weight"].any()


def test_the_encoder_copies_its_own_kind_of_layer():
    with pytest.raises(TypeError, match="expected a TransformerEncoderLayer to copy, got Linear; put other layers into a ModuleList"):
        nn.TransformerEncoder(nn.Linear(4, 4), 2)


LOGITS, CLASSES = normal(6, 4), np.array([0, 3, 1, 2, 2, 0])
LOSSES = {
    "cross_entropy": (("CrossEntropyLoss", dict(label_smoothing=0.1, ignore_index=2)), LOGITS, CLASSES),
    "cross_entropy_none": (("CrossEntropyLoss", dict(reduction="none")), normal(2, 3, 4), np.array([[0, 1, 2, 1], [2, 2, 0, 1]])),
    "cross_entropy_weighted": (("CrossEntropyLoss", dict(weight=np.float32([1, 2, 0.5, 3]), ignore_index=0)), LOGITS, CLASSES),
    "nll_weighted_sum": (("NLLLoss", dict(weight=np.float32([1, 2, 0.5, 3]), reduction="sum")), LOGITS, CLASSES),
    "mse": (("MSELoss", {}), LOGITS, normal(6, 4, seed=1)),
    "l1_sum": (("L1Loss", dict(reduction="sum")), LOGITS, normal(6, 4, seed=1)),
    "huber": (("HuberLoss", dict(delta=0.5)), LOGITS, normal(6, 4, seed=1)),
    "bce": (("BCEWithLogitsLoss", dict(pos_weight=np.float32([1, 2, 0.5, 3]))), LOGITS, (normal(6, 4, seed=1) > 0).astype(np.float32)),
    "ctc": (("CTCLoss", dict(zero_infinity=True)), normal(7, 3, 4), np.array([[1, 2, 2], [3, 1, 0], [1, 0, 0]]), np.array([7, 5, 6]), np.array([3, 2, 1])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name):
    (kind, options), prediction, *target = LOSSES[name]
    theirs = getattr(T, kind)(**{k: torch.from_numpy(v).double() if isinstance(v, np.ndarray) else v for k, v in options.items()})

    class Log(nn.Module):
        def __init__(self, loss):
            super().__init__()
            self.loss = loss

        def forward(self, x, *args):
            return self.loss(x.log_softmax(-1) if kind in ("CTCLoss", "NLLLoss") else x, *args)

    twin = T.Module()
    twin.loss = lambda x, *args: theirs(torch.log_softmax(x, -1) if kind in ("CTCLoss", "NLLLoss") else x, *args)
    twin.forward = lambda x, *args: twin.loss(x, *args)
    x = torch.from_numpy(prediction).double().requires_grad_()
    # The target's own gradient is not what a loss is for.
    targets = [torch.from_numpy(t).double() if t.dtype == np.float32 else torch.from_numpy(t) for t in target]
    expected = twin.forward(x, *targets)
    (expected * torch.from_numpy(weights_like(tuple(expected.shape)))).sum().backward()
    (y,), gradients = run_ours(Log(getattr(nn, kind)(**options)), (prediction, *target), {})
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients["x0"], x.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_losses_that_torch_has_not():
    p, t = normal(4, 3), normal(4, 3, seed=1)
    e = t - p
    np.testing.assert_allclose(nn.QuantileLoss(0.9)(p, t), np.maximum(0.9 * e, -0.1 * e).mean(), rtol=1e-5)
    q, mask = 1 / (1 + np.exp(-normal(2, 3, 8))), (normal(2, 3, 8, seed=1) > 0).astype(np.float32)
    dice = 1 - (2 * (q * mask).sum(2) + 1) / (q.sum(2) + mask.sum(2) + 1)
    np.testing.assert_allclose(nn.DiceLoss()(q, mask), dice.mean(), rtol=1e-5)
    x, y = normal(4, 5), (normal(4, 5, seed=1) > 0).astype(np.float32)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(y), reduction="none").numpy()
    hit = np.where(y == 1, 1 / (1 + np.exp(-x)), 1 - 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(nn.FocalLoss(gamma=3)(x, y), (np.where(y == 1, 0.25, 0.75) * (1 - hit) ** 3 * bce).mean(), rtol=1e-4)


# Parameters start from PyTorch's distributions: the same bounds, and the moments of many draws.


@pytest.mark.parametrize("make", [
    lambda m: m.Linear(50, 60), lambda m: m.Conv2d(8, 20, 3, groups=2), lambda m: m.ConvTranspose2d(20, 8, 3, groups=2), lambda m: m.LSTM(20, 30),
    lambda m: m.GRU(20, 30, bidirectional=True), lambda m: m.MultiheadAttention(32, 4), lambda m: m.MultiheadAttention(32, 4, kdim=20, vdim=24),
    lambda m: m.Embedding(50, 40), lambda m: m.TransformerEncoderLayer(32, 4, 64), lambda m: m.BatchNorm2d(4), lambda m: m.GroupNorm(2, 4),
], ids=["linear", "conv", "conv_transpose", "lstm", "gru", "attention", "attention_widths", "embedding", "encoder_layer", "batch_norm", "group_norm"])
def test_initial_distributions(make):
    nn.manual_seed(1)
    torch.manual_seed(1)
    ours, theirs = make(nn).state_dict(), make(T).state_dict()
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        expected = theirs[name].numpy()
        scale = max(expected.std(), 1e-9)
        n = value.size
        assert abs(value.mean() - expected.mean()) <= 6 * scale / n ** 0.5, name
        if n >= 60:
            assert value.std() == pytest.approx(expected.std(), rel=6 / n ** 0.5), name
            if not name.endswith("weight") or "embedding" not in name and value.ndim > 1 and abs(expected).max() < 1:
                assert abs(value).max() <= abs(expected).max() * 1.3 + 1e-9, name


def test_the_seed_decides():
    nn.manual_seed(3)
    a = nn.LSTM(3, 4).state_dict()
    b = nn.LSTM(3, 4).state_dict()
    nn.manual_seed(3)
    c = nn.LSTM(3, 4).state_dict()
    for name in a:
        np.testing.assert_array_equal(a[name], c[name])
        assert (a[name] != b[name]).any()


@pytest.mark.parametrize("make, message", [
    (lambda: nn.Linear(0, 3), "Linear: expected in_features and out_features >= 1, got 0 and 3"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv: expected groups to divide in_channels 3 and out_channels 4, got 2"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), r"kernel_size: expected one number or 2, got \(3, 3, 3\)"),
    (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), "padding='same' needs stride 1"),
    (lambda: nn.GroupNorm(3, 4), "GroupNorm: expected groups to divide the channels, got groups 3 and channels 4"),
    (lambda: nn.Embedding(4, 2, padding_idx=4), r"Embedding: expected padding_idx in \[-4, 4\), got 4"),
    (lambda: nn.Dropout(1.5), r"Dropout: expected a probability in \[0, 1\), got 1.5"),
    (lambda: nn.LSTM(3, 4, num_layers=0), "lstm: expected input_size, hidden_size and num_layers >= 1, got 3, 4 and 0"),
    (lambda: nn.MultiheadAttention(5, 2), "MultiheadAttention: expected heads to divide the width, got embed_dim 5 and num_heads 2"),
    (lambda: nn.TransformerEncoderLayer(4, 2, activation="swoosh"), "activation: expected one of relu, gelu, silu"),
    (lambda: nn.BatchNorm2d(3)(normal(2, 3)), r"BatchNorm2d: expected an input of 4 axes, \[N, C, ...\], got shape \(2, 3\)"),
    (lambda: nn.LSTM(3, 4)(normal(2, 3)), "lstm: expected an input of 3 axes, \\[time, batch, features\\], got f32\\[2,3\\]"),
    (lambda: nn.GRU(3, 4)(normal(2, 5, 3), normal(1, 4, 4)), r"gru: expected 1 initial state\(s\) \[1,5,4\], got 1 of f32\[1,4,4\]"),
    (lambda: nn.MultiheadAttention(4, 2)(normal(5, 4), normal(5, 4), normal(5, 4)), "expected query, key and value of 3 axes"),
])
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
