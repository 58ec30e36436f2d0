// Depthwise convolution on blocked channels: each channel by its own window. Each op means the plain one, with as many
// groups as channels, between the two layouts.
#include "ops/blocked_conv.h"
#include "ops/dtypes.h"

namespace deepseek::ops {
namespace {

// Weights [1, C/b, kernel..., b], which is [1, C, kernel...] with blocked channels, <-> conv's [C, 1, kernel...].
Dims plain_weight_dims(const Dims& w) {
  Dims dims = unblocked_dims(w);
  std::swap(dims[0], dims[1]);
  return dims;
}

Attrs plain_attrs(const OpContext& c, int64_t channels) {
  Attrs attrs;
  for (const char* name : {"stride", "padding_low", "padding_high", "dilation"}) attrs.set(name, c.ints(name));
  attrs.set("groups", channels);
  return attrs;
}

std::vector<AttrSpec> attrs(std::vector<AttrSpec> more = {}) {
  std::vector<AttrSpec> list = window_attrs(EmptyStride::kOnes, true);
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

TypesOrError infer(const OpContext& c) {
  DS_ASSIGN(const BlockedConvShape s, depthwise_conv_geometry(c));
  const std::string& op = c.op->name.value;
  Dims dims = blocked_dims(s.conv.y_dims(), s.y_block);
  if (op == "depthwise_conv_input_grad") dims = c.ints("input_dims");
  if (op == "depthwise_conv_weight_grad") dims = depthwise_weight_dims(s.conv.w_dims(), s.x_block);
  return std::vector<TensorType>{{c.in(0).dtype, dims}};
}

struct Case {
  const char* name;
  Dims x, kernel, stride, low, high, dilation;
  int64_t block;
};

std::vector<Case> cases() {
  return {{"1d", {2, 16, 11}, {3}, {}, {1}, {1}, {}, 8},
          {"2d", {2, 32, 9, 13}, {3, 3}, {}, {1, 1}, {1, 1}, {}, 16},
          {"2d_five", {1, 8, 7, 6}, {5, 5}, {}, {2, 2}, {2, 2}, {}, 8},
          {"2d_stride", {2, 16, 9, 12}, {3, 5}, {2, 2}, {0, 1}, {1, 2}, {}, 16},
          {"2d_narrow", {1, 16, 3, 2}, {5, 5}, {}, {2, 2}, {2, 2}, {}, 16},
          {"2d_small_block", {2, 6, 5, 7}, {3, 2}, {1, 2}, {1, 0}, {0, 1}, {}, 2},
          {"2d_dilated", {1, 32, 9, 10}, {3, 3}, {}, {2, 1}, {2, 3}, {2, 2}, 32},
          {"3d", {1, 8, 4, 5, 6}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, {}, 8}};
}

std::vector<Sample> samples(std::string_view op) {
  std::vector<Sample> list;
  for (const Case& t : cases()) {
    Attrs a{{"stride", t.stride}, {"padding_low", t.low}, {"padding_high", t.high}, {"dilation", t.dilation}};
    Attrs plain = a;
    plain.set("groups", t.x[1]);
    Dims w = {t.x[1], 1};
    w.insert(w.end(), t.kernel.begin(), t.kernel.end());
    const Dims y_dims = conv_geometry(OpContext{nullptr, {}, &plain}, t.x, w)->y_dims();
    const SampleInput x = f32(blocked_dims(t.x, t.block)), y = f32(blocked_dims(y_dims, t.block)),
                      weights = f32(depthwise_weight_dims(w, t.block));
    if (op == "depthwise_conv") {
      list.push_back({t.name, {x, weights}, std::move(a)});
    } else if (op == "depthwise_conv_input_grad") {
      a.set("input_dims", x.type.dims);
      list.push_back({t.name, {y, weights}, std::move(a), false});
    } else {
      a.set("kernel", t.kernel);
      list.push_back({t.name, {x, y}, std::move(a), false});
    }
  }
  return list;
}

}  // namespace

Dims depthwise_weight_dims(const Dims& w, int64_t block) {
  Dims dims = w;
  std::swap(dims[0], dims[1]);
  return blocked_dims(dims, block);
}

Expr block_depthwise_weights(Expr w, int64_t block) {
  Dims dims = w.dims();
  std::swap(dims[0], dims[1]);
  return block_channels(reshape(w, dims), block);
}

Expr unblock_depthwise_weights(Expr w) { return reshape(unblock_channels(w), plain_weight_dims(w.dims())); }

Result<BlockedConvShape> depthwise_conv_geometry(const OpContext& c) {
  const TensorType &a = c.in(0), &b = c.in(1);
  if (a.dtype != b.dtype || !is_float(a.dtype)) return not_one_float_dtype(a, b);
  if (a.rank() < 4 || a.rank() > 6 || b.rank() != a.rank() || a.dims.back() < 1 || b.dims.back() != a.dims.back() ||
      b.dims[1] != a.dims[1])
    return invalid("expected {} [N, C/b, 1 to 3 spatial axes, b] and {} with the same C/b and b, got {} and {}",
                   c.op->inputs.value[0].name, c.op->inputs.value[1].name, to_string(a), to_string(b));
  const std::string& op = c.op->name.value;
  BlockedConvShape s;
  s.x_block = s.y_block = a.dims.back();
  Attrs plain = plain_attrs(c, unblocked_dims(a.dims)[1]);
  const OpContext geometry{c.op, {}, &plain};
  if (op != "depthwise_conv_weight_grad" && b.dims[0] != 1)
    return invalid("expected w [1, C/b, kernel..., b], got {}", to_string(b));
  if (op == "depthwise_conv") {
    DS_ASSIGN(s.conv, conv_geometry(geometry, unblocked_dims(a.dims), plain_weight_dims(b.dims)));
    return s;
  }
  Dims x = a.dims, w, y = b.dims;
  if (op == "depthwise_conv_input_grad") {
    x = c.ints("input_dims");
    y = a.dims;
    w = plain_weight_dims(b.dims);
    if (x.size() != y.size() || x[1] != y[1] || x.back() != y.back())
      return invalid("expected input_dims of dy's rank, C/b and b as in {}, got {}", to_string(y), to_string(x));
  } else {
    const Dims& kernel = c.ints("kernel");
    w = {unblocked_dims(x)[1], 1};
    w.insert(w.end(), kernel.begin(), kernel.end());
  }
  DS_ASSIGN(s.conv, conv_geometry(geometry, unblocked_dims(x), w));
  if (const Dims expected = blocked_dims(s.conv.y_dims(), s.y_block); y != expected)
    return invalid("expected dy of the dims {}, got {}", to_string(expected), to_string(y));
  return s;
}

Status register_depthwise_conv(OpRegistry& registry) {
  const Gradient no_gradient = Gradient::non_differentiable("second derivatives are not supported");
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "depthwise_conv",
       .doc = "conv of each channel by itself, with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, C/b, spatial..., b]"}, {"w", "[1, C/b, kernel..., b]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[N, C/b, spatial..., b]"}},
       .attrs = attrs(),
       .infer = infer,
       .gradient = Gradient::by_decomposition(),
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Expr x = unblock_channels(in[0]);
         return {block_channels(b.op("conv", {x, unblock_depthwise_weights(in[1])}, plain_attrs(c, x.dim(1))),
                                in[0].dim(-1))};
       },
       .samples = samples("depthwise_conv")});
  defs.push_back(
      {.name = "depthwise_conv_input_grad",
       .doc = "conv_input_grad of each channel by itself, with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"dy", "float [N, C/b, spatial..., b]"}, {"w", "[1, C/b, kernel..., b]"}},
       .outputs = std::vector<OperandSpec>{{"dx", "shape input_dims"}},
       .attrs = attrs({{"input_dims", AttrKind::kInts, {}, "shape of x, [N, C/b, spatial..., b]"}}),
       .infer = infer,
       .gradient = no_gradient,
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Expr dy = unblock_channels(in[0]);
         Attrs plain = plain_attrs(c, dy.dim(1));
         plain.set("input_dims", unblocked_dims(c.ints("input_dims")));
         return {block_channels(b.op("conv_input_grad", {dy, unblock_depthwise_weights(in[1])}, std::move(plain)),
                                in[0].dim(-1))};
       },
       .samples = samples("depthwise_conv_input_grad")});
  defs.push_back(
      {.name = "depthwise_conv_weight_grad",
       .doc = "conv_weight_grad of each channel by itself, with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, C/b, spatial..., b]"}, {"dy", "[N, C/b, spatial..., b]"}},
       .outputs = std::vector<OperandSpec>{{"dw", "[1, C/b, kernel..., b]"}},
       .attrs = attrs({{"kernel", AttrKind::kInts, {}, "spatial sizes of the weights"}}),
       .infer = infer,
       .gradient = no_gradient,
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Expr x = unblock_channels(in[0]);
         Attrs plain = plain_attrs(c, x.dim(1));
         plain.set("kernel", c.ints("kernel"));
         Expr dw = b.op("conv_weight_grad", {x, unblock_channels(in[1])}, std::move(plain));
         return {block_depthwise_weights(dw, in[0].dim(-1))};
       },
       .samples = samples("depthwise_conv_weight_grad")});
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
