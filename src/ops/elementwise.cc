// Element-wise arithmetic with NumPy broadcasting, comparisons, logic, select, casts.
#include <cmath>
#include <numbers>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

using UnaryFn = double (*)(double);
using BinaryFn = double (*)(double, double);
using UnaryGrad = Expr (*)(Expr x, Expr y, Expr dy);
using BinaryGrad = std::pair<Expr, Expr> (*)(Expr a, Expr b, Expr y, Expr dy);

OpDef unary(const char* name, const char* doc, UnaryFn fn, UnaryGrad grad, Fill fill = Fill::kNormal,
            bool check_gradient = true) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"x", "any shape, float"}},
          .outputs = std::vector<OperandSpec>{{"y", "shape and dtype of x"}},
          .infer = float_like_input,
          .gradient = Gradient::rule([grad](GradContext& g) -> std::vector<Expr> {
            return {grad(g.inputs[0], g.outputs[0], g.output_grads[0])};
          }),
          .reference = Reference::kernel(
              [fn](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                for (size_t i = 0; i < out[0].data.size(); ++i) out[0].data[i] = fn(in[0].data[i]);
                return {};
              }),
          .traits = {.elementwise = true},
          .samples = std::vector<Sample>{{"matrix", {f32({3, 17}, fill)}, {}, check_gradient},
                                         {"long", {f32({2, 3, 1031}, fill)}, {}, false},
                                         {"scalar", {f32({}, fill)}, {}, check_gradient},
                                         {"empty", {f32({0, 3}, fill)}, {}, false}}};
}

// neg, abs, sign also take integers.
OpDef any_number(OpDef def) {
  def.infer = graph::InferFn([](const OpContext& c) -> TypesOrError {
    if (c.in(0).dtype == DType::kBool) return invalid("expected numbers, got {}; cast it first", to_string(c.in(0)));
    return same_as_input(c);
  });
  return def;
}

Status apply_binary(BinaryFn fn, std::span<const RefTensor> in, std::span<RefTensor> out) {
  Dims index(out[0].dims.size());
  for (double& y : out[0].data) {
    y = fn(in[0].data[broadcast_offset(index, in[0].dims)], in[1].data[broadcast_offset(index, in[1].dims)]);
    next_index(index, out[0].dims);
  }
  return {};
}

TypesOrError infer_binary(const OpContext& c, bool comparison, bool logic) {
  if (c.in(0).dtype != c.in(1).dtype)
    return invalid("expected two inputs of one dtype, got {} and {}; cast one of them", to_string(c.in(0)),
                   to_string(c.in(1)));
  if (logic && c.in(0).dtype != DType::kBool) return invalid("expected bool inputs, got {}", to_string(c.in(0)));
  if (!logic && !comparison && c.in(0).dtype == DType::kBool)
    return invalid("expected numbers, got {}; cast them first", to_string(c.in(0)));
  DS_ASSIGN(Dims dims, graph::broadcast_dims(c.in(0).dims, c.in(1).dims));
  return std::vector<TensorType>{{comparison || logic ? DType::kBool : c.in(0).dtype, std::move(dims)}};
}

// Functions that magnify a rounding of their argument, or whose values leave a low type's range.
OpDef wide(OpDef def) {
  def.precision = Precision::kWide;
  return def;
}

