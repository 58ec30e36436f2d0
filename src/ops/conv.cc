// Convolution, its two gradients, and the transposed convolution.
#include "ops/conv.h"

#include "ops/dtypes.h"

namespace deepseek::ops {
namespace {

Status check_dtypes(const OpContext& c) {
  if (c.in(0).dtype != c.in(1).dtype || !is_float(c.in(0).dtype)) return not_one_float_dtype(c.in(0), c.in(1));
  return {};
}

Status check_dims(const char* what, const Dims& got, const Dims& expected) {
  if (got != expected)
    return invalid("expected {} to have the shape {}, got {}", what, to_string(expected), to_string(got));
  return {};
}

Result<ConvShape> input_grad_geometry(const OpContext& c) {
  DS_ASSIGN(ConvShape s, conv_geometry(c, c.ints("input_dims"), c.in(1).dims));
  DS_TRY(check_dims("dy", c.in(0).dims, s.y_dims()));
  return s;
}

Result<ConvShape> weight_grad_geometry(const OpContext& c) {
  const Dims &x = c.in(0).dims, &dy = c.in(1).dims;
  DS_TRY(spatial_dims(x).status());
  if (dy.size() != x.size())
    return invalid("expected x and dy of one rank, got {} and {}", to_string(c.in(0)), to_string(c.in(1)));
  const int64_t groups = c.integer("groups");
  if (groups < 1 || x[1] % groups != 0)
    return invalid("expected groups to divide the {} channels of {}, got {}", x[1], to_string(c.in(0)), groups);
  Dims w = {dy[1], x[1] / groups};
  const Dims& kernel = c.ints("kernel");
  w.insert(w.end(), kernel.begin(), kernel.end());
  DS_ASSIGN(ConvShape s, conv_geometry(c, x, w));
  DS_TRY(check_dims("dy", dy, s.y_dims()));
  return s;
}

Result<ConvShape> transpose_geometry(const OpContext& c) {
  const Dims &x = c.in(0).dims, &w = c.in(1).dims;
  DS_ASSIGN(Dims spatial, spatial_dims(x));
  const size_t rank = spatial.size();
  const int64_t groups = c.integer("groups");
  if (w.size() != x.size() || w[0] != x[1])
    return invalid("expected w [{}, O/groups, {} kernel sizes] for x {}, got {}", x[1], rank, to_string(c.in(0)),
                   to_string(c.in(1)));
  if (groups < 1 || x[1] % groups != 0)
    return invalid("expected groups to divide the {} channels of {}, got {}", x[1], to_string(c.in(0)), groups);
  DS_ASSIGN(Window window, read_window(c, Dims(w.begin() + 2, w.end()), EmptyStride::kOnes));
  Dims extra = c.ints("output_padding");
  if (extra.empty()) extra.assign(rank, 0);
  Dims out = {x[0], w[1] * groups};
  for (size_t i = 0; i < rank; ++i) {
    if (extra.size() != rank || extra[i] < 0 || extra[i] >= window.stride[i])
      return invalid("expected output_padding to be {} integers >= 0 and below the stride {}, got {}", rank,
                     to_string(window.stride), to_string(extra));
    out.push_back((spatial[i] - 1) * window.stride[i] + window.extent(i) + extra[i] - window.padding_low[i] -
                  window.padding_high[i]);
    if (spatial[i] < 1 || out.back() < 1)
      return invalid("the output would have the size {} on spatial axis {} of x {}; pad less", out.back(), i,
                     to_string(c.in(0)));
  }
  return conv_geometry(c, out, w);
}

// visit(x offset, w offset, y offset) for every product of the convolution.
template <class Visit>
void for_each_product(const ConvShape& s, Visit visit) {
  const int64_t in_plane = product(s.input), out_plane = product(s.output), taps = product(s.window.kernel);
  const int64_t in_group = s.in_channels / s.groups, out_group = s.out_channels / s.groups;
  Dims at(s.input.size()), tap(s.input.size());
  for (int64_t p = 0; p < out_plane; ++p, next_index(at, s.output))
    for (int64_t k = 0; k < taps; ++k, next_index(tap, s.window.kernel)) {
      const int64_t q = s.window.source(at, tap, s.input);
      if (q < 0) continue;
      for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t o = 0; o < s.out_channels; ++o)
          for (int64_t i = 0; i < in_group; ++i)
            visit((n * s.in_channels + o / out_group * in_group + i) * in_plane + q, (o * in_group + i) * taps + k,
                  (n * s.out_channels + o) * out_plane + p);
    }
}

// Which of x, w, y is accumulated from the other two.
enum class Role { kX, kW, kY };

Reference conv_reference(Role role) {
  return Reference::kernel(
      [role](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
        DS_ASSIGN(ConvShape s, conv_geometry(c));
        double* y = out[0].data.data();
        const double *a = in[0].data.data(), *b = in[1].data.data();
        std::fill(out[0].data.begin(), out[0].data.end(), 0.0);
        for_each_product(s, [&](int64_t ix, int64_t iw, int64_t iy) {
          if (role == Role::kY) y[iy] += a[ix] * b[iw];
          if (role == Role::kX) y[ix] += a[iy] * b[iw];
          if (role == Role::kW) y[iw] += a[ix] * b[iy];
        });
        return {};
      });
}

// All products of the convolution, those with padding included: the same for all three roles.
void conv_cost(const OpContext& c, std::span<const TensorType>, graph::Cost& cost) {
  const ConvShape s = *conv_geometry(c);
  cost.flops = 2.0 * static_cast<double>(product(s.y_dims())) * static_cast<double>(product(s.w_dims())) /
               static_cast<double>(s.out_channels);
}

graph::InferFn conv_infer(Dims (ConvShape::*dims)() const) {
  return [dims](const OpContext& c) -> TypesOrError {
    DS_TRY(check_dtypes(c));
    DS_ASSIGN(ConvShape s, conv_geometry(c));
    return std::vector<TensorType>{{c.in(0).dtype, (s.*dims)()}};
  };
}

// The window attributes and groups of `node`, for a node of the same geometry.
Attrs geometry_attrs(const OpContext& node) {
  Attrs attrs;
  for (const char* name : {"stride", "padding_low", "padding_high", "dilation", "groups"})
    attrs.set(name, *node.attrs->find(name));
  return attrs;
}

Expr weight_grad(GradContext& g, Expr x, Expr dy) {
  Attrs attrs = geometry_attrs(g.node);
  const Dims& w = g.inputs[1].dims();
  attrs.set("kernel", Dims(w.begin() + 2, w.end()));
  return g.builder.op("conv_weight_grad", {x, dy}, std::move(attrs));
}

std::vector<Expr> conv_gradient(GradContext& g) {
  Expr dy = g.output_grads[0];
  std::vector<Expr> grads(2);
  if (g.needs[0]) {
    Attrs attrs = geometry_attrs(g.node);
    attrs.set("input_dims", g.inputs[0].dims());
    grads[0] = g.builder.op("conv_input_grad", {dy, g.inputs[1]}, std::move(attrs));
  }
  if (g.needs[1]) grads[1] = weight_grad(g, g.inputs[0], dy);
  return grads;
}

// The transposed convolution is the adjoint of a convolution of dy, so x and dy swap roles.
std::vector<Expr> conv_transpose_gradient(GradContext& g) {
  Expr dy = g.output_grads[0];
  std::vector<Expr> grads(2);
  if (g.needs[0]) grads[0] = g.builder.op("conv", {dy, g.inputs[1]}, geometry_attrs(g.node));
  if (g.needs[1]) grads[1] = weight_grad(g, dy, g.inputs[0]);
  return grads;
}

std::vector<AttrSpec> conv_attrs(std::vector<AttrSpec> more = {}) {
  std::vector<AttrSpec> attrs = window_attrs(EmptyStride::kOnes, true);
  attrs.push_back({"groups", AttrKind::kInt, int64_t{1}, "channels are split into so many independent convolutions"});
  attrs.insert(attrs.end(), more.begin(), more.end());
  return attrs;
}

struct Case {
  const char* name;
  Dims x, w, stride, low, high, dilation;
  int64_t groups;
  Dims output_padding = {};
};

std::vector<Case> conv_cases() {
  return {{"1d", {2, 3, 11}, {4, 3, 3}, {}, {}, {}, {}, 1},
          {"1d_causal_dilated", {2, 2, 9}, {3, 2, 3}, {}, {4}, {0}, {2}, 1},
          {"2d", {2, 3, 7, 9}, {5, 3, 3, 3}, {}, {1, 1}, {1, 1}, {}, 1},
          {"2d_pointwise", {2, 8, 5, 5}, {16, 8, 1, 1}, {}, {}, {}, {}, 1},
          {"2d_stem", {1, 3, 15, 15}, {8, 3, 7, 7}, {2, 2}, {3, 3}, {3, 3}, {}, 1},
          {"2d_stride_leftover", {1, 4, 8, 7}, {4, 4, 3, 2}, {2, 3}, {0, 1}, {0, 0}, {}, 1},
          {"2d_asymmetric", {2, 2, 6, 5}, {3, 2, 2, 3}, {2, 1}, {0, 2}, {1, 0}, {}, 1},
          {"2d_groups", {2, 6, 5, 6}, {9, 2, 3, 3}, {}, {1, 1}, {1, 1}, {1, 2}, 3},
          {"2d_depthwise", {2, 5, 7, 7}, {5, 1, 3, 3}, {2, 2}, {1, 1}, {1, 1}, {}, 5},
          {"3d", {1, 2, 4, 5, 6}, {3, 2, 3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}, {}, 1}};
}

std::vector<Case> transpose_cases() {
  return {{"1d", {2, 3, 6}, {3, 4, 3}, {2}, {1}, {1}, {}, 1, {1}},
          {"2d_upsample", {2, 4, 4, 5}, {4, 3, 2, 2}, {2, 2}, {}, {}, {}, 1},
          {"2d_padded", {1, 3, 5, 4}, {3, 4, 4, 3}, {2, 1}, {1, 1}, {1, 1}, {}, 1},
          {"2d_asymmetric", {1, 2, 4, 4}, {2, 3, 3, 3}, {2, 2}, {0, 1}, {1, 0}, {}, 1},
          {"2d_groups_dilated", {2, 6, 4, 5}, {6, 2, 3, 3}, {3, 2}, {1, 2}, {1, 2}, {2, 1}, 3, {2, 1}},
          {"3d", {1, 2, 3, 3, 4}, {2, 3, 2, 3, 3}, {1, 2, 2}, {0, 1, 1}, {0, 1, 1}, {}, 1, {0, 1, 0}}};
}

Attrs case_attrs(const Case& t) {
  return {{"stride", t.stride},
          {"padding_low", t.low},
          {"padding_high", t.high},
          {"dilation", t.dilation},
          {"groups", t.groups}};
}

ConvShape case_shape(const Case& t) {
  const Attrs attrs = case_attrs(t);
  return *conv_geometry(OpContext{nullptr, {}, &attrs}, t.x, t.w);
}

std::vector<Sample> conv_samples() {
  std::vector<Sample> samples;
  for (const Case& t : conv_cases()) samples.push_back({t.name, {f32(t.x), f32(t.w)}, case_attrs(t)});
  return samples;
}

std::vector<Sample> input_grad_samples() {
  std::vector<Sample> samples;
  for (const Case& t : conv_cases()) {
    Attrs attrs = case_attrs(t);
    attrs.set("input_dims", t.x);
    samples.push_back({t.name, {f32(case_shape(t).y_dims()), f32(t.w)}, std::move(attrs), false});
  }
  return samples;
}

std::vector<Sample> weight_grad_samples() {
  std::vector<Sample> samples;
  for (const Case& t : conv_cases()) {
    Attrs attrs = case_attrs(t);
    attrs.set("kernel", Dims(t.w.begin() + 2, t.w.end()));
    samples.push_back({t.name, {f32(t.x), f32(case_shape(t).y_dims())}, std::move(attrs), false});
  }
  return samples;
}

std::vector<Sample> transpose_samples() {
  std::vector<Sample> samples;
  for (const Case& t : transpose_cases()) {
    Attrs attrs = case_attrs(t);
    attrs.set("output_padding", t.output_padding);
    samples.push_back({t.name, {f32(t.x), f32(t.w)}, std::move(attrs)});
  }
  return samples;
}

}  // namespace

