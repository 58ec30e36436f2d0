// The training step as one graph: forward, loss, backward, clipping, optimiser update. Parameters, moments, running
// statistics and the random counter are its state (state_store.h). Test: tests/train/trainer_test.cc
#pragma once

#include <string>

#include "passes/driver.h"
#include "train/forward.h"
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
  int64_t loss_scale_interval = 0;    // dynamic loss scaling: updates without an overflow before a doubling; 0 is off
  passes::PassObserver observe = {};  // sees the passes that make the step of the forward pass
};

enum class StepKind {
  kUpdate,      // one batch, one update
  kAccumulate,  // adds the batch's gradients, times its weight, to "accumulated/<parameter>"
  kLast,        // the last batch of an update: adds, then updates with the sum over the total weight and clears it
};

// What the step takes beside data, each f32[]. No name of a user's holds a slash.
constexpr const char *kLearningRate = "step/learning_rate", *kStepNumber = "step/number";
constexpr const char *kWeight = "step/weight", *kTotalWeight = "step/total_weight";

// Data inputs: the batch's (nn::input_name); unless the kind is kAccumulate kLearningRate and kStepNumber (1 in the first
// update); unless it is kUpdate kWeight, how much the batch counts in the update (0: not at all, whatever its
// gradients), and for kLast kTotalWeight, of all of the update's batches. Outputs: those of
// evaluation_graph(), "gradient_norm" (before clipping) where there is an update, and "skipped" (1 or 0) with loss scaling. State: the
// module's tensors by name, "optimizer/<parameter>/<moment>", "ema/<parameter>", "accumulated/<parameter>",
// nn::kRandomCounter, and f32[] "loss_scale/scale", "loss_scale/good" (updates since it changed), "loss_scale/skipped"
// (of all updates). The average's decay grows as min(ema_decay, (1 + step) / (10 + step)), TensorFlow's
// ExponentialMovingAverage.
Result<graph::Graph> training_graph(nn::Module& model, const data::BatchType& batch, const StepOptions& options,
                                    StepKind kind = StepKind::kUpdate, ForwardTraces* traces = nullptr);
}  // namespace deepseek::train
