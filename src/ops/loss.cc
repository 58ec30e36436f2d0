// Losses as composites: (prediction, target) -> scalar, or one value per sample with reduction "none".
#include "ops/common.h"

namespace deepseek::ops {
namespace {

Result<Dims> without_classes(const TensorType& logits) {
  if (logits.rank() < 2 || !is_float(logits.dtype)) return invalid("expected float logits [N, C, ...], got {}", to_string(logits));
  Dims dims = logits.dims;
  dims.erase(dims.begin() + 1);
  return dims;
}

TypesOrError reduced(const OpContext& c, Dims per_sample, DType dtype) {
  const std::string& reduction = c.text("reduction");
  if (reduction == "none") return std::vector<TensorType>{{dtype, std::move(per_sample)}};
  if (reduction != "mean" && reduction != "sum") return invalid("expected reduction mean, sum or none, got '{}'", reduction);
  return std::vector<TensorType>{{dtype, {}}};
}

AttrSpec reduction_attr() { return {"reduction", AttrKind::kString, std::string("mean"), "mean, sum or none"}; }

TypesOrError infer_cross_entropy(const OpContext& c) {
  DS_ASSIGN(Dims dims, without_classes(c.in(0)));
  const bool soft = is_float(c.in(1).dtype);
  if (soft ? c.in(1) != c.in(0) : c.in(1) != TensorType{DType::kI64, dims})
    return invalid("expected targets i64{} (classes) or {} (probabilities), got {}", to_string(dims), to_string(c.in(0)), to_string(c.in(1)));
  if (const double s = c.number("label_smoothing"); s < 0 || s > 1) return invalid("expected label_smoothing in [0, 1], got {}", s);
  return reduced(c, std::move(dims), c.in(0).dtype);
}

std::vector<Expr> decompose_cross_entropy(Builder& b, const OpContext& c, std::span<const Expr> in) {
  const double smoothing = c.number("label_smoothing");
  Expr log_p = b.op("log_softmax", {in[0]}, {{"axis", int64_t{1}}});
  const bool soft = is_float(in[1].dtype());
  Expr loss, weight;
  if (soft) {
    const double classes = static_cast<double>(in[0].dim(1));
    Expr target = smoothing == 0 ? in[1] : in[1] * (1 - smoothing) + smoothing / classes;
    loss = -sum(log_p * target, {1});
  } else {
    Expr ignored = equal(in[1], constant_like(in[1], static_cast<double>(c.integer("ignore_index"))));
    Dims column = in[0].dims();
    column[1] = 1;
    Expr index = reshape(select(ignored, constant_like(in[1], 0), in[1]), column);
    loss = -reshape(b.op("take_along_axis", {log_p, index}, {{"axis", int64_t{1}}}), in[1].dims());
    if (smoothing != 0) loss = loss * (1 - smoothing) - mean(log_p, {1}) * smoothing;
    weight = select(ignored, constant_like(loss, 0), constant_like(loss, 1));
    loss = loss * weight;
  }
  if (c.text("reduction") == "none") return {loss};
  Expr total = sum(loss);
  if (c.text("reduction") == "sum") return {total};
  return {soft ? total / static_cast<double>(loss.type().num_elements()) : total / sum(weight)};
}

}  // namespace

Status register_loss(OpRegistry& registry) {
  const Attrs smooth{{"label_smoothing", 0.1}};
  return add_all(
      registry,
      {{.name = "cross_entropy",
        .doc = "Cross-entropy of logits with classes or with probabilities, as torch.nn.functional.cross_entropy. "
               "'mean' divides by the number of samples that are not ignored.",
        .inputs = std::vector<OperandSpec>{{"logits", "float [N, C, ...]"}, {"target", "i64 [N, ...], or float [N, C, ...]"}},
        .outputs = std::vector<OperandSpec>{{"loss", "scalar, or [N, ...] with reduction none"}},
        .attrs = {{"label_smoothing", AttrKind::kFloat, 0.0, "share of the uniform distribution in the target"},
                  {"ignore_index", AttrKind::kInt, int64_t{-100}, "class label of samples that don't count"},
                  reduction_attr()},
        .infer = infer_cross_entropy,
        .gradient = Gradient::by_decomposition(),
        .reference = Reference::by_decomposition(),
        .decompose = decompose_cross_entropy,
        .samples = std::vector<Sample>{{"classes", {f32({5, 7}), indices({5}, 7)}},
                                       {"smoothed", {f32({5, 7}), indices({5}, 7)}, smooth},
                                       {"ignored", {f32({6, 3}), indices({6}, 3)}, {{"ignore_index", int64_t{1}}}},
                                       {"pixels_sum", {f32({2, 3, 4, 2}), indices({2, 4, 2}, 3)}, {{"reduction", std::string("sum")}}},
                                       {"none", {f32({4, 3}), indices({4}, 3)}, {{"reduction", std::string("none")}}},
                                       {"soft", {f32({4, 3}), f32({4, 3}, Fill::kUniform01)}, smooth}}}});
}

}  // namespace deepseek::ops
