// Connectionist temporal classification (Graves et al., ICML 2006).
#include "ops/ctc.h"

#include <cmath>
#include <limits>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double top = std::fmax(a, b);
  return top == kNever ? kNever : top + std::log1p(std::exp(-std::fabs(a - b)));
}

// Forward and backward sums over the alignments of one sample, in log space. `extended` is the target with blanks
// around each label; beta leaves out the emission of its own step.
class Lattice {
 public:
  Lattice(const double* log_p, int64_t step, int64_t steps, std::vector<int64_t> extended, int64_t blank)
      : log_p_(log_p),
        step_(step),
        steps_(steps),
        width_(static_cast<int64_t>(extended.size())),
        extended_(std::move(extended)),
        alpha_(static_cast<size_t>(steps * width_), kNever),
        beta_(alpha_) {
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t s = 0; s < width_; ++s) {
        double total = kNever;
        if (t == 0) total = s < 2 ? 0 : kNever;
        for (int64_t back = 0; t > 0 && back < 3 && back <= s; ++back)
          if (back < 2 || skips(s, blank)) total = log_add(total, alpha_[(t - 1) * width_ + s - back]);
        alpha_[t * width_ + s] = total + emission(t, s);
      }
    for (int64_t t = steps; t-- > 0;)
      for (int64_t s = 0; s < width_; ++s) {
        double total = t == steps - 1 && s >= width_ - 2 ? 0 : kNever;
        for (int64_t ahead = 0; t < steps - 1 && ahead < 3 && s + ahead < width_; ++ahead)
          if (ahead < 2 || skips(s + ahead, blank))
            total = log_add(total, beta_[(t + 1) * width_ + s + ahead] + emission(t + 1, s + ahead));
        beta_[t * width_ + s] = total;
      }
  }

  double log_likelihood() const {
    if (steps_ == 0) return width_ == 1 ? 0 : kNever;
    const double* last = alpha_.data() + (steps_ - 1) * width_;
    return width_ == 1 ? last[0] : log_add(last[width_ - 1], last[width_ - 2]);
  }

  // d(-log likelihood) / d log_p, laid out as log_p.
  void gradient(double* grad) const {
    const double total = log_likelihood();
    for (int64_t t = 0; t < steps_; ++t)
      for (int64_t s = 0; s < width_; ++s)
        grad[t * step_ + extended_[s]] -= std::exp(alpha_[t * width_ + s] + beta_[t * width_ + s] - total);
  }

 private:
  double emission(int64_t t, int64_t s) const { return log_p_[t * step_ + extended_[s]]; }
  // The blank before label s may be left out where the label before it is another one.
  bool skips(int64_t s, int64_t blank) const {
    return s >= 2 && extended_[s] != blank && extended_[s] != extended_[s - 2];
  }

  const double* log_p_;
  int64_t step_, steps_, width_;
  std::vector<int64_t> extended_;
  std::vector<double> alpha_, beta_;
};

}  // namespace

double ctc_sample(const double* log_p, int64_t step, int64_t steps, std::vector<int64_t> extended, int64_t blank,
                  double* grad) {
  const Lattice lattice(log_p, step, steps, std::move(extended), blank);
  const double loss = -lattice.log_likelihood();
  if (loss != -kNever) lattice.gradient(grad);
  return loss;
}

