// A model's forward pass and loss as a graph, with what is kept of their traces. Test: tests/train/trainer_test.cc,
// tests/python/test_resize.py
#pragma once

#include <vector>

#include "graph/resize.h"
#include "nn/module.h"
#include "train/loss.h"

namespace deepseek::train {

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

// Data inputs: "x", and "y" if given. Outputs: "prediction", and "loss" if y is given.
Result<graph::Graph> evaluation_graph(nn::Module& model, const graph::TensorType& x, const graph::TensorType* y,
                                      const LossFunction& loss, ForwardTraces* traces = nullptr);

}  // namespace deepseek::train
