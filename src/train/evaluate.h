// A model on data it does not learn from: loss, metrics, confusion matrix, predictions. Programs are kept per batch
// size, so repeated evaluations compile once. Test: tests/train/trainer_test.cc
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "runtime/module_cache.h"
#include "train/forward.h"
#include "train/metrics.h"
#include "train/state_store.h"

namespace deepseek::train {

struct Evaluation {
  double loss = 0;  // mean over samples, or over labels that count; NaN where none does
  std::vector<std::pair<std::string, double>> metrics;  // by name, in the order asked for
  int64_t classes = 0;
  std::vector<int64_t> confusion;  // [true * classes + predicted]; empty for regression

  // "loss" or a metric's value; NaN for a name that was not computed.
  double value(const std::string& name) const;
};

class Evaluator {
 public:
  explicit Evaluator(nn::ModulePtr model) : model_(std::move(model)) {}

  // Metrics that are named wrongly or do not fit the task are errors. `state` holds the model's tensors (and moving
  // averages, which `averaged` asks for).
  Result<Evaluation> evaluate(const runtime::Backend& backend, const data::Dataset& dataset, int64_t batch_size,
                              const LossFunction& loss, const std::vector<std::string>& metrics, Task task,
                              StateStore& state, bool averaged = false);
  // Predictions [N, ...] for inputs as the model takes them, f32 or i64 [N, ...].
  Result<graph::Tensor> predict(const runtime::Backend& backend, const graph::Tensor& inputs, int64_t batch_size,
                                StateStore& state);

 private:
  nn::ModulePtr model_;
  // Of this batch, with an output "loss" where there are targets.
  Result<runtime::ModuleCache::Entry> program(const runtime::Backend& backend, const graph::TensorType& x,
                                              const graph::TensorType* y, const LossFunction& loss, StateStore& state);

  runtime::CacheView<> programs_;  // by what the model is and the batch's types
  nn::Structure structure_;
  ForwardTraces traces_;
};

}  // namespace deepseek::train
