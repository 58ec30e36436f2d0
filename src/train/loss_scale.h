// Dynamic loss scaling inside a step (Micikevicius et al., "Mixed Precision Training", 2017, with NVIDIA Apex's
// constants): the loss is multiplied before it is differentiated, gradients are divided before anything reads them.
// Where one is not finite, the update is skipped, that is all state but the random counter stays, and the scale is
// halved. The scale and its counts are state of the same graph. Test: tests/train/precision_test.cc
#pragma once

#include <cstdint>
#include <vector>

#include "graph/builder.h"

namespace deepseek::train {

constexpr double kInitialLossScale = 65536, kLeastLossScale = 1, kMostLossScale = 16777216;
constexpr const char *kLossScale = "loss_scale/scale", *kSkippedUpdates = "loss_scale/skipped";
constexpr const char* kScaledLoss = "loss_scale/loss";

// Undefined where scaling is off.
struct LossScale {
  graph::Expr scale, skipped;  // states
  graph::Expr good;            // bool[]: all gradients are finite
};

// `graph` with the further output kScaledLoss, the output kLoss times the state kLossScale.
Result<graph::Graph> with_scaled_loss(const graph::Graph& graph);
// bool[]: whether all elements of all tensors are finite.
graph::Expr all_finite(graph::Builder& builder, const std::vector<graph::Expr>& tensors);
// The states' next values, and the output "skipped"; the scale doubles after `interval` updates without an overflow.
void write_loss_scale(graph::Builder& builder, const LossScale& loss_scale, int64_t interval);
// The state's next value; where the gradients are not finite it stays.
void write_state(graph::Builder& builder, graph::Expr state, graph::Expr value, const LossScale& loss_scale);

}  // namespace deepseek::train
