// The training step as one graph: forward, loss, backward, clipping, optimiser update. Parameters, moments, running
// statistics and the random counter are its state. Test: tests/train/step_test.cc
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"
#include "runtime/program.h"
#include "train/optimizer.h"

namespace deepseek::train {

struct StepOptions {
  std::string loss = "cross_entropy";  // an op (logits, targets) -> scalar
  graph::Attrs loss_attrs;
  OptimizerOptions optimizer;
  double clip_norm = 0;   // global L2 norm; 0 is off
  double clip_value = 0;  // each element to [-v, v], before the norm; 0 is off
};

// Data inputs: "x", "y", "learning_rate" f32[], "step" f32[] (1 in the first update). Outputs: "loss", "prediction",
// "gradient_norm" (before clipping). State: the module's tensors by name, "optimizer/<parameter>/<moment>", "random".
Result<graph::Graph> training_graph(nn::Module& model, const graph::TensorType& x, const graph::TensorType& y,
                                    const StepOptions& options);
// Data inputs: "x", and "y" if given. Outputs: "prediction", and "loss" if y is given.
Result<graph::Graph> evaluation_graph(nn::Module& model, const graph::TensorType& x, const graph::TensorType* y,
                                      const StepOptions& options);

// Tensors by state name, shared with the module. Makes what a graph needs and the module does not own: moments (zeros)
// and the random counter (seed, 0).
class StateStore {
 public:
  StateStore(const nn::Module& model, uint64_t seed);
  void prepare(const graph::Graph& graph);
  const std::map<std::string, graph::Tensor>& tensors() const { return tensors_; }
  // Overwrites values by name; moments may be new. The error lists all that don't fit.
  Status load(const std::map<std::string, graph::Tensor>& values);
  // Runs with data inputs by name.
  Result<std::vector<graph::Tensor>> run(const runtime::Program& program,
                                         const std::map<std::string, graph::Tensor>& data) const;

 private:
  std::map<std::string, graph::Tensor> tensors_;
  uint64_t seed_;
};

}  // namespace deepseek::train
