// Activations: softmax and log_softmax with gradient ops of their own, element-wise composites.
#include <cmath>
#include <numbers>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

TypesOrError infer_along_axis(const OpContext& c) {
  DS_TRY(normalize_axis(c.integer("axis"), c.in(0).rank()).status());
  for (size_t i = 1; i < c.num_inputs(); ++i)
    if (c.in(i) != c.in(0))
      return invalid("expected inputs of one type, got {} and {}", to_string(c.in(0)), to_string(c.in(i)));
  return float_like_input(c);
}

// Calls lane(a, b, y) with the offset of each lane's first element; at(i) = first + i * stride.
template <class Lane>
void for_each_lane(const OpContext& c, Lane lane) {
  const Dims& dims = c.in(0).dims;
  const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
  const int64_t n = dims[axis], stride = product(std::span(dims).subspan(axis + 1));
  for (int64_t outer = 0; outer < product(std::span(dims).first(axis)); ++outer)
    for (int64_t inner = 0; inner < stride; ++inner) lane(outer * n * stride + inner, n, stride);
}

graph::ReferenceFn softmax_reference(bool logarithm) {
  return [logarithm](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
    for_each_lane(c, [&](int64_t first, int64_t n, int64_t stride) {
      const double* x = elements(in[0], first);
      double* y = elements(out[0], first);
      double top = -INFINITY, total = 0;
      for (int64_t i = 0; i < n; ++i) top = std::fmax(top, x[i * stride]);
      for (int64_t i = 0; i < n; ++i) total += std::exp(x[i * stride] - top);
      for (int64_t i = 0; i < n; ++i) {
        const double shifted = x[i * stride] - top;
        y[i * stride] = logarithm ? shifted - std::log(total) : std::exp(shifted) / total;
      }
    });
    return {};
  };
}

graph::ReferenceFn softmax_grad_reference(bool logarithm) {
  return [logarithm](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
    for_each_lane(c, [&](int64_t first, int64_t n, int64_t stride) {
      const double *y = elements(in[0], first), *dy = elements(in[1], first);
      double* dx = elements(out[0], first);
      double total = 0;
      for (int64_t i = 0; i < n * stride; i += stride) total += logarithm ? dy[i] : dy[i] * y[i];
      for (int64_t i = 0; i < n * stride; i += stride)
        dx[i] = logarithm ? dy[i] - std::exp(y[i]) * total : y[i] * (dy[i] - total);
    });
    return {};
  };
}

OpDef softmax_op(const char* name, const char* doc, const char* grad_op, bool logarithm) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "float, rank >= 1"}},
          .outputs = std::vector<OperandSpec>{{"y", "shape and dtype of x"}},
          .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis that is normalised, negative from the end"}},
          .infer = infer_along_axis,
          .gradient = Gradient::rule([grad_op](GradContext& g) -> std::vector<Expr> {
            return {g.builder.op(grad_op, {g.outputs[0], g.output_grads[0]}, *g.node.attrs)};
          }),
          .reference = Reference::kernel(softmax_reference(logarithm)),
          .decompose = [logarithm](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
            if (in[0].type().num_elements() == 0) return {in[0]};  // there is no largest one
            const Dims axes{c.integer("axis")};
            Expr shifted = in[0] - max(in[0], axes, true);
            Expr e = exp(shifted), total = sum(e, axes, true);
            return {logarithm ? shifted - log(total) : e / total};
          },
          .samples = std::vector<Sample>{{"last", {f32({4, 37})}},
                                         {"channels", {f32({2, 5, 3, 4})}, {{"axis", int64_t{1}}}},
                                         {"first", {f32({6, 3})}, {{"axis", int64_t{0}}}},
                                         {"heads", {f32({2, 3, 5, 16})}},
                                         {"single", {f32({3, 1})}},
                                         {"no_rows", {f32({0, 3})}},
                                         {"no_classes", {f32({2, 0})}}}};
}

