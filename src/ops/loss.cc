// Losses as composites: classification, regression, segmentation and detection losses. Formulas are PyTorch's unless
// the documentation names another source.
#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

AttrSpec reduction_attr(const char* what) {
  return {"reduction", AttrKind::kString, std::string("mean"),
          std::string("\"mean\", \"sum\" or \"none\" over ") + what};
}

// The type after the reduction of elements of `dims`.
TypesOrError reduced_type(const OpContext& c, DType dtype, Dims dims) {
  const std::string& r = c.text("reduction");
  if (r != "mean" && r != "sum" && r != "none")
    return invalid("reduction: expected \"mean\", \"sum\" or \"none\", got \"{}\"", r);
  return std::vector<TensorType>{{dtype, r == "none" ? std::move(dims) : Dims{}}};
}

Expr reduce_loss(const OpContext& c, Expr loss) {
  const std::string& r = c.text("reduction");
  return r == "none" ? loss : r == "sum" ? sum(loss) : mean(loss);
}

Attrs with_reduction(const char* reduction, Attrs attrs = {}) {
  attrs.set("reduction", std::string(reduction));
  return attrs;
}

Dims without_axis(Dims dims, int64_t axis) {
  dims.erase(dims.begin() + axis);
  return dims;
}

Status check_same(const OpContext& c) {
  if (!is_float(c.in(0).dtype) || c.in(1) != c.in(0))
    return invalid("expected a float prediction and a target of its type, got {} and {}", to_string(c.in(0)),
                   to_string(c.in(1)));
  return {};
}

using ElementLoss = Expr (*)(std::span<const Expr> in, const OpContext& c);
using AttrCheck = Status (*)(const OpContext& c);

// A loss of prediction and target of one type, element by element, then reduced.
OpDef pointwise_loss(
    const char* name, const char* doc, ElementLoss fn, std::vector<AttrSpec> attrs = {}, Attrs variant = {},
    Fill fill = Fill::kNormal, Fill target = Fill::kNormal,
    AttrCheck check = [](const OpContext&) { return Status(); }) {
  attrs.push_back(reduction_attr("all elements"));
  return {
      .name = name,
      .doc = doc,
      .inputs = std::vector<OperandSpec>{{"prediction", "float, any shape"}, {"target", "the prediction's type"}},
      .outputs = std::vector<OperandSpec>{{"loss", "scalar, or the prediction's shape with reduction \"none\""}},
      .attrs = std::move(attrs),
      .infer = [check](const OpContext& c) -> TypesOrError {
        DS_TRY(check_same(c));
        DS_TRY(check(c));
        return reduced_type(c, c.in(0).dtype, c.in(0).dims);
      },
      .gradient = Gradient::by_decomposition(),
      .reference = Reference::by_decomposition(),
      .decompose = [fn](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
        return {reduce_loss(c, fn(in, c))};
      },
      .samples =
          std::vector<Sample>{{"mean", {f32({4, 9}, fill), f32({4, 9}, target)}},
                              {"sum", {f32({2, 3, 5}, fill), f32({2, 3, 5}, target)}, with_reduction("sum", variant)},
                              {"none", {f32({7}, fill), f32({7}, target)}, with_reduction("none", variant)},
                              {"nothing", {f32({0, 5}, fill), f32({0, 5}, target)}, variant, false}}};
}

Expr huber(std::span<const Expr> in, const OpContext& c) {
  const double delta = c.number("delta");
  Expr distance = abs(in[0] - in[1]);
  return select(less(distance, constant_like(distance, delta)), square(distance) * 0.5,
                (distance - 0.5 * delta) * delta);
}

Expr quantile(std::span<const Expr> in, const OpContext& c) {
  Expr error = in[1] - in[0];
  const double q = c.number("quantile");
  return maximum(error * q, error * (q - 1));
}

// max(x, 0) - x t + log(1 + e^-|x|), with the positive term scaled by pos_weight.
Expr bce(Expr x, Expr t, Expr pos_weight) {
  Expr softplus = x.builder().op("log1p", {exp(-abs(x))}) + maximum(-x, constant_like(x, 0));
  if (pos_weight.defined()) softplus = softplus * ((pos_weight - 1.0) * t + 1.0);
  return (1.0 - t) * x + softplus;
}

