// Losses: what a training minimises, as a function of the model's outputs and the batch, in one or several weighted
// terms. By name each is an op of two inputs (prediction, target), with its attributes read from text.
// Test: tests/train/loss_test.cc, tests/train/metrics_test.cc, tests/python/test_named_batches.py
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "graph/builder.h"
#include "train/metrics.h"

namespace deepseek::train {

// What a model's forward pass gave. Without names of its own, one output is "output", several are "output0", ....
struct ModelOutputs {
  std::vector<std::string> names;
  std::vector<graph::Expr> values;
  bool named = false;
};

struct LossTerm {
  std::string name;   // "" where there is one
  graph::Expr value;  // a float scalar
  double weight = 1;
};

// Writes its terms, whose weighted sum is minimised, into the graph of its arguments. Errors stick to the builder.
using BatchValues = std::map<std::string, graph::Expr>;
using LossFunction = std::function<std::vector<LossTerm>(const ModelOutputs&, const BatchValues&)>;
using PairLoss = std::function<graph::Expr(graph::Expr prediction, graph::Expr target)>;

// Which output of a model is compared with which target: the one of its name, or the only one with the only one.
struct Pairing {
  std::string output, target;
};
// Errors: kInvalidArgument for a target without an output, with the names there are.
Result<std::vector<Pairing>> pair_targets(const std::vector<std::string>& outputs,
                                          const std::vector<std::string>& targets);

// "auto" first, then the losses of two inputs.
std::vector<std::string> loss_names();
// "auto" by the target's type.
std::string resolve_loss(const std::string& name, DType target);
// Errors: kInvalidArgument, listing every parameter that the op lacks or that has the wrong type, with what it takes.
Result<PairLoss> make_loss(const std::string& name, const std::map<std::string, std::string>& params);
// The loss of that name, "auto" by its type, between each target and the output of its name: a term each. A target's
// ignored label is the loss's parameter ignore_index, where it takes one.
Result<LossFunction> loss_of_targets(const std::string& name, const std::map<std::string, std::string>& params,
                                     const std::vector<data::Field>& targets);
Task task_of(const std::string& loss);
// The label that a loss leaves out: its parameter ignore_index, else the op's default; none for a loss without one.
std::optional<int64_t> ignored_label(const std::string& name, const std::map<std::string, std::string>& params);

}  // namespace deepseek::train
