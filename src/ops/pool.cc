// Pooling: max_pool, avg_pool, their gradients, and the adaptive forms. Global pooling is mean or max.
#include "ops/pool.h"

#include <cmath>
#include <limits>

namespace deepseek::ops {
namespace {

Dims with_spatial(const Dims& x, const Dims& spatial) {
  Dims dims = {x[0], x[1]};
  dims.insert(dims.end(), spatial.begin(), spatial.end());
  return dims;
}

Status check_float(const OpContext& c) {
  if (!is_float(c.in(0).dtype)) return invalid("expected a float tensor, got {}; cast it first", to_string(c.in(0)));
  return {};
}

// The first window on an axis that touches no element of the input, or -1. In closed form where it can be: sizes of a
// hostile graph reach 2^31.
int64_t first_empty_window(const Window& w, size_t axis, int64_t input, int64_t output) {
  const int64_t stride = w.stride[axis], low = w.padding_low[axis], step = w.dilation[axis];
  if (output == 0) return -1;
  if (input == 0) return 0;
  // Windows that begin before the input: the first element at or after 0 is the start's remainder.
  if (low > (w.kernel[axis] - 1) * step) return 0;
  const int64_t before = std::min(output, (low + stride - 1) / stride);
  int64_t remainder = (step - low % step) % step;
  const int64_t shift = stride % step;
  for (int64_t at = 0; at < before && input < step; ++at) {
    if (remainder >= input) return at;
    if (shift == 0) break;
    remainder = remainder + shift >= step ? remainder + shift - step : remainder + shift;
  }
  // Windows that begin after it.
  const int64_t past = (low + input + stride - 1) / stride;
  return past < output ? past : -1;
}

// A maximum or mean over nothing is not a number, so windows in the padding alone are refused.
Status check_windows_not_empty(const PoolShape& s) {
  for (size_t i = 0; i < s.input.size(); ++i)
    if (const int64_t at = first_empty_window(s.window, i, s.input[i], s.output[i]); at >= 0)
      return invalid(
          "window {} of spatial axis {} lies in the padding alone (input {}, kernel {}, padding {} and {}); pad "
          "less than the kernel's size",
          at, i, s.input[i], s.window.kernel[i], s.window.padding_low[i], s.window.padding_high[i]);
  return {};
}

Result<PoolShape> geometry(const OpContext& c, const Dims& x) {
  PoolShape s;
  DS_ASSIGN(s.input, spatial_dims(x));
  s.planes = x[0] * x[1];
  const Dims& kernel = c.ints("kernel");
  if (kernel.size() != s.input.size())
    return invalid("expected {} kernel sizes, one per spatial axis of {}, got {}", s.input.size(), to_string(x),
                   to_string(kernel));
  DS_ASSIGN(s.window, read_window(c, kernel, EmptyStride::kKernel));
  DS_ASSIGN(s.output, s.window.output_dims(s.input, c.flag("ceil_mode")));
  DS_TRY(check_windows_not_empty(s));
  return s;
}

TypesOrError infer_max_pool(const OpContext& c) {
  DS_TRY(check_float(c));
  DS_ASSIGN(PoolShape s, pool_geometry(c));
  if (product(s.input) > std::numeric_limits<int32_t>::max())
    return invalid("the plane of {} has {} elements, more than an i32 index reaches", to_string(c.in(0)),
                   product(s.input));
  const Dims dims = with_spatial(c.in(0).dims, s.output);
  return std::vector<TensorType>{{c.in(0).dtype, dims}, {DType::kI32, dims}};
}

Status max_pool_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  DS_ASSIGN(PoolShape s, pool_geometry(c));
  const int64_t in_plane = product(s.input), out_plane = product(s.output), taps = product(s.window.kernel);
  Dims at(s.input.size()), tap(s.input.size());
  for (int64_t p = 0; p < out_plane; ++p, next_index(at, s.output))
    for (int64_t plane = 0; plane < s.planes; ++plane) {
      const double* x = in[0].data.data() + plane * in_plane;
      int64_t best = -1;
      for (int64_t k = 0; k < taps; ++k, next_index(tap, s.window.kernel)) {
        const int64_t q = s.window.source(at, tap, s.input);
        if (q >= 0 && (best < 0 || x[q] > x[best] || std::isnan(x[q]))) best = q;
      }
      out[0].data[plane * out_plane + p] = x[best];
      out[1].data[plane * out_plane + p] = static_cast<double>(best);
    }
  return {};
}

TypesOrError infer_max_pool_grad(const OpContext& c) {
  DS_TRY(check_float(c));
  const Dims &x = c.ints("input_dims"), &dy = c.in(0).dims;
  DS_TRY(spatial_dims(x).status());
  if (c.in(1).dims != dy || (c.in(1).dtype != DType::kI32 && c.in(1).dtype != DType::kI64))
    return invalid("expected i32 or i64 indices of dy's shape {}, got {}", to_string(dy), to_string(c.in(1)));
  if (dy.size() != x.size() || dy[0] != x[0] || dy[1] != x[1])
    return invalid("expected dy [{}, {}, spatial...] for input_dims {}, got {}", x[0], x[1], to_string(x),
                   to_string(dy));
  return std::vector<TensorType>{{c.in(0).dtype, x}};
}

Status max_pool_grad_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const Dims &x = c.ints("input_dims"), &dy = c.in(0).dims;
  const int64_t in_plane = product(std::span(x).subspan(2)), out_plane = product(std::span(dy).subspan(2));
  std::fill(out[0].data.begin(), out[0].data.end(), 0.0);
  for (size_t i = 0; i < in[0].data.size(); ++i) {
    const double q = in[1].data[i];
    if (!(q >= 0 && q < static_cast<double>(in_plane)))
      return invalid("index {} is outside the plane of {} elements of input_dims {}", q, in_plane, to_string(x));
    out[0].data[static_cast<int64_t>(i) / out_plane * in_plane + static_cast<int64_t>(q)] += in[0].data[i];
  }
  return {};
}