OpDef binary(const char* name, const char* doc, BinaryFn fn, BinaryGrad grad, bool commutative,
             Fill fill = Fill::kNormal, bool check_gradient = true) {
  return {.name = name,
          .doc = doc,
          .inputs = std::vector<OperandSpec>{{"a", "any shape"}, {"b", "broadcasts with a, same dtype"}},
          .outputs = std::vector<OperandSpec>{{"y", "the broadcast shape"}},
          .infer = [](const OpContext& c) { return infer_binary(c, false, false); },
          .gradient = Gradient::rule([grad](GradContext& g) -> std::vector<Expr> {
            auto [da, db] = grad(g.inputs[0], g.inputs[1], g.outputs[0], g.output_grads[0]);
            return {g.needs[0] ? sum_to(da, g.inputs[0].dims()) : Expr(),
                    g.needs[1] ? sum_to(db, g.inputs[1].dims()) : Expr()};
          }),
          .reference = Reference::kernel([fn](const OpContext&, std::span<const RefTensor> in,
                                              std::span<RefTensor> out) { return apply_binary(fn, in, out); }),
          .traits = {.elementwise = true, .commutative = commutative},
          .samples =
              std::vector<Sample>{{"same_shape", {f32({4, 9}, fill), f32({4, 9}, fill)}, {}, check_gradient},
                                  {"row", {f32({5, 35}, fill), f32({35}, fill)}, {}, check_gradient},
                                  {"column", {f32({2, 1, 7}, fill), f32({3, 1}, fill)}, {}, check_gradient},
                                  {"channel", {f32({2, 3, 4, 4}, fill), f32({1, 3, 1, 1}, fill)}, {}, check_gradient},
                                  {"scalar", {f32({2, 33}, fill), f32({}, fill)}, {}, check_gradient},
                                  {"empty", {f32({3, 0}, fill), f32({3, 1}, fill)}, {}, false}}};
}

OpDef truth(const char* name, const char* doc, BinaryFn fn, bool logic, bool commutative) {
  const auto in = [logic](Dims d) {
    return logic ? SampleInput{{DType::kBool, std::move(d)}, Fill::kBool}
                 : SampleInput{{DType::kI32, std::move(d)}, Fill::kIndices, 3};
  };
  std::vector<Sample> samples{{"same_shape", {in({3, 7}), in({3, 7})}, {}, false},
                              {"row", {in({3, 7}), in({7})}, {}, false},
                              {"empty", {in({0, 7}), in({7})}, {}, false}};
  if (!logic) samples.push_back({"float", {f32({4, 19}), f32({4, 1})}, {}, false});
  return {
      .name = name,
      .doc = doc,
      .inputs = std::vector<OperandSpec>{{"a", logic ? "bool" : "any dtype"}, {"b", "broadcasts with a, same dtype"}},
      .outputs = std::vector<OperandSpec>{{"y", "bool, the broadcast shape"}},
      .infer = [logic](const OpContext& c) { return infer_binary(c, true, logic); },
      .gradient = Gradient::non_differentiable("its output is bool"),
      .reference = Reference::kernel([fn](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) {
        return apply_binary(fn, in, out);
      }),
      .traits = {.elementwise = true, .commutative = commutative},
      .samples = std::move(samples)};
}

// The number that e is in this graph, if it is one.
std::optional<double> known_number(Expr e) {
  if (!e.defined()) return {};
  const graph::Graph::Data& data = e.builder().data();
  const int32_t producer = data.producer[static_cast<size_t>(e.value().id)];
  if (producer < 0) return {};
  const graph::Node& node = data.nodes[static_cast<size_t>(producer)];
  if (node.op_name() != "constant") return {};
  const auto& value = node.attrs.get<graph::Tensor>("value");
  return value.num_elements() == 1 ? std::optional(value.at(0)) : std::nullopt;
}

// a ^ 0 is 1 for all a, and 0 ^ b is 0 for all b >= 0: nothing flows back there, where the formulas give NaN.
std::pair<Expr, Expr> pow_gradient(Expr a, Expr b, Expr y, Expr dy) {
  const auto none_where = [](Expr condition, Expr grad) { return select(condition, constant_like(grad, 0), grad); };
  Expr zero = constant_like(a, 0), da = dy * b * pow(a, b - 1.0), db = dy * y * log(a);
  if (const std::optional<double> power = known_number(b); !power || *power == 0) da = none_where(equal(b, zero), da);
  const Expr still = a.builder().op("logical_and", {equal(a, zero), greater_equal(b, zero)});
  return {da, none_where(still, db)};
}

// 1 where the condition holds, 0 elsewhere, in like's dtype.
Expr indicator(Expr condition, Expr like) { return cast(condition, like.dtype()); }