OpDef bce_op() {
  OpDef def = pointwise_loss(
      "bce_with_logits", "Binary cross entropy of sigmoid(prediction), without overflow.",
      [](std::span<const Expr> in, const OpContext&) { return bce(in[0], in[1], in.size() > 2 ? in[2] : Expr()); }, {},
      {}, Fill::kNormal, Fill::kUniform01);
  def.inputs.value.push_back({"pos_weight", "weight of positive targets, broadcasts to the prediction", true});
  def.infer = graph::InferFn([](const OpContext& c) -> TypesOrError {
    DS_TRY(check_same(c));
    if (c.num_inputs() > 2) {
      Result<Dims> dims = graph::broadcast_dims(c.in(0).dims, c.in(2).dims);
      if (c.in(2).dtype != c.in(0).dtype || !dims.ok() || *dims != c.in(0).dims)
        return invalid("expected a pos_weight that broadcasts to {}, got {}", to_string(c.in(0)), to_string(c.in(2)));
    }
    return reduced_type(c, c.in(0).dtype, c.in(0).dims);
  });
  def.samples.value.push_back({"pos_weight", {f32({4, 5}), f32({4, 5}, Fill::kUniform01), f32({5}, Fill::kPositive)}});
  return def;
}

OpDef focal_op() {
  return pointwise_loss(
      "focal_loss", "Sigmoid focal loss on logits (arXiv 1708.02002): bce * (1 - p_t)^gamma, weighted by alpha_t.",
      [](std::span<const Expr> in, const OpContext& c) {
        Expr x = in[0], t = in[1], p = sigmoid(x);
        Expr loss = bce(x, t, Expr());
        const double gamma = c.number("gamma"), alpha = c.number("alpha");
        Expr miss = p + t - p * t * 2.0;  // 1 - p_t
        if (gamma == 2)
          loss = loss * square(miss);
        else if (gamma != 0)
          loss = loss * pow(miss, constant_like(miss, gamma));
        return alpha < 0 ? loss : loss * (t * (2 * alpha - 1) + (1 - alpha));
      },
      {{"alpha", AttrKind::kFloat, 0.25, "weight of positives, 1 - alpha of negatives; negative: no weights"},
       {"gamma", AttrKind::kFloat, 2.0, "focus on hard examples; 0 is plain cross entropy"}},
      {{"alpha", -1.0}, {"gamma", 1.5}}, Fill::kNormal, Fill::kUniform01,
      [](const OpContext& c) -> Status {
        if (!(c.number("gamma") >= 0)) return invalid("expected gamma >= 0, got {}", c.number("gamma"));
        return {};
      });
}

OpDef dice_op() {
  return {.name = "dice_loss",
          .doc = "1 - (2 |P T| + smooth) / (|P| + |T| + smooth) per image and class (arXiv 1606.04797, plain sums).",
          .inputs = std::vector<OperandSpec>{{"probabilities", "float [N,C,...]"},
                                             {"target", "one-hot, the probabilities' type"}},
          .outputs = std::vector<OperandSpec>{{"loss", "scalar, or [N,C] with reduction \"none\""}},
          .attrs = {{"smooth", AttrKind::kFloat, 1.0, "keeps empty classes from dividing by zero"},
                    reduction_attr("[N,C]")},
          .infer = [](const OpContext& c) -> TypesOrError {
            DS_TRY(check_same(c));
            if (!(c.number("smooth") >= 0)) return invalid("expected smooth >= 0, got {}", c.number("smooth"));
            if (c.in(0).rank() < 3)
              return invalid("expected [N,C,...] with at least one more axis, got {}", to_string(c.in(0)));
            return reduced_type(c, c.in(0).dtype, {c.in(0).dims[0], c.in(0).dims[1]});
          },
          .gradient = Gradient::by_decomposition(),
          .reference = Reference::by_decomposition(),
          .decompose = [](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
            Dims axes;
            for (int64_t i = 2; i < in[0].rank(); ++i) axes.push_back(i);
            const double smooth = c.number("smooth");
            const DType dtype = in[0].dtype();
            Expr p = cast(in[0], wide_dtype(dtype)), t = cast(in[1], wide_dtype(dtype));
            Expr both = sum(p * t, axes), total = sum(p, axes) + sum(t, axes);
            return {cast(reduce_loss(c, 1.0 - (both * 2.0 + smooth) / (total + smooth)), dtype)};
          },
          .samples =
              std::vector<Sample>{{"mean", {f32({2, 3, 4, 5}, Fill::kUniform01), f32({2, 3, 4, 5}, Fill::kUniform01)}},
                                  {"none",
                                   {f32({2, 3, 7}, Fill::kUniform01), f32({2, 3, 7}, Fill::kUniform01)},
                                   with_reduction("none", {{"smooth", 0.1}})}}};
}

