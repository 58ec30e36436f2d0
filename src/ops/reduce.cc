// Reductions: sum, mean, max, min, prod, logsumexp, argmax, argmin.
#include <cmath>
#include <limits>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

std::vector<bool> reduced(const OpContext& c) {
  std::vector<bool> mask(c.in(0).dims.size());
  for (int64_t a : *normalize_axes(c.ints("axes"), c.in(0).rank())) mask[a] = true;
  return mask;
}

Dims output_dims(const OpContext& c, bool keepdims) {
  Dims dims;
  const std::vector<bool> mask = reduced(c);
  for (size_t i = 0; i < mask.size(); ++i) {
    if (!mask[i]) dims.push_back(c.in(0).dims[i]);
    if (mask[i] && keepdims) dims.push_back(1);
  }
  return dims;
}

// y or dy with the reduced axes put back as size 1, so that it broadcasts against x.
Expr keep_axes(const GradContext& g, Expr y) { return reshape(y, output_dims(g.node, true)); }

double reduced_count(const OpContext& c) {
  double n = 1;
  const std::vector<bool> mask = reduced(c);
  for (size_t i = 0; i < mask.size(); ++i)
    if (mask[i]) n *= static_cast<double>(c.in(0).dims[i]);
  return n;
}

enum class Empty { kAllowed, kRefused };
enum class Takes { kFloats, kNumbers, kAll };

// What sums and products of integers come in: as in NumPy and PyTorch, small types would not hold them.
DType total_dtype(DType dtype) { return is_float(dtype) ? dtype : DType::kI64; }

// combine(accumulator, x, first) over the reduced axes.
OpDef reduction(const char* name, const char* doc, double (*combine)(double, double, bool), graph::GradientFn grad,
                Empty empty, Takes takes, Fill fill = Fill::kNormal) {
  const bool mean = takes == Takes::kFloats, total = takes == Takes::kAll;
  std::vector<Sample> samples{{"all", {f32({3, 11}, fill)}},
                              {"last", {f32({4, 37}, fill)}, {{"axes", Dims{-1}}}},
                              {"first_keep", {f32({5, 6}, fill)}, {{"axes", Dims{0}}, {"keepdims", true}}},
                              {"middle", {f32({2, 5, 3}, fill)}, {{"axes", Dims{1}}}},
                              {"channels", {f32({2, 3, 4, 5}, fill)}, {{"axes", Dims{0, 2, 3}}}},
                              {"scalar", {f32({}, fill)}},
                              {"no_rows", {f32({0, 3}, fill)}, {{"axes", Dims{1}}}, false}};
  if (empty == Empty::kAllowed) {
    samples.push_back({"of_nothing", {f32({3, 0}, fill)}, {{"axes", Dims{1}}}, false});
    samples.push_back({"all_of_nothing", {f32({2, 0}, fill)}, {}, false});
  }
  if (!mean) samples.push_back({"bytes", {{{DType::kU8, {4, 3}}, Fill::kIndices, 250}}, {{"axes", Dims{1}}}, false});
  if (total) samples.push_back({"bools", {{{DType::kBool, {4, 9}}, Fill::kBool}}, {}, false});
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "any shape"}},
          .outputs = std::vector<OperandSpec>{{"y", "x without the reduced axes (size 1 with keepdims)"}},
          .attrs = {{"axes", AttrKind::kInts, Dims{}, "axes to reduce, negative from the end; empty means all"},
                    {"keepdims", AttrKind::kBool, false, "keep reduced axes with size 1"}},
          .infer = [empty, mean, total](const OpContext& c) -> TypesOrError {
            DS_TRY(normalize_axes(c.ints("axes"), c.in(0).rank()).status());
            if ((c.in(0).dtype == DType::kBool && !total) || (mean && !is_float(c.in(0).dtype)))
              return invalid("expected {} numbers, got {}; cast them first", mean ? "float" : "", to_string(c.in(0)));
            if (empty == Empty::kRefused && reduced_count(c) == 0)
              return invalid("expected at least one element to reduce, got {}", to_string(c.in(0)));
            const DType dtype = total ? total_dtype(c.in(0).dtype) : c.in(0).dtype;
            return std::vector<TensorType>{{dtype, output_dims(c, c.flag("keepdims"))}};
          },
          .gradient = Gradient::rule(std::move(grad)),
          .reference = Reference::kernel(
              [combine, mean](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                const Dims keep = output_dims(c, true);
                const bool is_prod = c.op->name.value == "prod";
                std::vector<double> acc(out[0].data.size(), is_prod ? 1.0 : 0.0);
                std::vector<char> started(acc.size());
                Dims index(in[0].dims.size());
                for (double x : in[0].data) {
                  const int64_t o = broadcast_offset(index, keep);
                  acc[o] = combine(acc[o], x, !started[o]);
                  started[o] = 1;
                  next_index(index, in[0].dims);
                }
                for (size_t i = 0; i < acc.size(); ++i) out[0].data[i] = mean ? acc[i] / reduced_count(c) : acc[i];
                return {};
              }),
          .samples = std::move(samples)};
}

// max and min: ties share the gradient evenly.
std::vector<Expr> extremum_gradient(GradContext& g) {
  // A half float can't count beyond 65,504.
  const DType dtype = wide_dtype(g.inputs[0].dtype());
  Expr hit = cast(equal(g.inputs[0], keep_axes(g, g.outputs[0])), dtype);
  Expr share = cast(keep_axes(g, g.output_grads[0]), dtype) / sum(hit, g.node.ints("axes"), true);
  return {cast(hit * share, g.inputs[0].dtype())};
}

