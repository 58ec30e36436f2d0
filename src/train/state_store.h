// The state of a model's steps by name: its own tensors, moments, averages, the random counter, the loss scale.
// Invariant: names and types are those of the graphs' state inputs, and the module's tensors are shared, so that a step
// changes the module. Test: tests/train/trainer_test.cc, tests/train/precision_test.cc
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/tensor.h"
#include "nn/module.h"
#include "runtime/program.h"

namespace deepseek::train {

// Tensors by state name, shared with the module. Makes what a graph needs and the module does not own: moments and
// sums (zeros), averages (the parameter's value) and the random counter (seed, 0).
class StateStore {
 public:
  StateStore(const nn::Module& model, uint64_t seed);
  void prepare(const graph::Graph& graph);
  const std::map<std::string, graph::Tensor>& tensors() const { return tensors_; }
  // The same values in memory of its own, not shared with the module.
  StateStore clone() const;
  // What a checkpoint holds: all but the gradients' sums, which are zero between updates.
  std::map<std::string, graph::Tensor> persistent() const;
  // Overwrites what persistent() has, by name. The error lists all that don't fit.
  Status load(const std::map<std::string, graph::Tensor>& values);
  // Runs with data inputs by name; with `averaged`, parameters that have a moving average are read from it.
  Result<std::vector<graph::Tensor>> run(const runtime::Program& program,
                                         const std::map<std::string, graph::Tensor>& data, bool averaged = false,
                                         runtime::Profile* profile = nullptr) const;

 private:
  std::map<std::string, graph::Tensor> tensors_;
  uint64_t seed_;
};

}  // namespace deepseek::train