std::vector<OpDef> unary_ops() {
  std::vector<OpDef> defs;
  defs.push_back(any_number(unary(
      "neg", "-x", [](double x) { return -x; }, [](Expr, Expr, Expr dy) { return -dy; })));
  defs.push_back(any_number(unary(
      "abs", "|x|; the gradient at 0 is 0", [](double x) { return std::fabs(x); },
      [](Expr x, Expr, Expr dy) { return dy * sign(x); })));
  defs.push_back(any_number(unary(
      "sign", "-1, 0 or 1", [](double x) { return double((x > 0) - (x < 0)); },
      [](Expr, Expr, Expr) { return Expr(); })));
  defs.push_back(wide(unary(
      "exp", "e^x", [](double x) { return std::exp(x); }, [](Expr, Expr y, Expr dy) { return dy * y; })));
  defs.push_back(wide(unary(
      "expm1", "e^x - 1, accurate near 0", [](double x) { return std::expm1(x); },
      [](Expr, Expr y, Expr dy) { return dy * (y + 1.0); })));
  defs.push_back(wide(unary(
      "log", "natural logarithm", [](double x) { return std::log(x); }, [](Expr x, Expr, Expr dy) { return dy / x; },
      Fill::kPositive)));
  defs.push_back(wide(unary(
      "log1p", "log(1 + x), accurate near 0", [](double x) { return std::log1p(x); },
      [](Expr x, Expr, Expr dy) { return dy / (x + 1.0); }, Fill::kPositive)));
  defs.push_back(unary(
      "sqrt", "square root", [](double x) { return std::sqrt(x); }, [](Expr, Expr y, Expr dy) { return dy * 0.5 / y; },
      Fill::kPositive));
  defs.push_back(wide(unary(
      "rsqrt", "1 / sqrt(x)", [](double x) { return 1 / std::sqrt(x); },
      [](Expr, Expr y, Expr dy) { return dy * (y * y * y) * -0.5; }, Fill::kPositive)));
  defs.push_back(wide(unary(
      "reciprocal", "1 / x", [](double x) { return 1 / x; }, [](Expr, Expr y, Expr dy) { return -(dy * y * y); },
      Fill::kPositive)));
  defs.push_back(unary(
      "sin", "sine of x radians", [](double x) { return std::sin(x); },
      [](Expr x, Expr, Expr dy) { return dy * x.builder().op("cos", {x}); }));
  defs.push_back(unary(
      "cos", "cosine of x radians", [](double x) { return std::cos(x); },
      [](Expr x, Expr, Expr dy) { return -(dy * x.builder().op("sin", {x})); }));
  defs.push_back(unary(
      "tanh", "hyperbolic tangent", [](double x) { return std::tanh(x); },
      [](Expr, Expr y, Expr dy) { return dy * (1.0 - y * y); }));
  defs.push_back(unary(
      "sigmoid", "1 / (1 + e^-x)", [](double x) { return 1 / (1 + std::exp(-x)); },
      [](Expr, Expr y, Expr dy) { return dy * y * (1.0 - y); }));
  defs.push_back(unary(
      "erf", "Gauss error function", [](double x) { return std::erf(x); },
      [](Expr x, Expr, Expr dy) { return dy * (2 / std::sqrt(std::numbers::pi)) * exp(-(x * x)); }));
  const auto step = [](Expr, Expr, Expr) { return Expr(); };  // zero almost everywhere
  defs.push_back(unary(
      "floor", "largest integer not above x", [](double x) { return std::floor(x); }, step, Fill::kNormal, false));
  defs.push_back(unary(
      "ceil", "smallest integer not below x", [](double x) { return std::ceil(x); }, step, Fill::kNormal, false));
  defs.push_back(unary(
      "round", "nearest integer, halves to even", [](double x) { return std::nearbyint(x); }, step, Fill::kNormal,
      false));
  defs.push_back(unary(
      "relu", "max(x, 0); the gradient at 0 is 0", [](double x) { return std::isnan(x) ? x : std::fmax(x, 0.0); },
      [](Expr x, Expr y, Expr dy) { return select(greater(y, constant_like(y, 0)), dy, constant_like(dy, 0)); }));
  return defs;
}

