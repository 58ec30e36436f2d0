// Optimisers as graph: each writes one parameter's update, with its moments as state. The rules are PyTorch's
// (torch.optim) where both have them. Test: tests/train/trainer_test.cc, tests/python/test_parity.py
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graph/builder.h"

namespace deepseek::train {

struct OptimizerOptions {
  std::string name = "sgd";  // sgd, adam, adamw, lamb, rmsprop, adagrad, lion
  double momentum = 0;       // sgd, rmsprop
  bool nesterov = false;     // sgd
  double beta1 = 0.9;        // adam, adamw, lamb, lion
  double beta2 = 0.999;      // adam, adamw, lamb; lion's usual value is 0.99
  double alpha = 0.99;       // rmsprop: decay of the squared gradient's mean
  double epsilon = 1e-8;     // adam, adamw, lamb, rmsprop, adagrad
  double weight_decay = 0;   // decoupled in adamw, lamb and lion, added to the gradient elsewhere
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

// The parameter's next value. Errors for unknown names list the known ones.
Result<graph::Expr> update(const OptimizerOptions& options, const UpdateContext& context);
std::vector<std::string> optimizer_names();

}  // namespace deepseek::train