OpDef softmax_grad_op(const char* name, const char* doc, const char* y_doc, bool logarithm) {
  const auto y = [logarithm](Dims d) { return f32(std::move(d), logarithm ? Fill::kNormal : Fill::kProbabilities); };
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"y", y_doc}, {"dy", "gradient by y, y's type"}},
          .outputs = std::vector<OperandSpec>{{"dx", "gradient by the input"}},
          .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis that was normalised"}},
          .infer = infer_along_axis,
          .gradient = Gradient::non_differentiable("second derivatives are not supported"),
          .reference = Reference::kernel(softmax_grad_reference(logarithm)),
          .decompose = [logarithm](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
            const Dims axes{c.integer("axis")};
            if (logarithm) return {in[1] - exp(in[0]) * sum(in[1], axes, true)};
            return {in[0] * (in[1] - sum(in[0] * in[1], axes, true))};
          },
          .samples = std::vector<Sample>{{"last", {y({4, 37}), f32({4, 37})}, {}, false},
                                         {"channels", {y({2, 5, 3}), f32({2, 5, 3})}, {{"axis", int64_t{1}}}, false},
                                         {"no_classes", {y({2, 0}), f32({2, 0})}, {}, false}}};
}

using ActivationFn = Expr (*)(Expr x, const OpContext& c);

// An element-wise composite of one input: its decomposition is element-wise too, so it compiles to one loop.
OpDef activation(const char* name, const char* doc, ActivationFn fn, std::vector<AttrSpec> attrs = {},
                 std::vector<Attrs> variants = {}) {
  std::vector<Sample> samples{{"matrix", {f32({3, 17})}}, {"image", {f32({2, 3, 4, 5})}}, {"scalar", {f32({})}}};
  for (Attrs& variant : variants)
    samples.push_back({"attrs_" + std::to_string(samples.size() - 2), {f32({4, 9})}, variant});
  samples.push_back({"empty", {f32({0, 3})}});
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "any shape, float"}},
          .outputs = std::vector<OperandSpec>{{"y", "shape and dtype of x"}},
          .attrs = std::move(attrs),
          .infer = float_like_input,
          .gradient = Gradient::by_decomposition(),
          .reference = Reference::by_decomposition(),
          .decompose = [fn](Builder&, const OpContext& c,
                            std::span<const Expr> in) { return std::vector<Expr>{fn(in[0], c)}; },
          .traits = {.elementwise = true},
          .samples = std::move(samples)};
}

Expr gelu(Expr x, const OpContext& c) {
  if (c.text("approximate") == "tanh")
    return x * 0.5 * (tanh((x + x * x * x * 0.044715) * std::sqrt(2 / std::numbers::pi)) + 1.0);
  // Named, since in which order a product's sides are made is the compiler's choice.
  const Expr twice = x.builder().op("erf", {x * (1 / std::numbers::sqrt2)}) + 1.0;
  return x * 0.5 * twice;
}

Expr zero(Expr x) { return constant_like(x, 0); }
Expr positive(Expr x) { return greater(x, zero(x)); }

// clamp((x + 3) / 6, 0, 1) with zero slope at both corners, as PyTorch has it.
Expr hard_sigmoid(Expr x) {
  Expr inner = select(greater_equal(x, constant_like(x, 3)), constant_like(x, 1), x * (1.0 / 6) + 0.5);
  return select(greater_equal(constant_like(x, -3), x), zero(x), inner);  // NaN, which no comparison takes, stays
}

OpDef gelu_op() {
  OpDef def = activation("gelu", "Gaussian error linear unit, x * Phi(x) (arXiv 1606.08415).", gelu,
                         {{"approximate", AttrKind::kString, std::string("none"), "\"none\" (erf) or \"tanh\""}},
                         {Attrs{{"approximate", std::string("tanh")}}});
  def.infer = graph::InferFn([](const OpContext& c) -> TypesOrError {
    if (const std::string& a = c.text("approximate"); a != "none" && a != "tanh")
      return invalid("approximate: expected \"none\" or \"tanh\", got \"{}\"", a);
    return float_like_input(c);
  });
  return def;
}