bool class_targets(const OpContext& c) { return is_integer(c.in(1).dtype); }

TypesOrError infer_classification(const OpContext& c, bool soft_allowed) {
  const TensorType &x = c.in(0), &t = c.in(1);
  if (!is_float(x.dtype) || x.rank() < 2) return invalid("expected float [N,C,...], got {}", to_string(x));
  const Dims rest = without_axis(x.dims, 1);
  const bool classes = (t.dtype == DType::kI64 || t.dtype == DType::kI32) && t.dims == rest;
  if (!classes && !(soft_allowed && t == x))
    return invalid("expected targets i64{} (class indices){}, got {}", to_string(rest),
                   soft_allowed ? " or " + to_string(x) + " (probabilities)" : "", to_string(t));
  return reduced_type(c, x.dtype, rest);
}

// -log p of the target class, with smoothing; ignored targets count neither in the sum nor in the mean.
Expr indexed_nll(const OpContext& c, Expr log_p, Expr target, double smoothing) {
  Expr valid =
      log_p.builder().op("not_equal", {target, constant_like(target, static_cast<double>(c.integer("ignore_index")))});
  Dims one = log_p.dims();
  one[1] = 1;
  Expr index = reshape(select(valid, target, constant_like(target, 0)), one);
  Expr loss = -reshape(log_p.builder().op("take_along_axis", {log_p, index}, {{"axis", int64_t{1}}}), target.dims());
  if (smoothing != 0) loss = loss * (1 - smoothing) - mean(log_p, {1}) * smoothing;
  loss = select(valid, loss, constant_like(loss, 0));
  const std::string& r = c.text("reduction");
  if (r == "none") return loss;
  if (r == "sum") return sum(loss);
  const DType wide = wide_dtype(loss.dtype());  // counts may be beyond what a half float holds
  return cast(sum(cast(loss, wide)) / sum(cast(valid, wide)), loss.dtype());
}

const AttrSpec kIgnoreIndex{"ignore_index", AttrKind::kInt, int64_t{-100}, "class index that takes no part"};

