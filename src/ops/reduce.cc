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

// combine(accumulator, x, first) over the reduced axes.
OpDef reduction(const char* name, const char* doc, double (*combine)(double, double, bool), graph::GradientFn grad,
                Empty empty, bool mean = false, Fill fill = Fill::kNormal) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "any shape"}},
          .outputs = std::vector<OperandSpec>{{"y", "x without the reduced axes (size 1 with keepdims)"}},
          .attrs = {{"axes", AttrKind::kInts, Dims{}, "axes to reduce, negative from the end; empty means all"},
                    {"keepdims", AttrKind::kBool, false, "keep reduced axes with size 1"}},
          .infer = [empty, mean](const OpContext& c) -> TypesOrError {
            DS_TRY(normalize_axes(c.ints("axes"), c.in(0).rank()).status());
            if (c.in(0).dtype == DType::kBool || (mean && !is_float(c.in(0).dtype)))
              return invalid("expected {} numbers, got {}; cast them first", mean ? "float" : "", to_string(c.in(0)));
            if (empty == Empty::kRefused && reduced_count(c) == 0)
              return invalid("expected at least one element to reduce, got {}", to_string(c.in(0)));
            return std::vector<TensorType>{{c.in(0).dtype, output_dims(c, c.flag("keepdims"))}};
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
          .samples = std::vector<Sample>{{"all", {f32({3, 11}, fill)}},
                                         {"last", {f32({4, 37}, fill)}, {{"axes", Dims{-1}}}},
                                         {"first_keep", {f32({5, 6}, fill)}, {{"axes", Dims{0}}, {"keepdims", true}}},
                                         {"middle", {f32({2, 5, 3}, fill)}, {{"axes", Dims{1}}}},
                                         {"channels", {f32({2, 3, 4, 5}, fill)}, {{"axes", Dims{0, 2, 3}}}},
                                         {"scalar", {f32({}, fill)}}}};
}

// max and min: ties share the gradient evenly.
std::vector<Expr> extremum_gradient(GradContext& g) {
  Expr hit = cast(equal(g.inputs[0], keep_axes(g, g.outputs[0])), g.inputs[0].dtype());
  return {hit * keep_axes(g, g.output_grads[0]) / sum(hit, g.node.ints("axes"), true)};
}

OpDef arg_reduction(const char* name, const char* doc, bool largest) {
  return {
      .name = name,
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
              for (int64_t i = 1; i < n; ++i)
                if (largest ? x[i * inner] > x[best * inner] : x[i * inner] < x[best * inner]) best = i;
              out[0].data[o] = static_cast<double>(best);
            }
            return {};
          }),
      .precision = Precision::kFollow,
      .samples = std::vector<Sample>{{"last", {f32({4, 9})}, {}, false},
                                     {"first", {f32({4, 9})}, {{"axis", int64_t{0}}}, false},
                                     {"keep", {f32({2, 5, 3})}, {{"axis", int64_t{1}}, {"keepdims", true}}, false}}};
}

}  // namespace

Status register_reduce(OpRegistry& registry) {
  std::vector<OpDef> defs;
  defs.push_back(reduction(
      "sum", "Sum over axes.", [](double a, double x, bool) { return a + x; },
      [](GradContext& g) -> std::vector<Expr> {
        return {broadcast_to(keep_axes(g, g.output_grads[0]), g.inputs[0].dims())};
      },
      Empty::kAllowed));
  defs.push_back(reduction(
      "mean", "Arithmetic mean over axes.", [](double a, double x, bool) { return a + x; },
      [](GradContext& g) -> std::vector<Expr> {
        return {broadcast_to(keep_axes(g, g.output_grads[0]) / reduced_count(g.node), g.inputs[0].dims())};
      },
      Empty::kRefused, true));
  defs.push_back(reduction(
      "max", "Largest element over axes; ties share the gradient evenly.",
      [](double a, double x, bool first) { return first || x > a || std::isnan(x) ? x : a; }, extremum_gradient,
      Empty::kRefused));
  defs.back().precision = Precision::kFollow;
  defs.push_back(reduction(
      "min", "Smallest element over axes; ties share the gradient evenly.",
      [](double a, double x, bool first) { return first || x < a || std::isnan(x) ? x : a; }, extremum_gradient,
      Empty::kRefused));
  defs.back().precision = Precision::kFollow;
  defs.push_back(reduction(
      "prod", "Product over axes; the gradient needs elements other than 0.",
      [](double a, double x, bool) { return a * x; },
      [](GradContext& g) -> std::vector<Expr> {
        return {keep_axes(g, g.output_grads[0] * g.outputs[0]) / g.inputs[0]};
      },
      Empty::kAllowed, false, Fill::kPositive));
  defs.push_back(arg_reduction("argmax", "Index of the first largest element along an axis.", true));
  defs.push_back(arg_reduction("argmin", "Index of the first smallest element along an axis.", false));
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
