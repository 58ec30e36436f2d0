// Convolution and its gradients on blocked channels; each means the plain op between the two layouts.
#include "ops/blocked_conv.h"

#include <cmath>

#include "ops/dtypes.h"

namespace deepseek::ops {
namespace {

// Weights [A/a, B/b, kernel..., b, a] as [A, B, kernel...].
Dims unblocked_weight_dims(const Dims& w) {
  Dims dims = {w[0] * w.back(), w[1] * w[w.size() - 2]};
  dims.insert(dims.end(), w.begin() + 2, w.end() - 2);
  return dims;
}

Dims blocked_weight_dims(const Dims& w, int64_t a, int64_t b) {
  Dims dims = {w[0] / a, w[1] / b};
  dims.insert(dims.end(), w.begin() + 2, w.end());
  dims.insert(dims.end(), {b, a});
  return dims;
}

Status check_operands(const OpContext& c, bool weights) {
  const TensorType &a = c.in(0), &b = c.in(1);
  if (a.dtype != b.dtype || !is_float(a.dtype)) return not_one_float_dtype(a, b);
  if (a.rank() < 4 || a.rank() > 6 || b.rank() != a.rank() + (weights ? 1 : 0))
    return invalid("expected {} and {} of ranks r and r{} with r in [4, 6], got {} and {}", c.op->inputs.value[0].name,
                   c.op->inputs.value[1].name, weights ? " + 1" : "", to_string(a), to_string(b));
  for (const TensorType& t : {a, b})
    if (t.dims.back() < 1 || (weights && b.dims[b.dims.size() - 2] < 1))
      return invalid("expected blocks of at least one channel, got {}", to_string(t));
  return {};
}

Status check_equal(const char* what, const Dims& got, const Dims& expected) {
  if (got != expected) return invalid("expected {} {}, got {}", what, to_string(expected), to_string(got));
  return {};
}

TypesOrError infer(const OpContext& c, const Dims& dims) { return std::vector<TensorType>{{c.in(0).dtype, dims}}; }

Attrs with_geometry(const OpContext& c) {
  Attrs attrs;
  for (const char* name : {"stride", "padding_low", "padding_high", "dilation"}) attrs.set(name, c.ints(name));
  attrs.set("groups", int64_t{1});
  return attrs;
}

std::vector<AttrSpec> attrs(std::vector<AttrSpec> more = {}) {
  std::vector<AttrSpec> list = window_attrs(EmptyStride::kOnes, true);
  list.insert(list.end(), more.begin(), more.end());
  return list;
}

struct Case {
  const char* name;
  Dims x, w, stride, low, high, dilation;
  int64_t x_block, y_block;
};

std::vector<Case> cases() {
  return {{"1d", {2, 8, 11}, {4, 8, 3}, {}, {1}, {1}, {}, 4, 2},
          {"2d", {2, 16, 7, 9}, {32, 16, 3, 3}, {}, {1, 1}, {1, 1}, {}, 16, 16},
          {"2d_many_tiles", {3, 32, 18, 13}, {80, 32, 3, 3}, {}, {1, 0}, {0, 2}, {}, 16, 16},
          {"2d_deep", {1, 96, 6, 6}, {96, 96, 3, 3}, {}, {2, 2}, {2, 2}, {}, 32, 32},
          {"2d_pointwise", {2, 32, 5, 5}, {16, 32, 1, 1}, {}, {}, {}, {}, 16, 16},
          {"2d_pointwise_stride", {1, 16, 7, 8}, {16, 16, 1, 1}, {2, 2}, {}, {}, {}, 8, 16},
          {"2d_stride", {2, 16, 9, 8}, {16, 16, 3, 3}, {2, 2}, {1, 1}, {1, 1}, {}, 8, 16},
          {"2d_strides", {2, 32, 9, 11}, {48, 32, 3, 3}, {2, 2}, {1, 1}, {1, 0}, {}, 16, 16},
          {"2d_dilated", {2, 16, 9, 10}, {16, 16, 2, 3}, {2, 1}, {0, 2}, {1, 0}, {2, 3}, 16, 16},
          {"2d_picture", {2, 3, 11, 13}, {16, 3, 7, 7}, {2, 2}, {3, 3}, {3, 3}, {}, 3, 16},
          {"2d_picture_asymmetric", {1, 1, 8, 9}, {8, 1, 3, 4}, {1, 3}, {2, 0}, {0, 2}, {}, 1, 8},
          {"2d_leftover", {1, 4, 8, 7}, {4, 4, 3, 2}, {2, 3}, {0, 1}, {0, 0}, {}, 4, 4},
          {"2d_wide_padding", {1, 4, 4, 3}, {4, 4, 3, 3}, {1, 2}, {2, 3}, {2, 3}, {}, 2, 4},
          {"2d_asymmetric_dilated", {2, 4, 9, 10}, {4, 4, 2, 3}, {2, 1}, {0, 2}, {1, 0}, {2, 3}, 2, 2},
          {"3d_many_tiles", {1, 32, 7, 9, 6}, {32, 32, 3, 3, 3}, {}, {1, 0, 1}, {0, 2, 1}, {}, 16, 16},
          {"3d_apart", {1, 32, 8, 8, 8}, {32, 32, 2, 3, 3}, {}, {2, 1, 1}, {1, 1, 1}, {3, 1, 1}, 16, 16},
          {"3d_strides", {2, 16, 5, 4, 7}, {32, 16, 3, 2, 3}, {2, 1, 2}, {1, 0, 1}, {1, 1, 1}, {}, 16, 16},
          {"3d", {1, 4, 4, 5, 6}, {8, 4, 3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, {}, 4, 8}};
}

Attrs case_attrs(const Case& t) {
  return {{"stride", t.stride}, {"padding_low", t.low}, {"padding_high", t.high}, {"dilation", t.dilation}};
}

Dims case_y(const Case& t) {
  Attrs a = case_attrs(t);
  a.set("groups", int64_t{1});
  return conv_geometry(OpContext{nullptr, {}, &a}, t.x, t.w)->y_dims();
}

// A sum of `terms` normal products is about sqrt(terms) large wherever it happens to be near 0, and so are its
// roundings. Winograd's transforms, which kernels may use for 3 x 3, multiply them.
double tolerance(const Case& t, double terms) {
  const bool transformed = t.stride.empty() && t.w[t.w.size() - 2] == 3 && t.w.back() == 3;
  return Sample().tolerance * std::max(1.0, std::sqrt(terms) * (transformed ? 1.5 : 0.125));
}

std::vector<Sample> samples(std::string_view op) {
  std::vector<Sample> list;
  std::vector<Case> all = cases();
  if (op != "blocked_conv") {  // too large for central differences, which those have no use for
    all.push_back({"2d_more_tiles", {8, 32, 18, 13}, {48, 32, 3, 3}, {}, {1, 0}, {0, 2}, {}, 16, 16});
    all.push_back({"3d_more_tiles", {2, 32, 8, 13, 12}, {32, 32, 3, 3, 3}, {}, {1, 1, 0}, {2, 1, 2}, {}, 16, 16});
  }
  for (const Case& t : all) {
    const SampleInput x = f32(blocked_dims(t.x, t.x_block)), y = f32(blocked_dims(case_y(t), t.y_block));
    Attrs a = case_attrs(t);
    if (op == "blocked_conv") {
      list.push_back({t.name, {x, f32(blocked_weight_dims(t.w, t.y_block, t.x_block))}, std::move(a)});
    } else if (op == "blocked_conv_input_grad") {
      a.set("input_dims", x.type.dims);
      Dims w = t.w;
      std::swap(w[0], w[1]);
      list.push_back({t.name, {y, f32(blocked_weight_dims(w, t.x_block, t.y_block))}, std::move(a), false});
    } else {
      a.set("kernel", Dims(t.w.begin() + 2, t.w.end()));
      list.push_back({t.name, {x, y}, std::move(a), false});
    }
    const Dims y_dims = case_y(t);
    const int64_t taps = product(std::span(t.w).subspan(2)), pixels = y_dims[0] * product(std::span(y_dims).subspan(2));
    list.back().tolerance = tolerance(t, static_cast<double>(op == "blocked_conv_weight_grad" ? pixels
                                                             : op == "blocked_conv"           ? taps * t.w[1]
                                                                                              : taps * t.w[0]));
  }
  return list;
}

Expr swap_leading(Expr w) {
  Dims order(static_cast<size_t>(w.rank()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::swap(order[0], order[1]);
  return transpose(w, order);
}

}  // namespace

Dims blocked_dims(const Dims& plain, int64_t block) {
  Dims dims = plain;
  dims[1] /= block;
  dims.push_back(block);
  return dims;
}

Dims unblocked_dims(const Dims& blocked) {
  Dims dims(blocked.begin(), blocked.end() - 1);
  dims[1] *= blocked.back();
  return dims;
}

Expr block_channels(Expr x, int64_t block) {
  const Dims from = x.dims(), to = blocked_dims(from, block);
  Dims split = from, order;
  split[1] /= block;
  split.insert(split.begin() + 2, block);
  for (size_t i = 0; i < split.size(); ++i)
    if (i != 2) order.push_back(static_cast<int64_t>(i));
  order.push_back(2);
  // Without pixels to move, the bytes stay where they are.
  if (product(std::span(from).subspan(2)) == 1) return reshape(x, to);
  return transpose(reshape(x, split), order);
}

Expr unblock_channels(Expr x) {
  const Dims from = x.dims(), to = unblocked_dims(from);
  if (product(std::span(to).subspan(2)) == 1) return reshape(x, to);
  Dims order = {0, 1, static_cast<int64_t>(from.size()) - 1};
  for (size_t i = 2; i + 1 < from.size(); ++i) order.push_back(static_cast<int64_t>(i));
  return reshape(transpose(x, order), to);
}

Expr block_weights(Expr w, int64_t a, int64_t b, bool swapped) {
  const Dims d = w.dims();
  Dims split = {d[0] / a, a, d[1] / b, b}, order = {0, 2}, last = {3, 1};
  if (swapped) order = {2, 0}, last = {1, 3};
  split.insert(split.end(), d.begin() + 2, d.end());
  for (size_t i = 4; i < split.size(); ++i) order.push_back(static_cast<int64_t>(i));
  order.insert(order.end(), last.begin(), last.end());
  return transpose(reshape(w, split), order);
}

Expr unblock_weights(Expr w) {
  const Dims d = w.dims();
  const auto rank = static_cast<int64_t>(d.size());
  Dims order = {0, rank - 1, 1, rank - 2};
  for (int64_t i = 2; i < rank - 2; ++i) order.push_back(i);
  return reshape(transpose(w, order), unblocked_weight_dims(d));
}

Result<BlockedConvShape> blocked_conv_geometry(const OpContext& c) {
  const std::string& op = c.op->name.value;
  DS_TRY(check_operands(c, op != "blocked_conv_weight_grad"));
  const Dims &a = c.in(0).dims, &b = c.in(1).dims;
  Attrs plain = with_geometry(c);
  const OpContext geometry{c.op, {}, &plain};
  BlockedConvShape s;
  if (op == "blocked_conv") {
    DS_ASSIGN(s.conv, conv_geometry(geometry, unblocked_dims(a), unblocked_weight_dims(b)));
    s.x_block = a.back();
    s.y_block = b.back();
    if (b[b.size() - 2] != s.x_block)
      return invalid("expected w with input blocks of x's {} channels, got {} and {}", s.x_block, to_string(c.in(0)),
                     to_string(c.in(1)));
    return s;
  }
  if (op == "blocked_conv_input_grad") {
    const Dims& x = c.ints("input_dims");
    if (x.size() != a.size() || x.back() != b.back() || x.back() < 1)
      return invalid("expected input_dims [N, C/{0}, {1} sizes, {0}], got {2}", b.back(), a.size() - 3, to_string(x));
    Dims w = unblocked_weight_dims(b);
    std::swap(w[0], w[1]);
    DS_ASSIGN(s.conv, conv_geometry(geometry, unblocked_dims(x), w));
    s.x_block = b.back();
    s.y_block = a.back();
    if (b[b.size() - 2] != s.y_block)
      return invalid("expected w with output blocks of dy's {} channels, got {} and {}", s.y_block, to_string(c.in(0)),
                     to_string(c.in(1)));
    DS_TRY(check_equal("dy of the dims", a, blocked_dims(s.conv.y_dims(), s.y_block)));
    return s;
  }
  Dims w = {unblocked_dims(b)[1], unblocked_dims(a)[1]};
  const Dims& kernel = c.ints("kernel");
  w.insert(w.end(), kernel.begin(), kernel.end());
  DS_ASSIGN(s.conv, conv_geometry(geometry, unblocked_dims(a), w));
  s.x_block = a.back();
  s.y_block = b.back();
  DS_TRY(check_equal("dy of the dims", b, blocked_dims(s.conv.y_dims(), s.y_block)));
  return s;
}

Status register_blocked_conv(OpRegistry& registry) {
  const Gradient no_gradient = Gradient::non_differentiable("second derivatives are not supported");
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "blocked_conv",
       .doc = "conv with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, C/c, spatial..., c]"}, {"w", "[O/o, C/c, kernel..., c, o]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[N, O/o, spatial..., o]"}},
       .attrs = attrs(),
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_ASSIGN(BlockedConvShape s, blocked_conv_geometry(c));
         return infer(c, blocked_dims(s.conv.y_dims(), s.y_block));
       },
       .gradient = Gradient::by_decomposition(),
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Expr y = b.op("conv", {unblock_channels(in[0]), unblock_weights(in[1])}, with_geometry(c));
         return {block_channels(y, in[1].dim(-1))};
       },
       .samples = samples("blocked_conv")});
  defs.push_back(
      {.name = "blocked_conv_input_grad",
       .doc = "conv_input_grad with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"dy", "float [N, O/o, spatial..., o]"},
                                          {"w", "[C/c, O/o, kernel..., o, c]: conv's weights with C and O exchanged"}},
       .outputs = std::vector<OperandSpec>{{"dx", "shape input_dims"}},
       .attrs = attrs({{"input_dims", AttrKind::kInts, {}, "shape of x, [N, C/c, spatial..., c]"}}),
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_TRY(blocked_conv_geometry(c).status());
         return infer(c, c.ints("input_dims"));
       },
       .gradient = no_gradient,
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Attrs plain = with_geometry(c);
         plain.set("input_dims", unblocked_dims(c.ints("input_dims")));
         Expr w = swap_leading(unblock_weights(in[1]));
         return {
             block_channels(b.op("conv_input_grad", {unblock_channels(in[0]), w}, std::move(plain)), in[1].dim(-1))};
       },
       .samples = samples("blocked_conv_input_grad")});
  defs.push_back(
      {.name = "blocked_conv_weight_grad",
       .doc = "conv_weight_grad with blocked channels.",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, C/c, spatial..., c]"}, {"dy", "[N, O/o, spatial..., o]"}},
       .outputs = std::vector<OperandSpec>{{"dw", "[O/o, C/c, kernel..., c, o]"}},
       .attrs = attrs({{"kernel", AttrKind::kInts, {}, "spatial sizes of the weights"}}),
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_ASSIGN(BlockedConvShape s, blocked_conv_geometry(c));
         return infer(c, blocked_weight_dims(s.conv.w_dims(), s.y_block, s.x_block));
       },
       .gradient = no_gradient,
       .reference = Reference::by_decomposition(),
       .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Attrs plain = with_geometry(c);
         plain.set("kernel", c.ints("kernel"));
         Expr dw = b.op("conv_weight_grad", {unblock_channels(in[0]), unblock_channels(in[1])}, std::move(plain));
         return {block_weights(dw, in[1].dim(-1), in[0].dim(-1))};
       },
       .samples = samples("blocked_conv_weight_grad")});
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