std::vector<OpDef> binary_ops() {
  using P = std::pair<Expr, Expr>;
  std::vector<OpDef> defs;
  defs.push_back(binary(
      "add", "a + b", [](double a, double b) { return a + b; },
      [](Expr, Expr, Expr, Expr dy) {
        return P{dy, dy};
      },
      true));
  defs.push_back(binary(
      "sub", "a - b", [](double a, double b) { return a - b; },
      [](Expr, Expr, Expr, Expr dy) {
        return P{dy, -dy};
      },
      false));
  defs.push_back(binary(
      "mul", "a * b", [](double a, double b) { return a * b; },
      [](Expr a, Expr b, Expr, Expr dy) {
        return P{dy * b, dy * a};
      },
      true));
  defs.push_back(binary(
      "div", "a / b; integers are truncated towards zero", [](double a, double b) { return a / b; },
      [](Expr, Expr b, Expr y, Expr dy) {
        return P{dy / b, -(dy * (y / b))};  // dy / b times y would be NaN where b is tiny and a is 0
      },
      false, Fill::kPositive));
  defs.push_back(wide(binary(
      "pow", "a ^ b, for a > 0 where b is no integer", [](double a, double b) { return std::pow(a, b); }, pow_gradient,
      false, Fill::kPositive)));
  defs.push_back(binary(
      "maximum", "the larger of both, NaN if either is; ties split the gradient evenly",
      [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b); },
      [](Expr a, Expr b, Expr, Expr dy) {
        Expr share = (indicator(greater(a, b), dy) + indicator(greater_equal(a, b), dy)) * 0.5;
        return P{dy * share, dy * (1.0 - share)};
      },
      true));
  defs.push_back(binary(
      "minimum", "the smaller of both, NaN if either is; ties split the gradient evenly",
      [](double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b); },
      [](Expr a, Expr b, Expr, Expr dy) {
        Expr share = (indicator(less(a, b), dy) + indicator(greater_equal(b, a), dy)) * 0.5;
        return P{dy * share, dy * (1.0 - share)};
      },
      true));
  defs.push_back(truth(
      "equal", "a == b", [](double a, double b) { return double(a == b); }, false, true));
  defs.push_back(truth(
      "not_equal", "a != b", [](double a, double b) { return double(a != b); }, false, true));
  defs.push_back(truth(
      "less", "a < b", [](double a, double b) { return double(a < b); }, false, false));
  defs.push_back(truth(
      "less_equal", "a <= b", [](double a, double b) { return double(a <= b); }, false, false));
  defs.push_back(truth(
      "greater", "a > b", [](double a, double b) { return double(a > b); }, false, false));
  defs.push_back(truth(
      "greater_equal", "a >= b", [](double a, double b) { return double(a >= b); }, false, false));
  defs.push_back(truth(
      "logical_and", "a and b", [](double a, double b) { return double(a != 0 && b != 0); }, true, true));
  defs.push_back(truth(
      "logical_or", "a or b", [](double a, double b) { return double(a != 0 || b != 0); }, true, true));
  return defs;
}

TypesOrError infer_select(const OpContext& c) {
  if (c.in(0).dtype != DType::kBool) return invalid("expected a bool condition, got {}", to_string(c.in(0)));
  if (c.in(1).dtype != c.in(2).dtype)
    return invalid("expected two branches of one dtype, got {} and {}", to_string(c.in(1)), to_string(c.in(2)));
  DS_ASSIGN(Dims ab, graph::broadcast_dims(c.in(1).dims, c.in(2).dims));
  DS_ASSIGN(Dims dims, graph::broadcast_dims(c.in(0).dims, ab));
  return std::vector<TensorType>{{c.in(1).dtype, std::move(dims)}};
}

