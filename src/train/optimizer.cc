#include "train/optimizer.h"

#include <cmath>

#include "base/strings.h"
#include "ops/dsl.h"

namespace deepseek::train {

using graph::Expr;

namespace {

using Rule = Expr (*)(const OptimizerOptions&, const UpdateContext&);

Expr decayed_gradient(const OptimizerOptions& o, const UpdateContext& c) {
  return *o.weight_decay == 0 ? c.gradient : c.gradient + c.parameter * *o.weight_decay;
}

Expr sgd(const OptimizerOptions& o, const UpdateContext& c) {
  Expr g = decayed_gradient(o, c);
  if (o.momentum != 0) {
    // The buffer starts at zero, so the first step sets it to the gradient, as in PyTorch with dampening 0.
    Expr buffer = c.moment("momentum") * o.momentum + g;
    c.set("momentum", buffer);
    g = o.nesterov ? g + buffer * o.momentum : buffer;
  }
  return c.parameter - c.learning_rate * g;
}

// 1 - decay^step for the scalar step input. In f32 the power of a decay near 1 is 1; this keeps all digits.
Expr bias_correction(double decay, Expr step) {
  return decay == 0 ? ops::constant_like(step, 1) : -step.builder().op("expm1", {step * std::log(decay)});
}

// Adam (Kingma and Ba, 2014), from gradient g: the step's direction m' / (sqrt(v') + epsilon) for the unbiased moments
// m' = m / (1 - beta1^t), v' = v / (1 - beta2^t), as numerator and denominator; the scalars are divided, not the
// tensors.
struct AdamDirection {
  Expr m, scale, denominator;  // m * scale / denominator
};
AdamDirection adam_direction(const OptimizerOptions& o, const UpdateContext& c, Expr g) {
  Expr m = c.moment("m") * o.beta1 + g * (1 - o.beta1);
  Expr v = c.moment("v") * *o.beta2 + g * g * (1 - *o.beta2);
  c.set("m", m);
  c.set("v", v);
  Expr one = ops::constant_like(c.step, 1);
  return {m, one / bias_correction(o.beta1, c.step),
          ops::sqrt(v) * (one / ops::sqrt(bias_correction(*o.beta2, c.step))) + *o.epsilon};
}

Expr adam(const OptimizerOptions& o, const UpdateContext& c) {
  const AdamDirection d = adam_direction(o, c, decayed_gradient(o, c));
  return c.parameter - c.learning_rate * d.scale * (d.m / d.denominator);
}

Expr adamw(const OptimizerOptions& o, const UpdateContext& c) {
  const AdamDirection d = adam_direction(o, c, c.gradient);
  Expr p = *o.weight_decay == 0 ? c.parameter : c.parameter * (1.0 - c.learning_rate * *o.weight_decay);
  return p - c.learning_rate * d.scale * (d.m / d.denominator);
}

// LAMB: You et al., "Large Batch Optimization for Deep Learning", 2019. Trust ratio 1 where either norm is 0.
Expr lamb(const OptimizerOptions& o, const UpdateContext& c) {
  const AdamDirection d = adam_direction(o, c, c.gradient);
  Expr direction = d.m / d.denominator * d.scale + c.parameter * *o.weight_decay;
  Expr p_norm = ops::sqrt(ops::sum(c.parameter * c.parameter)), d_norm = ops::sqrt(ops::sum(direction * direction));
  Expr zero = ops::constant_like(p_norm, 0), one = ops::constant_like(p_norm, 1);
  Expr safe = ops::select(ops::greater(d_norm, zero), d_norm, one);
  Expr ratio =
      ops::select(ops::greater(p_norm, zero), ops::select(ops::greater(d_norm, zero), p_norm / safe, one), one);
  return c.parameter - c.learning_rate * ratio * direction;
}

Expr rmsprop(const OptimizerOptions& o, const UpdateContext& c) {
  Expr g = decayed_gradient(o, c);
  Expr v = c.moment("v") * o.alpha + g * g * (1 - o.alpha);
  c.set("v", v);
  Expr direction = g / (ops::sqrt(v) + *o.epsilon);
  if (o.momentum != 0) {
    direction = c.moment("momentum") * o.momentum + direction;
    c.set("momentum", direction);
  }
  return c.parameter - c.learning_rate * direction;
}

Expr adagrad(const OptimizerOptions& o, const UpdateContext& c) {
  Expr g = decayed_gradient(o, c);
  Expr v = c.moment("v") + g * g;
  c.set("v", v);
  return c.parameter - c.learning_rate * g / (ops::sqrt(v) + *o.epsilon);
}

// Lion: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.
Expr lion(const OptimizerOptions& o, const UpdateContext& c) {
  Expr m = c.moment("m");
  Expr direction = ops::sign(m * o.beta1 + c.gradient * (1 - o.beta1));
  c.set("m", m * *o.beta2 + c.gradient * (1 - *o.beta2));
  Expr p = *o.weight_decay == 0 ? c.parameter : c.parameter * (1.0 - c.learning_rate * *o.weight_decay);
  return p - c.learning_rate * direction;
}

struct Entry {
  const char* name;
  Rule rule;
  double learning_rate, weight_decay = 0, beta2 = 0.999, epsilon = 1e-8;  // what is not given
  bool betas = false;                                                     // whether it has beta1 and beta2
};
constexpr Entry kRules[] = {{"sgd", sgd, 0.05},
                            {"adam", adam, 1e-3, 0, 0.999, 1e-8, true},
                            {"adamw", adamw, 1e-3, 0.01, 0.999, 1e-8, true},
                            {"lamb", lamb, 1e-3, 0, 0.999, 1e-8, true},
                            {"rmsprop", rmsprop, 1e-2},
                            {"adagrad", adagrad, 1e-2, 0, 0.999, 1e-10},
                            {"lion", lion, 1e-4, 0, 0.99, 1e-8, true}};

const Entry* find_rule(const std::string& name) {
  for (const Entry& e : kRules)
    if (name == e.name) return &e;
  return nullptr;
}

}  // namespace

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const Entry& e : kRules) names.push_back(e.name);
  return names;
}

OptimizerOptions with_defaults(OptimizerOptions options) {
  const Entry* rule = find_rule(options.name);
  if (rule == nullptr) rule = &kRules[0];  // update() tells
  const auto fill = [](std::optional<double>& value, double otherwise) { value = value.value_or(otherwise); };
  fill(options.learning_rate, rule->learning_rate);
  fill(options.weight_decay, rule->weight_decay);
  fill(options.beta2, rule->beta2);
  fill(options.epsilon, rule->epsilon);
  return options;
}

Result<Expr> update(const OptimizerOptions& given, const UpdateContext& context) {
  const Entry* rule = find_rule(given.name);
  if (rule == nullptr)
    return invalid("optimizer.name: there is no optimizer '{}'; known are: {}", given.name,
                   join(optimizer_names(), ", "));
  const OptimizerOptions options = with_defaults(given);
  for (const auto& [name, decay] : {std::pair("beta1", options.beta1), std::pair("beta2", *options.beta2)})
    if (rule->betas && !(decay >= 0 && decay < 1))
      return invalid("optimizer.{}: expected a number in [0, 1), got {}", name, decay);
  return rule->rule(options, context);
}

}  // namespace deepseek::train
