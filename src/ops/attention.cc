// Scaled dot-product attention.
#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

constexpr double kDefaultScale = -1;

// Far below every score, yet finite: a row that is masked throughout attends evenly rather than giving NaN.
double hidden_score(DType dtype) { return dtype == DType::kF16 ? -6e4 : -1e30; }

// q, k, v and, if there is one, the mask at `mask`.
Status check_operands(const OpContext& c, size_t mask) {
  const TensorType &q = c.in(0), &k = c.in(1), &v = c.in(2);
  for (size_t i = 0; i < 3; ++i)
    if (!is_float(c.in(i).dtype) || c.in(i).rank() != 4 || c.in(i).dtype != q.dtype || c.in(i).dims[0] != q.dims[0] ||
        c.in(i).dims[1] != q.dims[1])
      return invalid("expected float q, k, v [N,H,length,width] of one dtype, batch and heads, got {}, {} and {}",
                     to_string(q), to_string(k), to_string(v));
  if (k.dims[3] != q.dims[3] || v.dims[2] != k.dims[2])
    return invalid("expected q and k of one width, k and v of one length, got {}, {} and {}", to_string(q),
                   to_string(k), to_string(v));
  if (c.num_inputs() > mask) {
    const TensorType& m = c.in(mask);
    const Dims scores{q.dims[0], q.dims[1], q.dims[2], k.dims[2]};
    Result<Dims> dims = graph::broadcast_dims(scores, m.dims);
    if ((m.dtype != q.dtype && m.dtype != DType::kBool) || !dims.ok() || *dims != scores)
      return invalid("expected a mask of {} or bool that broadcasts to {}, got {}", to_string(q.dtype),
                     to_string(scores), to_string(m));
  }
  if (const double s = c.number("scale"); !(s >= 0 || s == kDefaultScale))
    return invalid("expected scale >= 0, or {} for 1 / sqrt(E), got {}", kDefaultScale, s);
  return {};
}

TypesOrError infer_attention(const OpContext& c) {
  DS_TRY(check_operands(c, 3));
  const TensorType &q = c.in(0), &v = c.in(2);
  return std::vector<TensorType>{{q.dtype, {q.dims[0], q.dims[1], q.dims[2], v.dims[3]}}};
}

TypesOrError infer_attention_grad(const OpContext& c) {
  DS_TRY(check_operands(c, 4));
  const TensorType &q = c.in(0), &v = c.in(2);
  const TensorType y{q.dtype, {q.dims[0], q.dims[1], q.dims[2], v.dims[3]}};
  if (c.in(3) != y) return invalid("expected dy {}, got {}", to_string(y), to_string(c.in(3)));
  std::vector<TensorType> types{q, c.in(1), v};
  if (!c.flag("mask_gradient")) return types;
  if (c.num_inputs() < 5 || !is_float(c.in(4).dtype)) return invalid("mask_gradient: expected a float mask");
  types.push_back(c.in(4));
  return types;
}

double scale_of(const OpContext& c) {
  return c.number("scale") >= 0 ? c.number("scale") : 1 / std::sqrt(static_cast<double>(c.in(0).dims[3]));
}

Expr earlier_keys(Builder& b, Expr q, Expr k) {  // [L,S]: key j <= query i
  Expr row = b.op("iota", {}, {{"dims", Dims{q.dim(2), 1}}, {"axis", int64_t{0}}});
  Expr column = b.op("iota", {}, {{"dims", Dims{1, k.dim(2)}}, {"axis", int64_t{1}}});
  return greater_equal(row, column);
}

// softmax(scale q k^T + mask) [N,H,L,S]
Expr probabilities(Builder& b, const OpContext& c, Expr q, Expr k, Expr mask) {
  Expr scores = matmul(q * scale_of(c), k, false, true);
  Expr hidden = constant_like(scores, hidden_score(q.dtype()));
  if (c.flag("causal")) scores = select(earlier_keys(b, q, k), scores, hidden);
  if (mask.defined())
    scores = mask.dtype() == DType::kBool ? select(mask, scores, hidden) : maximum(scores + mask, hidden);
  return b.op("softmax", {scores});
}

std::vector<Expr> decompose_attention(Builder& b, const OpContext& c, std::span<const Expr> in) {
  return {matmul(probabilities(b, c, in[0], in[1], in.size() > 3 ? in[3] : Expr()), in[2])};
}

std::vector<Expr> decompose_attention_grad(Builder& b, const OpContext& c, std::span<const Expr> in) {
  Expr q = in[0], k = in[1], v = in[2], dy = in[3], mask = in.size() > 4 ? in[4] : Expr();
  Expr p = probabilities(b, c, q, k, mask);
  Expr ds = b.op("softmax_grad", {p, matmul(dy, v, false, true)});
  // What is hidden does not depend on q and k, nor on a mask so far down.
  Expr zero = constant_like(ds, 0);
  if (mask.defined())
    ds = select(mask.dtype() == DType::kBool ? mask : greater(mask, constant_like(mask, hidden_score(q.dtype()))), ds,
                zero);
  Expr scores = (c.flag("causal") ? select(earlier_keys(b, q, k), ds, zero) : ds) * scale_of(c);
  std::vector<Expr> out{matmul(scores, k), matmul(scores, q, true, false), matmul(p, dy, true, false)};
  if (c.flag("mask_gradient")) out.push_back(sum_to(ds, mask.dims()));
  return out;
}

