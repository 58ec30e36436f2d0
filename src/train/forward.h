// A model's forward pass and loss as a graph, with what is kept of their traces. Test: tests/train/trainer_test.cc,
// tests/python/test_resize.py, tests/python/test_named_batches.py
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "graph/resize.h"
#include "nn/module.h"
#include "train/loss.h"

namespace deepseek::train {

// Names of a graph's results; no name of a user's holds a slash.
constexpr const char *kLoss = "loss", *kLossTerms = "loss/", *kOutputs = "output/";
// What comes after a prefix of those in a graph's outputs: {"kind", index}, ....
std::vector<std::pair<std::string, size_t>> outputs_after(const graph::Graph& graph, std::string_view prefix);

// A model's forward pass and loss, traced for two sizes of batches at most as long as the module stays as it is and
// treats all sizes alike; see graph/resize.h. For one model and one loss.
class ForwardTraces {
 public:
  // `loss`: none for the outputs alone, of a batch without targets.
  Result<graph::Graph> get(nn::Module& model, const data::BatchType& batch, const LossFunction* loss, bool training);
  int64_t count() const;  // how often the model was traced

 private:
  std::map<std::string, graph::Traces> traces_;  // by training, loss, and the batch's names
  nn::Structure structure_;
};

// Data inputs: the batch's entries by name (nn::input_name), inputs of the model by its names for them, or in order.
// Outputs: kOutputs + name of each of the model's outputs, and with a loss kLoss and, where it has several terms, kLossTerms +
// name of each, before its weight.
Result<graph::Graph> evaluation_graph(nn::Module& model, const data::BatchType& batch, const LossFunction* loss,
                                      ForwardTraces* traces = nullptr);

// The inputs of a batch in the order in which the model takes them; an undefined index for one that it can do without.
// Errors: kInvalidArgument for names that the model lacks and for those that are missing.
Result<std::vector<int64_t>> input_order(const nn::Module& model, const data::BatchType& batch);

}  // namespace deepseek::train