// For each element the product of the others. Where one is 0, it is that of what is not 0; where several are, all are
// 0.
std::vector<Expr> prod_gradient(GradContext& g) {
  Expr x = g.inputs[0], dy = keep_axes(g, g.output_grads[0]), y = keep_axes(g, g.outputs[0]);
  const Dims& axes = g.node.ints("axes");
  Expr zero = equal(x, constant_like(x, 0));
  Expr zeros = sum(cast(zero, DType::kF32), axes, true);
  Expr rest = g.builder.op("prod", {select(zero, constant_like(x, 1), x)}, {{"axes", axes}, {"keepdims", true}});
  Expr alone = select(equal(zeros, constant_like(zeros, 1)), dy * rest, constant_like(x, 0));
  // What is divided is not 0 anywhere, so that no NaN comes of the side that is not taken.
  Expr quotient = dy * y / select(zero, constant_like(x, 1), x);
  return {select(zero, alone, quotient)};
}

OpDef arg_reduction(const char* name, const char* doc, bool largest) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "numbers, rank >= 1"}},
          .outputs = std::vector<OperandSpec>{{"index", "i64, x without the axis (size 1 with keepdims)"}},
          .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis to search, negative from the end"},
                    {"keepdims", AttrKind::kBool, false, "keep the axis with size 1"}},
          .infer = [](const OpContext& c) -> TypesOrError {
            DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
            if (c.in(0).dims[axis] == 0)
              return invalid("expected at least one element on axis {}, got {}", axis, to_string(c.in(0)));
            Dims dims = c.in(0).dims;
            if (c.flag("keepdims"))
              dims[axis] = 1;
            else
              dims.erase(dims.begin() + axis);
            return std::vector<TensorType>{{DType::kI64, std::move(dims)}};
          },
          .gradient = Gradient::non_differentiable("its output is an index"),
          .reference = Reference::kernel(
              [largest](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
                const int64_t n = in[0].dims[axis], inner = product(std::span(in[0].dims).subspan(axis + 1));
                for (size_t o = 0; o < out[0].data.size(); ++o) {
                  const double* x =
                      in[0].data.data() + static_cast<int64_t>(o) / inner * n * inner + static_cast<int64_t>(o) % inner;
                  int64_t best = 0;
                  for (int64_t i = 1; i < n && !std::isnan(x[best * inner]); ++i) {
                    const double a = x[i * inner], b = x[best * inner];
                    if (std::isnan(a) || (largest ? a > b : a < b)) best = i;
                  }
                  out[0].data[o] = static_cast<double>(best);
                }
                return {};
              }),
          .precision = Precision::kFollow,
          .samples = std::vector<Sample>{{"last", {f32({4, 9})}, {}, false},
                                         {"first", {f32({4, 9})}, {{"axis", int64_t{0}}}, false},
                                         {"keep", {f32({2, 5, 3})}, {{"axis", int64_t{1}}, {"keepdims", true}}, false},
                                         {"no_rows", {f32({0, 3})}, {}, false},
                                         {"no_columns", {f32({3, 0})}, {{"axis", int64_t{0}}}, false}}};
}

}  // namespace

Status register_reduce(OpRegistry& registry) {
  std::vector<OpDef> defs;
  defs.push_back(reduction(
      "sum", "Sum over axes; of integers and bools in i64.", [](double a, double x, bool) { return a + x; },
      [](GradContext& g) -> std::vector<Expr> {
        return {broadcast_to(keep_axes(g, g.output_grads[0]), g.inputs[0].dims())};
      },
      Empty::kAllowed, Takes::kAll));
  defs.push_back(reduction(
      "mean", "Arithmetic mean over axes; NaN of nothing.", [](double a, double x, bool) { return a + x; },
      [](GradContext& g) -> std::vector<Expr> {
        Expr dy = keep_axes(g, g.output_grads[0]);  // a half float can't hold a count beyond 65,504
        Expr share = cast(cast(dy, wide_dtype(dy.dtype())) / reduced_count(g.node), dy.dtype());
        return {broadcast_to(share, g.inputs[0].dims())};
      },
      Empty::kAllowed, Takes::kFloats));
  defs.push_back(reduction(
      "max", "Largest element over axes; ties share the gradient evenly.",
      [](double a, double x, bool first) { return first || x > a || std::isnan(x) ? x : a; }, extremum_gradient,
      Empty::kRefused, Takes::kNumbers));
  defs.back().precision = Precision::kFollow;
  defs.push_back(reduction(
      "min", "Smallest element over axes; ties share the gradient evenly.",
      [](double a, double x, bool first) { return first || x < a || std::isnan(x) ? x : a; }, extremum_gradient,
      Empty::kRefused, Takes::kNumbers));
  defs.back().precision = Precision::kFollow;
  defs.push_back(reduction(
      "prod", "Product over axes; of integers and bools in i64.", [](double a, double x, bool) { return a * x; },
      prod_gradient, Empty::kAllowed, Takes::kAll, Fill::kPositive));
  defs.push_back(
      arg_reduction("argmax", "Index of the first largest element along an axis; NaN counts as the largest.", true));
  defs.push_back(
      arg_reduction("argmin", "Index of the first smallest element along an axis; NaN counts as the smallest.", false));
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