TypesOrError infer_avg_pool(const OpContext& c) {
  DS_TRY(check_float(c));
  DS_ASSIGN(PoolShape s, pool_geometry(c));
  return std::vector<TensorType>{{c.in(0).dtype, with_spatial(c.in(0).dims, s.output)}};
}

TypesOrError infer_avg_pool_grad(const OpContext& c) {
  DS_TRY(check_float(c));
  DS_ASSIGN(PoolShape s, pool_geometry(c));
  const Dims& x = c.ints("input_dims");
  if (const Dims y = with_spatial(x, s.output); c.in(0).dims != y)
    return invalid("expected dy to have the shape {}, got {}", to_string(y), to_string(c.in(0)));
  return std::vector<TensorType>{{c.in(0).dtype, x}};
}

// Both directions of avg_pool: visits every (input, output, 1 / divisor).
Reference avg_pool_reference(bool backward) {
  return Reference::kernel(
      [backward](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
        DS_ASSIGN(PoolShape s, pool_geometry(c));
        const int64_t in_plane = product(s.input), out_plane = product(s.output), taps = product(s.window.kernel);
        std::fill(out[0].data.begin(), out[0].data.end(), 0.0);
        Dims at(s.input.size()), tap(s.input.size());
        for (int64_t p = 0; p < out_plane; ++p, next_index(at, s.output)) {
          const double divisor = static_cast<double>(avg_pool_divisor(s, at, c.flag("count_include_pad")));
          for (int64_t k = 0; k < taps; ++k, next_index(tap, s.window.kernel)) {
            const int64_t q = s.window.source(at, tap, s.input);
            for (int64_t plane = 0; plane < s.planes && q >= 0; ++plane) {
              const int64_t x = plane * in_plane + q, y = plane * out_plane + p;
              out[0].data[backward ? x : y] += in[0].data[backward ? y : x] / divisor;
            }
          }
        }
        return {};
      });
}

TypesOrError infer_adaptive(const OpContext& c) {
  DS_TRY(check_float(c));
  DS_ASSIGN(Dims spatial, spatial_dims(c.in(0).dims));
  const Dims& size = c.ints("output_size");
  if (size.size() != spatial.size() || *std::min_element(size.begin(), size.end()) < 1)
    return invalid("expected output_size to be {} integers >= 1, one per spatial axis of {}, got {}", spatial.size(),
                   to_string(c.in(0)), to_string(size));
  if (*std::min_element(spatial.begin(), spatial.end()) < 1)
    return invalid("expected at least one element on every spatial axis, got {}", to_string(c.in(0)));
  return std::vector<TensorType>{{c.in(0).dtype, with_spatial(c.in(0).dims, size)}};
}

