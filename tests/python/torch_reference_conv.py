"""What convolution, pooling and normalisation ops mean, by PyTorch.

REFERENCE maps an op's name to function(inputs, attrs) -> tensor or tuple of the op's outputs. `attrs` holds plain Python
values by name; one that is missing takes the op's default.
"""

import torch
import torch.nn.functional as F


def _ints(attrs, name, rank, default):
    return tuple(attrs.get(name) or ()) or (default,) * rank


def _pad(x, low, high, value=0.0):
    """Pads the spatial axes; F.pad wants the last axis first."""
    amounts = [n for pair in reversed(list(zip(low, high))) for n in pair]
    return F.pad(x, amounts, value=value)


def _padding(attrs, rank):
    return _ints(attrs, "padding_low", rank, 0), _ints(attrs, "padding_high", rank, 0)


def _conv(x, w, attrs):
    rank = x.dim() - 2
    low, high = _padding(attrs, rank)
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return function(
        _pad(x, low, high),
        w,
        stride=_ints(attrs, "stride", rank, 1),
        dilation=_ints(attrs, "dilation", rank, 1),
        groups=attrs.get("groups", 1),
    )


def conv(inputs, attrs):
    return _conv(*inputs, attrs)


def conv_input_grad(inputs, attrs):
    dy, w = inputs
    x = torch.zeros(attrs["input_dims"], dtype=dy.dtype, requires_grad=True)
    with torch.enable_grad():
        return torch.autograd.grad(_conv(x, w, attrs), x, dy)[0]


