// The training step as one graph: forward, loss, backward, clipping, optimiser update. Parameters, moments, running
// statistics and the random counter are its state. Test: tests/train/trainer_test.cc
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "graph/resize.h"
#include "nn/module.h"
#include "runtime/program.h"
#include "train/loss.h"
#include "train/optimizer.h"

namespace deepseek::train {

struct StepOptions {
  LossFunction loss;
  OptimizerOptions optimizer;
  double clip_norm = 0;   // global L2 norm; 0 is off
  double clip_value = 0;  // each element to [-v, v], before the norm; 0 is off
  double ema_decay = 0;   // of the parameters' moving average; 0 is off
  // kBF16 or kF16: forward and backward in it where passes/mixed_precision.h says so. Parameters, their gradients and
  // the update are f32 in any case.
  DType precision = DType::kF32;
  int64_t loss_scale_interval = 0;  // dynamic loss scaling: updates without an overflow before a doubling; 0 is off
};

// Dynamic loss scaling (Micikevicius et al., "Mixed Precision Training", 2017, with NVIDIA Apex's constants): the loss
// is multiplied before it is differentiated, gradients are divided before anything reads them. Where one is not finite,
// the update is skipped, that is all state but the random counter stays, and the scale is halved.
constexpr double kInitialLossScale = 65536, kLeastLossScale = 1, kMostLossScale = 16777216;

enum class StepKind {
  kUpdate,      // one batch, one update
  kAccumulate,  // adds the batch's gradients to "accumulated/<parameter>"
  kLast,        // the last batch of an update: adds, then updates with the sum and clears it
};

// A model's forward pass and loss, traced for two sizes of batches at most as long as the module stays as it is and
// treats all sizes alike; see graph/resize.h. For one model and one loss.
class ForwardTraces {
 public:
  Result<graph::Graph> get(nn::Module& model, const graph::TensorType& x, const graph::TensorType* y,
                           const LossFunction& loss, bool training);
  int64_t count() const;  // how often the model was traced

 private:
  graph::Traces traces_[2][2];  // by training, and whether there is a y
  nn::Structure structure_;
};

// Data inputs: "x", "y"; unless the kind is kAccumulate "learning_rate" f32[] and "step" f32[] (1 in the first update);
// unless it is kUpdate "weight" f32[], the batch's share in the update. Outputs: "loss", "prediction", and
// "gradient_norm" (before clipping) where there is an update, and "skipped" (1 or 0) with loss scaling. State: the
// module's tensors by name, "optimizer/<parameter>/<moment>", "ema/<parameter>", "accumulated/<parameter>", "random/counter",
// and f32[] "loss_scale/scale", "loss_scale/good" (updates since it changed), "loss_scale/skipped" (of all updates).
// The average's decay grows as min(ema_decay, (1 + step) / (10 + step)), TensorFlow's ExponentialMovingAverage.
Result<graph::Graph> training_graph(nn::Module& model, const graph::TensorType& x, const graph::TensorType& y,
                                    const StepOptions& options, StepKind kind = StepKind::kUpdate,
                                    ForwardTraces* traces = nullptr);
// Data inputs: "x", and "y" if given. Outputs: "prediction", and "loss" if y is given.
Result<graph::Graph> evaluation_graph(nn::Module& model, const graph::TensorType& x, const graph::TensorType* y,
                                      const LossFunction& loss, ForwardTraces* traces = nullptr);

// Tensors by state name, shared with the module. Makes what a graph needs and the module does not own: moments and
// sums (zeros), averages (the parameter's value) and the random counter (seed, 0).
class StateStore {
 public:
  StateStore(const nn::Module& model, uint64_t seed);
  void prepare(const graph::Graph& graph);
  // The model got other tensors since, a layer was replaced say: takes them, and forgets moments, averages and sums of
  // those that went.
  void follow(const nn::Module& model);
  const std::map<std::string, graph::Tensor>& tensors() const { return tensors_; }
  // The same values in memory of its own, not shared with the module.
  StateStore clone() const;
  // What a checkpoint holds: all but the gradients' sums, which are zero between updates.
  std::map<std::string, graph::Tensor> persistent() const;
  // Overwrites what persistent() has, by name. The error lists all that don't fit.
  Status load(const std::map<std::string, graph::Tensor>& values);
  // Overwrites one, or adds a copy where there is none of this name. An error where its type differs.
  Status put(const std::string& name, const graph::Tensor& value);
  // Runs with data inputs by name; with `averaged`, parameters that have a moving average are read from it.
  Result<std::vector<graph::Tensor>> run(const runtime::Program& program,
                                         const std::map<std::string, graph::Tensor>& data, bool averaged = false,
                                         runtime::Profile* profile = nullptr) const;

 private:
  std::map<std::string, graph::Tensor> tensors_;
  std::set<std::string> of_model_;  // which of them are the model's
  uint64_t seed_;
};

}  // namespace deepseek::train
