// Optimisers as graph: each writes one parameter's update, with its moments as state. The rules are PyTorch's
// (torch.optim) where both have them. Test: tests/train/trainer_test.cc, tests/python/test_parity.py
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graph/builder.h"

namespace deepseek::train {

// What is not given is the rule's own, see with_defaults().
struct OptimizerOptions {
  std::string name = "sgd";             // sgd, adam, adamw, lamb, rmsprop, adagrad, lion
  std::optional<double> learning_rate;  // at its peak
  double momentum = 0;                  // sgd, rmsprop
  bool nesterov = false;                // sgd
  double beta1 = 0.9;                   // adam, adamw, lamb, lion; below 1
  std::optional<double> beta2;          // adam, adamw, lamb, lion; below 1
  double alpha = 0.99;                  // rmsprop: decay of the squared gradient's mean
  std::optional<double> epsilon;        // adam, adamw, lamb, rmsprop, adagrad
  std::optional<double> weight_decay;   // decoupled in adamw, lamb and lion, added to the gradient elsewhere
};

// What an update rule sees. `moment(name)` is a state of the parameter's type that starts at zero; set(name, value)
// gives its next value.
struct UpdateContext {
  graph::Expr parameter, gradient;
  graph::Expr learning_rate;  // f32 scalar
  graph::Expr step;           // f32 scalar, 1 in the first update
  std::function<graph::Expr(const std::string&)> moment;
  std::function<void(const std::string&, graph::Expr)> set;
};

// The options with everything given: PyTorch's defaults, and the papers' where it has none.
OptimizerOptions with_defaults(OptimizerOptions options);
// The parameter's next value. Errors: unknown names, with the known ones; a decay of adam's family that is not below 1.
Result<graph::Expr> update(const OptimizerOptions& options, const UpdateContext& context);
std::vector<std::string> optimizer_names();

}  // namespace deepseek::train