OpDef cross_entropy_op() {
  return {
      .name = "cross_entropy",
      .doc =
          "Cross entropy of softmax(logits) over axis 1, with class indices or probabilities as targets. The mean is "
          "over the targets that are not ignored.",
      .inputs = std::vector<OperandSpec>{{"logits", "float [N,C,...]"},
                                         {"target", "i64 or i32 [N,...], or probabilities [N,C,...]"}},
      .outputs = std::vector<OperandSpec>{{"loss", "scalar, or [N,...] with reduction \"none\""}},
      .attrs = {{"label_smoothing", AttrKind::kFloat, 0.0,
                 "in [0, 1]: share of the uniform distribution in the target"},
                kIgnoreIndex,
                reduction_attr("[N,...]")},
      .infer = [](const OpContext& c) -> TypesOrError {
        if (const double s = c.number("label_smoothing"); !(s >= 0 && s <= 1))
          return invalid("expected label_smoothing in [0, 1], got {}", s);
        return infer_classification(c, true);
      },
      .gradient = Gradient::by_decomposition(),
      .reference = Reference::by_decomposition(),
      .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
        const double smoothing = c.number("label_smoothing");
        Expr log_p = b.op("log_softmax", {in[0]}, {{"axis", int64_t{1}}});
        if (class_targets(c)) return {indexed_nll(c, log_p, in[1], smoothing)};
        Expr t = smoothing == 0 ? in[1] : in[1] * (1 - smoothing) + smoothing / static_cast<double>(in[0].dim(1));
        return {reduce_loss(c, -sum(t * log_p, {1}))};
      },
      .samples =
          std::vector<Sample>{
              {"classes", {f32({6, 5}), indices({6}, 5)}},
              {"smoothing", {f32({6, 5}), indices({6}, 5)}, {{"label_smoothing", 0.1}}},
              {"ignore", {f32({8, 3}), indices({8}, 3)}, {{"ignore_index", int64_t{1}}, {"label_smoothing", 0.2}}},
              {"nothing", {f32({0, 5}), indices({0}, 5)}},
              {"pixels", {f32({2, 4, 3, 2}), indices({2, 3, 2}, 4)}, with_reduction("sum")},
              {"none", {f32({5, 7}), indices({5}, 7)}, with_reduction("none", {{"ignore_index", int64_t{2}}})},
              {"probabilities", {f32({6, 5}), f32({6, 5}, Fill::kUniform01)}, {{"label_smoothing", 0.1}}}}};
}

OpDef nll_op() {
  return {
      .name = "nll_loss",
      .doc = "Negative log likelihood of class indices under log probabilities on axis 1.",
      .inputs = std::vector<OperandSpec>{{"log_probabilities", "float [N,C,...]"}, {"target", "i64 or i32 [N,...]"}},
      .outputs = std::vector<OperandSpec>{{"loss", "scalar, or [N,...] with reduction \"none\""}},
      .attrs = {kIgnoreIndex, reduction_attr("[N,...]")},
      .infer = [](const OpContext& c) { return infer_classification(c, false); },
      .gradient = Gradient::by_decomposition(),
      .reference = Reference::by_decomposition(),
      .decompose = [](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
        return {indexed_nll(c, in[0], in[1], 0)};
      },
      .samples = std::vector<Sample>{{"mean", {f32({6, 5}), indices({6}, 5)}, {{"ignore_index", int64_t{3}}}},
                                     {"none", {f32({2, 4, 3}), indices({2, 3}, 4)}, with_reduction("none")}}};
}

}  // namespace

Status register_loss(OpRegistry& registry) {
  std::vector<OpDef> defs;
  defs.push_back(cross_entropy_op());
  defs.push_back(nll_op());
  defs.push_back(pointwise_loss("mse_loss", "(prediction - target)^2",
                                [](std::span<const Expr> in, const OpContext&) { return square(in[0] - in[1]); }));
  defs.push_back(pointwise_loss("l1_loss", "|prediction - target|",
                                [](std::span<const Expr> in, const OpContext&) { return abs(in[0] - in[1]); }));
  defs.push_back(pointwise_loss("huber_loss",
                                "d^2 / 2 where d = |prediction - target| < delta, else delta (d - delta / 2).", huber,
                                {{"delta", AttrKind::kFloat, 1.0, "where the parabola becomes a line, > 0"}},
                                {{"delta", 0.6}}, Fill::kNormal, Fill::kNormal, [](const OpContext& c) -> Status {
                                  if (!(c.number("delta") > 0))
                                    return invalid("expected delta > 0, got {}", c.number("delta"));
                                  return {};
                                }));
  defs.push_back(pointwise_loss("quantile_loss", "max(q e, (q - 1) e) where e = target - prediction (pinball loss).",
                                quantile, {{"quantile", AttrKind::kFloat, 0.5, "q in (0, 1)"}}, {{"quantile", 0.9}},
                                Fill::kNormal, Fill::kNormal, [](const OpContext& c) -> Status {
                                  const double q = c.number("quantile");
                                  return q > 0 && q < 1 ? Status()
                                                        : invalid("expected a quantile in (0, 1), got {}", q);
                                }));
  defs.push_back(bce_op());
  defs.push_back(focal_op());
  defs.push_back(dice_op());
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