std::vector<Expr> attention_gradient(GradContext& g) {
  std::vector<Expr> inputs(g.inputs.begin(), g.inputs.begin() + 3);
  inputs.push_back(g.output_grads[0]);
  const bool mask = g.inputs.size() > 3;
  if (mask) inputs.push_back(g.inputs[3]);
  const bool wanted = mask && g.needs[3] && is_float(g.inputs[3].dtype());
  std::vector<Expr> grads =
      g.builder.emit("attention_grad", std::move(inputs),
                     {{"scale", g.node.number("scale")}, {"causal", g.node.flag("causal")}, {"mask_gradient", wanted}});
  grads.resize(g.inputs.size());
  return grads;
}

}  // namespace

Status register_attention(OpRegistry& registry) {
  const auto qkv = [](int64_t l, int64_t s, int64_t e, int64_t ev) {
    return std::vector<SampleInput>{f32({2, 3, l, e}), f32({2, 3, s, e}), f32({2, 3, s, ev})};
  };
  const auto with = [](std::vector<SampleInput> inputs, SampleInput mask) {
    inputs.push_back(std::move(mask));
    return inputs;
  };
  // Of inputs as attention has them.
  const auto grad = [](const char* name, std::vector<SampleInput> inputs, Attrs attrs = {}) {
    const Dims &q = inputs[0].type.dims, &v = inputs[2].type.dims;
    inputs.insert(inputs.begin() + 3, f32({q[0], q[1], q[2], v[3]}));
    return Sample{name, std::move(inputs), std::move(attrs), false};
  };
  return add_all(
      registry,
      {{.name = "attention",
        .doc = "softmax(scale q k^T + mask) v per head (arXiv 1706.03762). A row whose keys are all masked attends "
               "evenly.",
        .inputs =
            std::vector<OperandSpec>{
                {"q", "float [N,H,L,E]"},
                {"k", "[N,H,S,E]"},
                {"v", "[N,H,S,Ev]"},
                {"mask", "broadcasts to [N,H,L,S]: added to the scores, or bool, true where a key is seen", true}},
        .outputs = std::vector<OperandSpec>{{"y", "[N,H,L,Ev]"}},
        .attrs = {{"scale", AttrKind::kFloat, kDefaultScale, "factor of the scores, >= 0; -1 means 1 / sqrt(E)"},
                  {"causal", AttrKind::kBool, false, "position i sees keys 0 to i only"}},
        .infer = infer_attention,
        .gradient = Gradient::rule(attention_gradient),
        .reference = Reference::by_decomposition(),
        .decompose = decompose_attention,
        .precision = Precision::kParts,
        .samples = std::vector<Sample>{{"self", qkv(5, 5, 4, 4)},
                                       {"cross", qkv(3, 6, 4, 5), {{"scale", 0.3}}},
                                       {"causal", qkv(6, 6, 4, 4), {{"causal", true}}},
                                       {"no_keys", qkv(3, 0, 4, 4)},
                                       {"no_queries", qkv(0, 3, 4, 4)},
                                       {"causal_wide", qkv(3, 5, 4, 4), {{"causal", true}}},
                                       {"bias", with(qkv(4, 5, 4, 4), f32({3, 4, 5}))},
                                       {"padding", with(qkv(4, 9, 4, 4), {{DType::kBool, {2, 1, 1, 9}}, Fill::kBool})},
                                       {"long", {f32({1, 2, 70, 8}), f32({1, 2, 67, 8}), f32({1, 2, 67, 8})}}}},
       {.name = "attention_grad",
        .doc = "Gradient of attention for q, k, v and a mask that is added; the probabilities are computed again.",
        .inputs = std::vector<OperandSpec>{{"q", "attention's q"},
                                           {"k", "its k"},
                                           {"v", "its v"},
                                           {"dy", "float [N,H,L,Ev]"},
                                           {"mask", "its mask", true}},
        .outputs = std::vector<OperandSpec>{{"dq", "q's type"}, {"dk", "k's type"}, {"dv", "v's type"}},
        .attrs = {{"scale", AttrKind::kFloat, kDefaultScale, "as in attention"},
                  {"causal", AttrKind::kBool, false, "as in attention"},
                  {"mask_gradient", AttrKind::kBool, false, "a fourth output: dmask, of the mask's type"}},
        .infer = infer_attention_grad,
        .gradient = Gradient::non_differentiable("second derivatives are not supported"),
        .reference = Reference::by_decomposition(),
        .decompose = decompose_attention_grad,
        .precision = Precision::kParts,
        .samples = std::vector<Sample>{
            grad("self", qkv(5, 5, 4, 4)), grad("no_keys", qkv(3, 0, 4, 4)), grad("no_queries", qkv(0, 3, 4, 4)),
            grad("cross", qkv(3, 6, 4, 5), {{"scale", 0.3}}), grad("causal", qkv(6, 6, 4, 4), {{"causal", true}}),
            grad("bias", with(qkv(4, 5, 4, 4), f32({3, 4, 5}))),
            grad("bias_gradient", with(qkv(4, 5, 4, 4), f32({3, 1, 5})), {{"mask_gradient", true}}),
            grad("padding", with(qkv(4, 9, 4, 4), {{DType::kBool, {2, 1, 1, 9}}, Fill::kBool})),
            grad("long", {f32({1, 2, 70, 8}), f32({1, 2, 67, 8}), f32({1, 2, 67, 8})})}}});
}

}  // namespace deepseek::ops