Reference adaptive_reference(bool maximum) {
  return Reference::kernel(
      [maximum](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
        const Dims &input = in[0].dims, &output = out[0].dims;
        const Dims spatial(input.begin() + 2, input.end());
        Dims index(output.size());
        for (double& y : out[0].data) {
          Dims first, size;
          for (size_t i = 2; i < output.size(); ++i) {
            const auto [begin, end] = adaptive_range(index[i], input[i], output[i]);
            first.push_back(begin);
            size.push_back(end - begin);
          }
          y = maximum ? -std::numeric_limits<double>::infinity() : 0;
          Dims step(size.size());
          do {
            Dims from = first;
            for (size_t i = 0; i < step.size(); ++i) from[i] += step[i];
            const double x =
                in[0].data[(index[0] * input[1] + index[1]) * product(spatial) + broadcast_offset(from, spatial)];
            y = !maximum ? y + x / static_cast<double>(product(size)) : x > y || std::isnan(x) ? x : y;
          } while (next_index(step, size));
          next_index(index, output);
        }
        return {};
      });
}

// Kernel sizes where every window has the same size and none overlap; empty otherwise.
Dims even_kernel(const OpContext& c) {
  Dims kernel;
  const Dims& size = c.ints("output_size");
  for (size_t i = 0; i < size.size(); ++i) {
    if (c.in(0).dims[i + 2] % size[i] != 0) return {};
    kernel.push_back(c.in(0).dims[i + 2] / size[i]);
  }
  return kernel;
}

// Uneven windows are separable: along each axis, the mean is a product with a constant matrix.
std::vector<Expr> decompose_adaptive_avg(Builder& builder, const OpContext& c, std::span<const Expr> inputs) {
  Expr x = inputs[0];
  if (const Dims kernel = even_kernel(c); !kernel.empty()) return {builder.op("avg_pool", {x}, {{"kernel", kernel}})};
  const Dims& size = c.ints("output_size");
  for (size_t a = 0; a < size.size(); ++a) {
    Dims dims = x.dims();
    const int64_t in = dims[a + 2], out = size[a];
    if (in == out) continue;
    graph::Tensor weights = graph::Tensor::zeros(x.dtype(), {out, in});
    for (int64_t i = 0; i < out; ++i) {
      const auto [begin, end] = adaptive_range(i, in, out);
      for (int64_t j = begin; j < end; ++j) weights.set(i * in + j, 1.0 / static_cast<double>(end - begin));
    }
    const int64_t outer = product(std::span(dims).first(a + 2)), inner = product(std::span(dims).subspan(a + 3));
    dims[a + 2] = out;
    x = reshape(matmul(builder.constant(std::move(weights)), reshape(x, {outer, in, inner})), dims);
  }
  return {x};
}

std::vector<Expr> decompose_adaptive_max(Builder& builder, const OpContext& c, std::span<const Expr> inputs) {
  Expr x = inputs[0];
  if (const Dims kernel = even_kernel(c); !kernel.empty()) return {builder.op("max_pool", {x}, {{"kernel", kernel}})};
  const Dims& size = c.ints("output_size");
  for (size_t a = 0; a < size.size(); ++a) {
    const int64_t axis = static_cast<int64_t>(a) + 2, in = x.dim(axis), out = size[a];
    if (in == out) continue;
    std::vector<Expr> parts;
    for (int64_t i = 0; i < out; ++i) {
      const auto [begin, end] = adaptive_range(i, in, out);
      parts.push_back(max(slice(x, axis, begin, end), {axis}, true));
    }
    x = concat(std::move(parts), axis);
  }
  return {x};
}

struct Case {
  const char* name;
  Dims x, kernel, stride, low, high, dilation;
  bool ceil_mode = false, include_pad = true;
};