// An op of its own, so that a backend may compute the sigmoid again instead of keeping it.
OpDef silu_grad_op() {
  OpDef def = activation("silu_grad", "Gradient of silu: dy * s * (1 + x * (1 - s)), where s is sigmoid(x).", nullptr);
  def.inputs =
      std::vector<OperandSpec>{{"x", "silu's input, any shape, float"}, {"dy", "gradient by silu's output, x's type"}};
  def.outputs = std::vector<OperandSpec>{{"dx", "gradient by x"}};
  def.infer = graph::InferFn([](const OpContext& c) -> TypesOrError {
    if (c.in(0) != c.in(1))
      return invalid("expected inputs of one type, got {} and {}", to_string(c.in(0)), to_string(c.in(1)));
    return float_like_input(c);
  });
  def.decompose = [](Builder&, const OpContext&, std::span<const Expr> in) -> std::vector<Expr> {
    Expr s = sigmoid(in[0]);
    return {in[1] * s * (in[0] * (1.0 - s) + 1.0)};
  };
  def.samples = std::vector<Sample>{{"matrix", {f32({3, 17}), f32({3, 17})}},
                                    {"image", {f32({2, 3, 4, 5}), f32({2, 3, 4, 5})}},
                                    {"scalar", {f32({}), f32({})}},
                                    {"empty", {f32({0, 3}), f32({0, 3})}}};
  return def;
}

OpDef clamp_op() {
  OpDef def = activation(
      "clamp", "min where x < min, max where x > max, else x; NaN stays NaN.",
      [](Expr x, const OpContext& c) {
        Expr low = constant_like(x, c.number("min")), high = constant_like(x, c.number("max"));
        return select(less(x, low), low, select(greater(x, high), high, x));
      },
      {{"min", AttrKind::kFloat, -INFINITY, "lower bound"}, {"max", AttrKind::kFloat, INFINITY, "upper bound"}},
      {Attrs{{"min", -0.5}, {"max", 0.75}}, Attrs{{"min", 0.0}}});
  def.infer = graph::InferFn([](const OpContext& c) -> TypesOrError {
    if (!(c.number("min") <= c.number("max")))
      return invalid("expected min <= max, got min {} and max {}", c.number("min"), c.number("max"));
    return float_like_input(c);
  });
  return def;
}

}  // namespace

Status register_activation(OpRegistry& registry) {
  std::vector<OpDef> defs;
  defs.push_back(
      softmax_op("softmax", "e^x / sum(e^x) along an axis, computed without overflow.", "softmax_grad", false));
  defs.push_back(softmax_op("log_softmax", "log(softmax(x)) along an axis, accurate for small probabilities.",
                            "log_softmax_grad", true));
  defs.push_back(
      softmax_grad_op("softmax_grad", "Gradient of softmax: y * (dy - sum(y * dy)).", "softmax's output", false));
  defs.push_back(softmax_grad_op("log_softmax_grad", "Gradient of log_softmax: dy - e^y * sum(dy).",
                                 "log_softmax's output", true));
  defs.push_back(gelu_op());
  defs.push_back(activation("silu", "x * sigmoid(x), also called swish.",
                            [](Expr x, const OpContext&) { return x * sigmoid(x); }));
  defs.back().gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
    return {g.builder.op("silu_grad", {g.inputs[0], g.output_grads[0]})};
  });
  defs.push_back(silu_grad_op());
  defs.push_back(activation("elu", "x where x > 0, else alpha * (e^x - 1).",
                            [](Expr x, const OpContext& c) {
                              // The exponent is held at 0 where it is not used, so that no infinity meets a zero
                              // gradient. A minimum would do it, but splits the gradient at 0.
                              Expr exponent = select(positive(x), zero(x), x);
                              return select(positive(x), x, x.builder().op("expm1", {exponent}) * c.number("alpha"));
                            },
                            {{"alpha", AttrKind::kFloat, 1.0, "limit for x -> -infinity is -alpha"}},
                            {Attrs{{"alpha", 0.3}}}));
  defs.push_back(activation("leaky_relu", "x where x > 0, else slope * x.",
                            [](Expr x, const OpContext& c) { return select(positive(x), x, x * c.number("slope")); },
                            {{"slope", AttrKind::kFloat, 0.01, "slope for x <= 0"}}, {Attrs{{"slope", 0.2}}}));
  defs.push_back(activation("hard_sigmoid", "clamp(x / 6 + 1/2, 0, 1).",
                            [](Expr x, const OpContext&) { return hard_sigmoid(x); }));
  defs.push_back(activation("hard_swish", "x * hard_sigmoid(x) (arXiv 1905.02244).",
                            [](Expr x, const OpContext&) { return x * hard_sigmoid(x); }));
  defs.push_back(activation("softplus", "log(1 + e^x), without overflow.", [](Expr x, const OpContext&) {
    return maximum(x, zero(x)) + x.builder().op("log1p", {exp(-abs(x))});
  }));
  defs.back().precision = Precision::kWide;
  defs.push_back(clamp_op());
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
