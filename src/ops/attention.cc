// Scaled dot-product attention.
#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

TypesOrError infer_attention(const OpContext& c) {
  const TensorType &q = c.in(0), &k = c.in(1), &v = c.in(2);
  for (size_t i = 0; i < 3; ++i)
    if (!is_float(c.in(i).dtype) || c.in(i).rank() != 4 || c.in(i).dtype != q.dtype || c.in(i).dims[0] != q.dims[0] ||
        c.in(i).dims[1] != q.dims[1])
      return invalid("expected float q, k, v [N,H,length,width] of one dtype, batch and heads, got {}, {} and {}",
                     to_string(q), to_string(k), to_string(v));
  if (k.dims[3] != q.dims[3] || v.dims[2] != k.dims[2])
    return invalid("expected q and k of one width, k and v of one length, got {}, {} and {}", to_string(q),
                   to_string(k), to_string(v));
  if (c.num_inputs() > 3) {
    const Dims scores{q.dims[0], q.dims[1], q.dims[2], k.dims[2]};
    Result<Dims> dims = graph::broadcast_dims(scores, c.in(3).dims);
    if ((c.in(3).dtype != q.dtype && c.in(3).dtype != DType::kBool) || !dims.ok() || *dims != scores)
      return invalid("expected a mask of {} or bool that broadcasts to {}, got {}", to_string(q.dtype),
                     to_string(scores), to_string(c.in(3)));
  }
  if (c.number("scale") < 0) return invalid("expected scale >= 0, got {}", c.number("scale"));
  return std::vector<TensorType>{{q.dtype, {q.dims[0], q.dims[1], q.dims[2], v.dims[3]}}};
}

std::vector<Expr> decompose_attention(Builder& b, const OpContext& c, std::span<const Expr> in) {
  Expr q = in[0], k = in[1], v = in[2];
  const double scale = c.number("scale") > 0 ? c.number("scale") : 1 / std::sqrt(static_cast<double>(q.dim(3)));
  Expr scores = matmul(q * scale, k, false, true);
  // Far below every score, yet finite: a row that is masked throughout attends evenly rather than giving NaN.
  Expr hidden = constant_like(scores, q.dtype() == DType::kF16 ? -6e4 : -1e30);
  if (c.flag("causal")) {
    Expr row = b.op("iota", {}, {{"dims", Dims{q.dim(2), 1}}, {"axis", int64_t{0}}});
    Expr column = b.op("iota", {}, {{"dims", Dims{1, k.dim(2)}}, {"axis", int64_t{1}}});
    scores = select(greater_equal(row, column), scores, hidden);
  }
  if (in.size() > 3) scores = in[3].dtype() == DType::kBool ? select(in[3], scores, hidden) : scores + in[3];
  return {matmul(b.op("softmax", {scores}), v)};
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
        .attrs = {{"scale", AttrKind::kFloat, 0.0, "factor of the scores; 0 means 1 / sqrt(E)"},
                  {"causal", AttrKind::kBool, false, "position i sees keys 0 to i only"}},
        .infer = infer_attention,
        .gradient = Gradient::by_decomposition(),
        .reference = Reference::by_decomposition(),
        .decompose = decompose_attention,
        .precision = Precision::kParts,
        .samples =
            std::vector<Sample>{{"self", qkv(5, 5, 4, 4)},
                                {"cross", qkv(3, 6, 4, 5), {{"scale", 0.3}}},
                                {"causal", qkv(6, 6, 4, 4), {{"causal", true}}},
                                {"causal_wide", qkv(3, 5, 4, 4), {{"causal", true}}},
                                {"bias", with(qkv(4, 5, 4, 4), f32({3, 4, 5}))},
                                {"padding", with(qkv(4, 9, 4, 4), {{DType::kBool, {2, 1, 1, 9}}, Fill::kBool})}}}});
}

}  // namespace deepseek::ops