std::vector<Case> cases() {
  return {{"1d", {2, 3, 10}, {3}, {}, {}, {}, {}},
          {"2d_stem", {2, 3, 9, 9}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, {}},
          {"2d_odd", {1, 4, 7, 5}, {2, 3}, {1, 2}, {0, 1}, {0, 1}, {}, false, false},
          {"2d_ceil", {1, 2, 8, 7}, {3, 3}, {2, 3}, {1, 1}, {1, 1}, {}, true},
          {"2d_ceil_exclude", {1, 2, 6, 7}, {3, 2}, {2, 2}, {1, 0}, {1, 0}, {}, true, false},
          {"2d_asymmetric", {2, 2, 6, 6}, {3, 3}, {2, 2}, {0, 1}, {1, 0}, {}, false, false},
          {"2d_overlap", {1, 2, 6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {}},
          {"3d", {1, 2, 5, 4, 6}, {2, 2, 3}, {2, 1, 2}, {0, 1, 1}, {0, 1, 1}, {}}};
}

std::vector<Case> max_cases() {
  std::vector<Case> list = cases();
  list.push_back({"2d_dilated", {1, 2, 9, 8}, {3, 2}, {2, 1}, {1, 0}, {1, 0}, {2, 3}});
  return list;
}

Attrs common_attrs(const Case& t) {
  return {{"kernel", t.kernel},
          {"stride", t.stride},
          {"padding_low", t.low},
          {"padding_high", t.high},
          {"ceil_mode", t.ceil_mode}};
}

Attrs avg_attrs(const Case& t) {
  Attrs attrs = common_attrs(t);
  attrs.set("count_include_pad", t.include_pad);
  return attrs;
}

std::vector<Sample> max_samples() {
  std::vector<Sample> samples;
  for (const Case& t : max_cases()) {
    Attrs attrs = common_attrs(t);
    attrs.set("dilation", t.dilation);
    samples.push_back({t.name, {f32(t.x)}, std::move(attrs)});
  }
  return samples;
}

std::vector<Sample> max_grad_samples() {
  const auto sample = [](const char* name, Dims x, Dims y) -> Sample {
    const int64_t plane = product(std::span(x).subspan(2));
    return {name, {f32(y), {{DType::kI32, y}, Fill::kIndices, plane}}, {{"input_dims", x}}, false};
  };
  return {sample("1d", {2, 3, 10}, {2, 3, 3}), sample("2d", {2, 3, 9, 8}, {2, 3, 5, 4}),
          sample("3d", {1, 2, 4, 4, 5}, {1, 2, 2, 3, 2})};
}

std::vector<Sample> avg_samples() {
  std::vector<Sample> samples;
  for (const Case& t : cases()) samples.push_back({t.name, {f32(t.x)}, avg_attrs(t)});
  return samples;
}

std::vector<Sample> avg_grad_samples() {
  std::vector<Sample> samples;
  for (const Case& t : cases()) {
    Attrs attrs = avg_attrs(t);
    attrs.set("dilation", Dims(t.kernel.size(), 1));
    const Window w = *read_window(OpContext{nullptr, {}, &attrs}, t.kernel, EmptyStride::kKernel);
    attrs = avg_attrs(t);
    attrs.set("input_dims", t.x);
    const Dims y = with_spatial(t.x, *w.output_dims(Dims(t.x.begin() + 2, t.x.end()), t.ceil_mode));
    samples.push_back({t.name, {f32(y)}, std::move(attrs), false});
  }
  return samples;
}

std::vector<Sample> adaptive_samples() {
  return {{"1d_uneven", {f32({2, 3, 10})}, {{"output_size", Dims{4}}}},
          {"2d_even", {f32({2, 3, 6, 8})}, {{"output_size", Dims{3, 2}}}},
          {"2d_uneven", {f32({1, 2, 7, 5})}, {{"output_size", Dims{3, 5}}}},
          {"2d_one", {f32({2, 3, 7, 7})}, {{"output_size", Dims{1, 1}}}},
          {"2d_larger", {f32({1, 2, 3, 4})}, {{"output_size", Dims{5, 7}}}},
          {"3d", {f32({1, 2, 4, 5, 3})}, {{"output_size", Dims{2, 2, 2}}}}};
}

std::vector<AttrSpec> pool_attrs(bool dilation, std::vector<AttrSpec> more = {}) {
  std::vector<AttrSpec> attrs = {{"kernel", AttrKind::kInts, {}, "window sizes per spatial axis"}};
  for (AttrSpec& spec : window_attrs(EmptyStride::kKernel, dilation)) attrs.push_back(std::move(spec));
  attrs.push_back({"ceil_mode", AttrKind::kBool, false, "keep a last window that hangs over the end"});
  attrs.insert(attrs.end(), more.begin(), more.end());
  return attrs;
}

OpDef adaptive_pool(const char* name, const char* doc, bool maximum) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "float [N, C, spatial...]"}},
          .outputs = std::vector<OperandSpec>{{"y", "[N, C, output_size...]"}},
          .attrs = {{"output_size", AttrKind::kInts, {}, "spatial sizes of y"}},
          .infer = infer_adaptive,
          .gradient = Gradient::by_decomposition(),
          .reference = adaptive_reference(maximum),
          .decompose = maximum ? decompose_adaptive_max : decompose_adaptive_avg,
          // The weights of an average are rounded in a low type.
          .precision = maximum ? Precision::kFollow : Precision::kWide,
          .samples = adaptive_samples()};
}

AttrSpec input_dims_attr() {
  return {"input_dims", AttrKind::kInts, {}, "shape of the pooled tensor, [N, C, spatial...]"};
}