namespace {

TypesOrError infer_ctc(const OpContext& c) {
  const TensorType &x = c.in(0), &t = c.in(1);
  if (!is_float(x.dtype) || x.rank() != 3)
    return invalid("expected float log probabilities [T,N,C], got {}", to_string(x));
  if (!is_integer(t.dtype) || t.rank() != 2 || t.dims[0] != x.dims[1])
    return invalid("expected integer targets [{}, S] (batch, padded length), got {}", x.dims[1], to_string(t));
  for (size_t i = 2; i < c.num_inputs(); ++i)
    if (!is_integer(c.in(i).dtype) || c.in(i).dims != Dims{x.dims[1]})
      return invalid("expected integer {} [{}], got {}", c.op->inputs.value[i].name, x.dims[1], to_string(c.in(i)));
  if (c.integer("blank") < 0 || c.integer("blank") >= x.dims[2])
    return invalid("expected blank in [0, {}), got {}", x.dims[2], c.integer("blank"));
  return std::vector<TensorType>{{x.dtype, {x.dims[1]}}, x};
}

Status length_of(const OpContext& c, std::span<const RefTensor> in, size_t input, int64_t sample, int64_t limit,
                 int64_t& length) {
  length = in.size() > input ? static_cast<int64_t>(in[input].data[sample]) : limit;
  if (length < 0 || length > limit)
    return invalid("{}: expected a length in [0, {}] for sample {}, got {}", c.op->inputs.value[input].name, limit,
                   sample, length);
  return {};
}

Status ctc_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const int64_t steps = in[0].dims[0], batch = in[0].dims[1], classes = in[0].dims[2], width = in[1].dims[1];
  const int64_t blank = c.integer("blank");
  for (int64_t n = 0; n < batch; ++n) {
    int64_t input_length = 0, target_length = 0;
    DS_TRY(length_of(c, in, 2, n, steps, input_length));
    DS_TRY(length_of(c, in, 3, n, width, target_length));
    std::vector<int64_t> extended{blank};
    for (int64_t s = 0; s < target_length; ++s) {
      const auto label = static_cast<int64_t>(in[1].data[n * width + s]);
      if (label < 0 || label >= classes || label == blank)
        return invalid("target {} of sample {}: expected a class in [0, {}) other than the blank {}, got {}", s, n,
                       classes, blank, label);
      extended.insert(extended.end(), {label, blank});
    }
    const double loss = ctc_sample(elements(in[0], n * classes), batch * classes, input_length, std::move(extended),
                                   blank, elements(out[1], n * classes));
    out[0].data[n] = std::isinf(loss) && c.flag("zero_infinity") ? 0 : loss;
  }
  return {};
}

}  // namespace

Status register_ctc(OpRegistry& registry) {
  return add_all(
      registry,
      {{.name = "ctc_loss",
        .doc = "-log of the probability of all alignments that spell the target, per sample, and its plain derivative "
               "by the log "
               "probabilities. A target that no alignment spells has the loss infinity and the gradient 0.",
        .inputs = std::vector<OperandSpec>{{"log_probabilities", "float [T,N,C], log_softmax over C"},
                                           {"targets", "integer [N,S], padded; no blanks"},
                                           {"input_lengths", "integer [N], at most T; all T where absent", true},
                                           {"target_lengths", "integer [N], at most S; all S where absent", true}},
        .outputs = std::vector<OperandSpec>{{"loss", "[N]"}, {"grad", "[T,N,C], d loss / d log_probabilities"}},
        .attrs = {{"blank", AttrKind::kInt, int64_t{0}, "class of the blank"},
                  {"zero_infinity", AttrKind::kBool, false, "loss 0 in place of infinity"}},
        .infer = infer_ctc,
        .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
          std::vector<Expr> grads(g.inputs.size());
          if (g.output_grads[1].defined())
            g.builder.fail(Status(ErrorCode::kUnsupported, "[ctc_loss] second derivatives are not supported"));
          else
            grads[0] = g.outputs[1] * reshape(g.output_grads[0], {1, g.outputs[0].dim(0), 1});
          return grads;
        }),
        .reference = Reference::kernel(ctc_reference),
        // The output `grad` has no derivative, so differences over all outputs do not apply; tests/ops/ctc_test.cc
        // checks it.
        .samples = std::vector<Sample>{{"full", {f32({9, 3, 5}), indices({3, 3}, 4)}, {{"blank", int64_t{4}}}, false},
                                       {"lengths",
                                        {f32({8, 4, 5}), indices({4, 2}, 4), indices({4}, 9), indices({4}, 3)},
                                        {{"blank", int64_t{4}}, {"zero_infinity", true}},
                                        false}}}});
}

}  // namespace deepseek::ops