std::vector<OpDef> other_ops() {
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "select",
       .doc = "a where the condition holds, else b.",
       .inputs = std::vector<OperandSpec>{{"condition", "bool"}, {"a", "broadcasts"}, {"b", "a's dtype, broadcasts"}},
       .outputs = std::vector<OperandSpec>{{"y", "the broadcast shape of all three"}},
       .infer = infer_select,
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         Expr zero = constant_like(g.output_grads[0], 0);
         return {Expr(), g.needs[1] ? sum_to(select(g.inputs[0], g.output_grads[0], zero), g.inputs[1].dims()) : Expr(),
                 g.needs[2] ? sum_to(select(g.inputs[0], zero, g.output_grads[0]), g.inputs[2].dims()) : Expr()};
       }),
       .reference =
           Reference::kernel([](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             Dims index(out[0].dims.size());
             for (double& y : out[0].data) {
               const RefTensor& from = in[0].data[broadcast_offset(index, in[0].dims)] != 0 ? in[1] : in[2];
               y = from.data[broadcast_offset(index, from.dims)];
               next_index(index, out[0].dims);
             }
             return {};
           }),
       .traits = {.elementwise = true},
       .samples = std::vector<Sample>{{"same_shape", {{{DType::kBool, {3, 5}}, Fill::kBool}, f32({3, 5}), f32({3, 5})}},
                                      {"broadcast", {{{DType::kBool, {3, 1}}, Fill::kBool}, f32({5}), f32({})}},
                                      {"empty", {{{DType::kBool, {3, 0}}, Fill::kBool}, f32({3, 1}), f32({})}}}});
  defs.push_back({.name = "cast",
                  .doc = "Converts the element type: floats round to nearest even, float to integer truncates and "
                         "saturates, anything but 0 is true.",
                  .inputs = std::vector<OperandSpec>{{"x", "any"}},
                  .outputs = std::vector<OperandSpec>{{"y", "x's shape"}},
                  .attrs = {{"dtype", AttrKind::kDType, {}, "the new dtype"}},
                  .infer = [](const OpContext& c) -> TypesOrError {
                    return std::vector<TensorType>{c.in(0).with_dtype(c.attrs->get<DType>("dtype"))};
                  },
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    return {is_float(g.inputs[0].dtype()) ? cast(g.output_grads[0], g.inputs[0].dtype()) : Expr()};
                  }),
                  .reference = Reference::kernel(
                      [](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        // Rounding a float is the storing side's work; double to integer is the op's.
                        for (size_t i = 0; i < out[0].data.size(); ++i) {
                          const double x = in[0].data[i];
                          double bits = 0;
                          if (is_float(out[0].dtype)) {
                            out[0].data[i] = x;
                          } else {
                            store_from_double(out[0].dtype, &bits, 0, x);
                            out[0].data[i] = load_as_double(out[0].dtype, &bits, 0);
                          }
                        }
                        return {};
                      }),
                  .cost = moves_all,
                  .traits = {.elementwise = true},
                  .samples = std::vector<Sample>{
                      {"to_f64", {f32({3, 5})}, {{"dtype", DType::kF64}}},
                      {"empty", {f32({0, 5})}, {{"dtype", DType::kI32}}, false},
                      {"to_i32", {f32({3, 5})}, {{"dtype", DType::kI32}}, false},
                      {"to_bool", {{{DType::kI32, {9}}, Fill::kIndices, 2}}, {{"dtype", DType::kBool}}, false},
                      {"from_i64", {indices({4, 3}, 100)}, {{"dtype", DType::kF32}}, false},
                      {"from_bool", {{{DType::kBool, {70}}, Fill::kBool}}, {{"dtype", DType::kF32}}, false}}});
  defs.push_back({.name = "logical_not",
                  .doc = "not a",
                  .inputs = std::vector<OperandSpec>{{"a", "bool"}},
                  .outputs = std::vector<OperandSpec>{{"y", "bool"}},
                  .infer = [](const OpContext& c) -> TypesOrError {
                    if (c.in(0).dtype != DType::kBool)
                      return invalid("expected a bool input, got {}", to_string(c.in(0)));
                    return same_as_input(c);
                  },
                  .gradient = Gradient::non_differentiable("its output is bool"),
                  .reference = Reference::kernel(
                      [](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        for (size_t i = 0; i < out[0].data.size(); ++i) out[0].data[i] = in[0].data[i] == 0;
                        return {};
                      }),
                  .traits = {.elementwise = true},
                  .samples = std::vector<Sample>{{"vector", {{{DType::kBool, {9}}, Fill::kBool}}, {}, false}}});
  return defs;
}

}  // namespace

Status register_elementwise(OpRegistry& registry) {
  DS_TRY(add_all(registry, unary_ops()));
  DS_TRY(add_all(registry, binary_ops()));
  return add_all(registry, other_ops());
}

}  // namespace deepseek::ops
