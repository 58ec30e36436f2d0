// The state of a model's steps by name: its own tensors, moments, averages, the random counter, the loss scale. It lies
// on the device and is bound to each program once; a step takes its batch and gives its outputs.
// Invariant: names and types are those of the graphs' state inputs. Where the device's memory is the host's, a step
// changes the module's own tensors; elsewhere download() brings what steps did back to them.
// Test: tests/train/trainer_test.cc, tests/train/precision_test.cc
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "graph/tensor.h"
#include "nn/module.h"
#include "runtime/backend.h"

namespace deepseek::train {

// Tensors by state name, shared with the module. Makes what a graph needs and the module does not own: moments and
// sums (zeros), averages (the parameter's value) and the random counter (seed, 0).
class StateStore {
 public:
  StateStore(const nn::Module& model, uint64_t seed, runtime::BackendPtr backend);
  Status prepare(const graph::Graph& graph);
  // The model got other tensors since, a layer was replaced say: takes them, and forgets moments, averages and sums of
  // those that went.
  void follow(const nn::Module& model);
  // On the host: as of the last download(), or always up to date where the device's memory is the host's.
  const std::map<std::string, graph::Tensor>& tensors() const { return tensors_; }
  Status download();
  // One scalar as it is on the device; 0 where there is no such state.
  Result<double> scalar(const std::string& name) const;
  // Brings what others wrote into tensors() to the device.
  Status upload();
  // The same values in memory of its own, not shared with the module.
  Result<StateStore> clone();
  // What a checkpoint holds: all but the gradients' sums, which are zero between updates.
  std::map<std::string, graph::Tensor> persistent() const;
  // Overwrites what persistent() has, by name, on the device too. The error lists all that don't fit.
  Status load(const std::map<std::string, graph::Tensor>& values);
  // Overwrites one, or adds a copy where there is none of this name. An error where its type differs.
  Status put(const std::string& name, const graph::Tensor& value);
  // Runs with data inputs by name; with `averaged`, parameters that have a moving average are read from it.
  Result<std::vector<graph::Tensor>> run(const std::shared_ptr<const runtime::Program>& program,
                                         const std::map<std::string, graph::Tensor>& data, bool averaged = false,
                                         runtime::Profile* profile = nullptr);

 private:
  // Which places a program's state inputs are, found once.
  struct Binding {
    std::weak_ptr<const runtime::Program> program;
    bool averaged = false;
    std::vector<runtime::StateBuffer*> state;
    std::vector<std::string> data;  // names of the data inputs, in order
  };
  Result<const Binding*> bind(const std::shared_ptr<const runtime::Program>& program, bool averaged);
  Status place(const std::string& name);  // uploads tensors_[name]

  runtime::BackendPtr backend_;
  std::map<std::string, graph::Tensor> tensors_;
  std::map<std::string, std::shared_ptr<runtime::StateBuffer>> places_;  // of what programs asked for
  std::vector<Binding> bindings_;
  std::set<std::string> of_model_;  // which of the tensors are the model's
  uint64_t seed_;
};

}  // namespace deepseek::train