std::vector<OpDef> max_ops() {
  std::vector<OpDef> defs;
  defs.push_back({.name = "max_pool",
                  .doc = "Largest element of each window, and where it is. The first one wins a tie.",
                  .inputs = std::vector<OperandSpec>{{"x", "float [N, C, spatial...]"}},
                  .outputs = std::vector<OperandSpec>{{"y", "[N, C, spatial...]"},
                                                      {"indices", "i32, y's shape: row-major index in x's plane"}},
                  .attrs = pool_attrs(true),
                  .infer = infer_max_pool,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    return {g.builder.op("max_pool_grad", {g.output_grads[0], g.outputs[1]},
                                         {{"input_dims", g.inputs[0].dims()}})};
                  }),
                  .reference = Reference::kernel(max_pool_reference),
                  .precision = Precision::kFollow,
                  .samples = max_samples()});
  defs.push_back(
      {.name = "max_pool_grad",
       .doc = "Gradient of max_pool: adds each dy at its index in the plane.",
       .inputs = std::vector<OperandSpec>{{"dy", "float [N, C, spatial...]"}, {"indices", "integers, dy's shape"}},
       .outputs = std::vector<OperandSpec>{{"dx", "shape input_dims"}},
       .attrs = {input_dims_attr()},
       .infer = infer_max_pool_grad,
       .gradient = Gradient::non_differentiable("second derivatives are not supported"),
       .reference = Reference::kernel(max_pool_grad_reference),
       .samples = max_grad_samples()});
  return defs;
}

std::vector<OpDef> avg_ops() {
  const AttrSpec include_pad{"count_include_pad", AttrKind::kBool, true, "padding counts in the divisor"};
  std::vector<OpDef> defs;
  defs.push_back({.name = "avg_pool",
                  .doc = "Mean of each window.",
                  .inputs = std::vector<OperandSpec>{{"x", "float [N, C, spatial...]"}},
                  .outputs = std::vector<OperandSpec>{{"y", "[N, C, spatial...]"}},
                  .attrs = pool_attrs(false, {include_pad}),
                  .infer = infer_avg_pool,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    Attrs attrs = *g.node.attrs;
                    attrs.set("input_dims", g.inputs[0].dims());
                    return {g.builder.op("avg_pool_grad", {g.output_grads[0]}, std::move(attrs))};
                  }),
                  .reference = avg_pool_reference(false),
                  .precision = Precision::kFollow,
                  .samples = avg_samples()});
  defs.push_back({.name = "avg_pool_grad",
                  .doc = "Gradient of avg_pool: spreads each dy over its window.",
                  .inputs = std::vector<OperandSpec>{{"dy", "float [N, C, spatial...]"}},
                  .outputs = std::vector<OperandSpec>{{"dx", "shape input_dims"}},
                  .attrs = pool_attrs(false, {include_pad, input_dims_attr()}),
                  .infer = infer_avg_pool_grad,
                  .gradient = Gradient::non_differentiable("second derivatives are not supported"),
                  .reference = avg_pool_reference(true),
                  .samples = avg_grad_samples()});
  defs.push_back(adaptive_pool("adaptive_avg_pool",
                               "Mean over windows from floor(i * in / out) to ceil((i + 1) * in / out), so that "
                               "y has the given sizes.",
                               false));
  defs.push_back(adaptive_pool("adaptive_max_pool",
                               "Maximum over windows from floor(i * in / out) to ceil((i + 1) * in / out), so "
                               "that y has the given sizes.",
                               true));
  return defs;
}

}  // namespace

Result<PoolShape> pool_geometry(const OpContext& c) {
  return geometry(c, c.attrs->find("input_dims") != nullptr ? c.ints("input_dims") : c.in(0).dims);
}

int64_t avg_pool_divisor(const PoolShape& s, const Dims& at, bool count_include_pad) {
  int64_t n = 1;
  for (size_t i = 0; i < at.size(); ++i) {
    const int64_t start = at[i] * s.window.stride[i] - s.window.padding_low[i];
    const int64_t end = std::min(start + s.window.kernel[i], s.input[i] + s.window.padding_high[i]);
    n *= count_include_pad ? end - start : std::min(end, s.input[i]) - std::max<int64_t>(start, 0);
  }
  return n;
}

std::pair<int64_t, int64_t> adaptive_range(int64_t i, int64_t in, int64_t out) {
  return {i * in / out, ((i + 1) * in + out - 1) / out};
}

Status register_pool(OpRegistry& registry) {
  DS_TRY(add_all(registry, max_ops()));
  return add_all(registry, avg_ops());
}

}  // namespace deepseek::ops
