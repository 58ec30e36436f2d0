// A model on data it does not learn from: loss, metrics, confusion matrix, predictions. Programs are kept per batch
// size, so repeated evaluations compile once. Test: tests/train/trainer_test.cc
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "runtime/module_cache.h"
#include "train/forward.h"
#include "train/metric_set.h"
#include "train/state_store.h"

namespace deepseek::train {

struct Evaluation {
  double loss = 0;  // mean over samples, or over labels that count; NaN where none does
  std::vector<std::pair<std::string, double>> terms;    // "loss/<term>" of a loss of several, without their weights
  std::vector<std::pair<std::string, double>> metrics;  // by name, in the order asked for
  std::vector<MetricSet::Confusion> confusions;         // of each target of classes

  // "loss", a term's or a metric's value; NaN for a name that was not computed.
  double value(const std::string& name) const;
};

// The model's outputs of one run by name.
std::map<std::string, graph::Tensor> named_outputs(const graph::Graph& program, const std::vector<graph::Tensor>& out);

class Evaluator {
 public:
  explicit Evaluator(nn::ModulePtr model) : model_(std::move(model)) {}

  // What metrics there are once the types of outputs and batch are known.
  using MakeMetrics = std::function<Result<MetricSet>(const graph::Graph& program, const data::BatchType& batch)>;
  // Where the model's tensors are while it is evaluated. kFrozen: inside of the program, as in a session of the saved
  // model, whose bits these are; it compiles whenever they changed. The others read them where training has them,
  // kAveraged the parameters' moving averages where there are some.
  enum class Weights { kFrozen, kState, kAveraged };
  // Metrics that are named wrongly or do not fit the task are errors. `state` holds the model's tensors.
  Result<Evaluation> evaluate(const runtime::Backend& backend, const data::DatasetPtr& dataset, int64_t batch_size,
                              const LossFunction& loss, const MakeMetrics& metrics, StateStore& state, Weights weights);
  // Outputs [N, ...] by name for inputs as the model takes them, f32 or i64 [N, ...]; its weights are frozen.
  Result<data::Batch> predict(const runtime::Backend& backend, const data::Batch& inputs, int64_t batch_size,
                              StateStore& state);

 private:
  nn::ModulePtr model_;
  struct Pass;  // over batches, with weights that stay as they are

  runtime::CacheView<> programs_;  // by what the model is and the batch's types
  nn::Structure structure_;
  ForwardTraces traces_;
};

}  // namespace deepseek::train
