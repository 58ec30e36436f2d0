// Losses by name: each is an op of two inputs (prediction, target), with its attributes read from text.
// Test: tests/train/metrics_test.cc
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graph/builder.h"
#include "train/metrics.h"

namespace deepseek::train {

// Writes a float scalar into the graph of its arguments; a callable of Python or C++ serves as well as an op.
using LossFunction = std::function<graph::Expr(graph::Expr prediction, graph::Expr target)>;

// "auto" first, then the losses of two inputs.
std::vector<std::string> loss_names();
// "auto" by the targets' type.
std::string resolve_loss(const std::string& name, DType target);
// Errors: kInvalidArgument, listing every parameter that the op lacks or that has the wrong type, with what it takes.
Result<LossFunction> make_loss(const std::string& name, const std::map<std::string, std::string>& params);
Task task_of(const std::string& loss);
// The label that a loss leaves out: its parameter ignore_index, else the op's default; none for a loss without one.
std::optional<int64_t> ignored_label(const std::string& name, const std::map<std::string, std::string>& params);

}  // namespace deepseek::train