def conv_weight_grad(inputs, attrs):
    x, dy = inputs
    dims = [dy.shape[1], x.shape[1] // attrs.get("groups", 1), *attrs["kernel"]]
    w = torch.zeros(dims, dtype=x.dtype, requires_grad=True)
    with torch.enable_grad():
        return torch.autograd.grad(_conv(x, w, attrs), w, dy)[0]


def _unblocked(x):
    """[N, C/b, spatial..., b] as [N, C, spatial...]."""
    return x.movedim(-1, 2).flatten(1, 2)


def _blocked(x, block):
    return x.unflatten(1, (-1, block)).movedim(2, -1)


def _unblocked_weights(w):
    """[A/a, B/b, kernel..., b, a] as [A, B, kernel...]."""
    return w.movedim((-1, -2), (1, 3)).flatten(0, 1).flatten(1, 2)


def blocked_conv(inputs, attrs):
    x, w = inputs
    return _blocked(_conv(_unblocked(x), _unblocked_weights(w), attrs), w.shape[-1])


def blocked_conv_input_grad(inputs, attrs):
    dy, w = inputs
    dims = attrs["input_dims"]
    plain = {**attrs, "input_dims": [dims[0], dims[1] * dims[-1], *dims[2:-1]]}
    return _blocked(conv_input_grad((_unblocked(dy), _unblocked_weights(w).transpose(0, 1)), plain), dims[-1])


def blocked_conv_weight_grad(inputs, attrs):
    x, dy = inputs
    dw = conv_weight_grad((_unblocked(x), _unblocked(dy)), attrs)
    return dw.unflatten(1, (-1, x.shape[-1])).unflatten(0, (-1, dy.shape[-1])).movedim((3, 1), (-2, -1))


def conv_transpose(inputs, attrs):
    """PyTorch's own with no padding, cropped afterwards: that also covers asymmetric padding."""
    x, w = inputs
    rank = x.dim() - 2
    low, high = _padding(attrs, rank)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    y = function(
        x,
        w,
        stride=_ints(attrs, "stride", rank, 1),
        output_padding=_ints(attrs, "output_padding", rank, 0),
        dilation=_ints(attrs, "dilation", rank, 1),
        groups=attrs.get("groups", 1),
    )
    for axis in range(rank):
        y = y.narrow(axis + 2, low[axis], y.shape[axis + 2] - low[axis] - high[axis])
    return y


def max_pool(inputs, attrs):
    (x,) = inputs
    kernel = tuple(attrs["kernel"])
    rank = len(kernel)
    low, high = _padding(attrs, rank)
    spatial = x.shape[2:]
    explicit = low != high  # PyTorch pads both ends alike; other padding is put there first, and indices shifted back
    if explicit:
        assert not attrs.get("ceil_mode", False), "ceil_mode needs equal padding here"
        x = _pad(x, low, high, float("-inf"))
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    y, flat = function(
        x,
        kernel,
        stride=_ints(attrs, "stride", rank, 0) if attrs.get("stride") else kernel,
        padding=0 if explicit else low,
        dilation=_ints(attrs, "dilation", rank, 1),
        ceil_mode=attrs.get("ceil_mode", False),
        return_indices=True,
    )
    if explicit:
        shifted, scale = torch.zeros_like(flat), 1
        for axis in reversed(range(rank)):
            shifted += (flat % x.shape[axis + 2] - low[axis]) * scale
            flat = flat // x.shape[axis + 2]
            scale *= spatial[axis]
        flat = shifted
    return y, flat.to(torch.int32)


def max_pool_grad(inputs, attrs):
    dy, indices = inputs
    n, c, *spatial = attrs["input_dims"]
    plane = torch.Size(spatial).numel()
    dx = torch.zeros(n, c, plane, dtype=dy.dtype)
    dx.scatter_add_(2, indices.long().reshape(n, c, -1), dy.reshape(n, c, -1))
    return dx.reshape(attrs["input_dims"])


def _avg_pool(x, attrs):
    kernel = tuple(attrs["kernel"])
    rank = len(kernel)
    low, high = _padding(attrs, rank)
    include_pad = attrs.get("count_include_pad", True)
    function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    common = {
        "stride": tuple(attrs["stride"]) if attrs.get("stride") else kernel,
        "ceil_mode": attrs.get("ceil_mode", False),
    }
    if low == high:
        return function(x, kernel, padding=low, count_include_pad=include_pad, **common)
    assert not common["ceil_mode"], "ceil_mode needs equal padding here"
    y = function(_pad(x, low, high), kernel, **common)
    if include_pad:
        return y
    return y / function(_pad(torch.ones_like(x), low, high), kernel, **common)


def avg_pool(inputs, attrs):
    return _avg_pool(inputs[0], attrs)


def avg_pool_grad(inputs, attrs):
    (dy,) = inputs
    x = torch.zeros(attrs["input_dims"], dtype=dy.dtype, requires_grad=True)
    with torch.enable_grad():
        return torch.autograd.grad(_avg_pool(x, attrs), x, dy)[0]


def adaptive_avg_pool(inputs, attrs):
    size = tuple(attrs["output_size"])
    return (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(size) - 1](inputs[0], size)


def adaptive_max_pool(inputs, attrs):
    size = tuple(attrs["output_size"])
    return (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[len(size) - 1](inputs[0], size)


def _plain_depthwise(attrs, inputs):
    return {**attrs, "groups": inputs[0].shape[1] * inputs[0].shape[-1]}


def depthwise_conv(inputs, attrs):
    x, w = inputs
    return _blocked(_conv(_unblocked(x), _unblocked(w).transpose(0, 1), _plain_depthwise(attrs, inputs)), x.shape[-1])


def depthwise_conv_input_grad(inputs, attrs):
    dy, w = inputs
    dims = attrs["input_dims"]
    plain = {**_plain_depthwise(attrs, inputs), "input_dims": [dims[0], dims[1] * dims[-1], *dims[2:-1]]}
    return _blocked(conv_input_grad((_unblocked(dy), _unblocked(w).transpose(0, 1)), plain), dims[-1])


def depthwise_conv_weight_grad(inputs, attrs):
    x, dy = inputs
    dw = conv_weight_grad((_unblocked(x), _unblocked(dy)), _plain_depthwise(attrs, inputs))
    return _blocked(dw.transpose(0, 1), x.shape[-1])


def _with_blocked_channels(function, data):
    """`function` on inputs whose first `data` tensors have blocked channels, as its first output then has."""

    def wrapped(inputs, attrs):
        block = attrs.get("channel_block", 0)
        if block == 0:
            return function(inputs, attrs)
        outputs = function([_unblocked(x) for x in inputs[:data]] + list(inputs[data:]), attrs)
        if isinstance(outputs, tuple):
            return (_blocked(outputs[0], block), *outputs[1:])
        return _blocked(outputs, block)

    wrapped.__name__ = function.__name__
    return wrapped


def batch_norm(inputs, attrs):
    x, scale, bias, running_mean, running_var = inputs
    epsilon = attrs.get("epsilon", 1e-5)
    new_mean, new_var = running_mean.clone(), running_var.clone()
    y = F.batch_norm(x, new_mean, new_var, scale, bias, training=True, momentum=attrs.get("momentum", 0.1), eps=epsilon)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    var, mean = torch.var_mean(x, dim=axes, correction=0)
    return y, mean, torch.rsqrt(var + epsilon), new_mean, new_var


def batch_norm_inference(inputs, attrs):
    x, scale, bias, mean, var = inputs
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=attrs.get("epsilon", 1e-5))


def batch_norm_grad(inputs, attrs):
    dy, x, scale, mean, rstd = inputs
    return torch.ops.aten.native_batch_norm_backward(
        dy, x, scale, None, None, mean, rstd, True, 1e-5, [True, True, True]
    )


def layer_norm(inputs, attrs):
    x, scale, bias = inputs
    count = attrs.get("axes_count", 1)
    y, mean, rstd = torch.native_layer_norm(x, x.shape[x.dim() - count :], scale, bias, attrs.get("epsilon", 1e-5))
    leading = x.shape[: x.dim() - count]
    return y, mean.reshape(leading), rstd.reshape(leading)


def layer_norm_grad(inputs, attrs):
    dy, x, scale, mean, rstd = inputs
    count = attrs.get("axes_count", 1)
    stat = list(x.shape[: x.dim() - count]) + [1] * count
    # The kernel uses of the bias only that it is there.
    return torch.ops.aten.native_layer_norm_backward(
        dy, x, list(x.shape[x.dim() - count :]), mean.reshape(stat), rstd.reshape(stat), scale, torch.zeros_like(scale),
        [True, True, True],
    )


def _group_sizes(x):
    return x.shape[0], x.shape[1], x.shape[2:].numel()


def group_norm(inputs, attrs):
    x, scale, bias = inputs
    return torch.native_group_norm(x, scale, bias, *_group_sizes(x), attrs["groups"], attrs.get("epsilon", 1e-5))


def group_norm_grad(inputs, attrs):
    dy, x, scale, mean, rstd = inputs
    return torch.ops.aten.native_group_norm_backward(
        dy, x, mean, rstd, scale, *_group_sizes(x), attrs["groups"], [True, True, True]
    )


def instance_norm(inputs, attrs):
    x, scale, bias = inputs
    if x.shape[0] == 0:  # PyTorch's own fails there if it has weights
        return x.clone()
    return F.instance_norm(x, weight=scale, bias=bias, use_input_stats=True, eps=attrs.get("epsilon", 1e-5))


def rms_norm(inputs, attrs):
    x, scale = inputs
    return F.rms_norm(x, x.shape[x.dim() - attrs.get("axes_count", 1) :], scale, attrs.get("epsilon", 1e-5))


REFERENCE = {
    function.__name__: function
    for function in (
        conv,
        conv_input_grad,
        conv_weight_grad,
        conv_transpose,
        max_pool,
        max_pool_grad,
        avg_pool,
        avg_pool_grad,
        adaptive_avg_pool,
        adaptive_max_pool,
        blocked_conv,
        blocked_conv_input_grad,
        blocked_conv_weight_grad,
        depthwise_conv,
        depthwise_conv_input_grad,
        depthwise_conv_weight_grad,
        _with_blocked_channels(batch_norm, 1),
        _with_blocked_channels(batch_norm_inference, 1),
        _with_blocked_channels(batch_norm_grad, 2),
        layer_norm,
        layer_norm_grad,
        group_norm,
        group_norm_grad,
        instance_norm,
        rms_norm,
    )
}