Result<ConvShape> conv_geometry(const OpContext& c, const Dims& x, const Dims& w) {
  ConvShape s;
  DS_ASSIGN(s.input, spatial_dims(x));
  s.groups = c.integer("groups");
  if (w.size() != x.size())
    return invalid("expected w [O, C/groups, {} kernel sizes] for x {}, got {}", s.input.size(), to_string(x),
                   to_string(w));
  s.batch = x[0];
  s.in_channels = x[1];
  s.out_channels = w[0];
  if (s.groups < 1 || x[1] % s.groups != 0 || w[0] % s.groups != 0)
    return invalid("expected groups to divide the {} input and {} output channels, got {}", x[1], w[0], s.groups);
  if (w[1] != x[1] / s.groups)
    return invalid("expected w [O, {}, ...] ({} channels of x {} in {} groups), got {}", x[1] / s.groups, x[1],
                   to_string(x), s.groups, to_string(w));
  DS_ASSIGN(s.window, read_window(c, Dims(w.begin() + 2, w.end()), EmptyStride::kOnes));
  DS_ASSIGN(s.output, s.window.output_dims(s.input));
  return s;
}

Result<ConvShape> conv_geometry(const OpContext& c) {
  const std::string& name = c.op->name.value;
  if (name == "conv_transpose") return transpose_geometry(c);
  if (name == "conv_input_grad") return input_grad_geometry(c);
  if (name == "conv_weight_grad") return weight_grad_geometry(c);
  return conv_geometry(c, c.in(0).dims, c.in(1).dims);
}

Status register_conv(OpRegistry& registry) {
  const Gradient no_gradient = Gradient::non_differentiable("second derivatives are not supported");
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "conv",
       .doc = "Convolution over 1 to 3 spatial axes, as cross-correlation (the kernel is not flipped).",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, C, spatial...]"}, {"w", "[O, C/groups, kernel...]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[N, O, spatial...]"}},
       .attrs = conv_attrs(),
       .infer = conv_infer(&ConvShape::y_dims),
       .gradient = Gradient::rule(conv_gradient),
       .reference = conv_reference(Role::kY),
       .cost = conv_cost,
       .precision = Precision::kLow,
       .samples = conv_samples()});
  defs.push_back(
      {.name = "conv_input_grad",
       .doc = "Gradient of conv for its input.",
       .inputs = std::vector<OperandSpec>{{"dy", "float [N, O, spatial...]"}, {"w", "[O, C/groups, kernel...]"}},
       .outputs = std::vector<OperandSpec>{{"dx", "shape input_dims"}},
       .attrs = conv_attrs({{"input_dims", AttrKind::kInts, {}, "shape of conv's x, [N, C, spatial...]"}}),
       .infer = conv_infer(&ConvShape::x_dims),
       .gradient = no_gradient,
       .reference = conv_reference(Role::kX),
       .cost = conv_cost,
       .precision = Precision::kLow,
       .samples = input_grad_samples()});
  defs.push_back({.name = "conv_weight_grad",
                  .doc = "Gradient of conv for its weights.",
                  .inputs = std::vector<OperandSpec>{{"x", "float [N, C, spatial...]"}, {"dy", "[N, O, spatial...]"}},
                  .outputs = std::vector<OperandSpec>{{"dw", "[O, C/groups, kernel...]"}},
                  .attrs = conv_attrs({{"kernel", AttrKind::kInts, {}, "spatial sizes of the weights"}}),
                  .infer = conv_infer(&ConvShape::w_dims),
                  .gradient = no_gradient,
                  .reference = conv_reference(Role::kW),
                  .cost = conv_cost,
                  .precision = Precision::kLow,
                  .samples = weight_grad_samples()});
  defs.push_back(
      {.name = "conv_transpose",
       .doc = "Transposed convolution: the input gradient of a convolution with the same attributes, as a layer. "
              "Size: (in - 1) * stride - padding_low - padding_high + dilation * (kernel - 1) + output_padding + 1.",
       .inputs = std::vector<OperandSpec>{{"x", "float [N, I, spatial...]"}, {"w", "[I, O/groups, kernel...]"}},
       .outputs = std::vector<OperandSpec>{{"y", "[N, O, spatial...]"}},
       .attrs = conv_attrs({{"output_padding", AttrKind::kInts, Dims{},
                             "elements added to one end of each axis, below the stride; empty means none"}}),
       .infer = conv_infer(&ConvShape::x_dims),
       .gradient = Gradient::rule(conv_transpose_gradient),
       .reference = conv_reference(Role::kX),
       .cost = conv_cost,
       .precision = Precision::kLow,
       .samples = transpose_samples()});
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
