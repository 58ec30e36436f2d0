// What Step and Trainer share: options as Python hands them over, loss functions, turns of threads.
// Test: tests/python/test_trainer.py
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "binding.h"
#include "trace.h"
#include "train/run_options.h"
#include "train/step.h"

namespace deepseek::python {

// Python's Dataset. `paired`: it was made of inputs and targets without names; a loss then takes the target.
struct Samples {
  data::DatasetPtr data;
  bool paired = true;
};

using Settings = std::map<std::string, std::string>;  // option path to its value as YAML

// Raises ValueError that names every mistake.
train::TrainerOptions read_options(const Settings& settings);

// A callable as the engine's loss; none for None. Its first argument is what the model returned: a value, a tuple or a
// dict of them; the second, where `*paired`, the target (which is "y"), else the batch, a dict by name. It returns a
// scalar, or a dict of the loss's terms by name, each a scalar or a pair (scalar, weight).
train::LossFunction python_loss(nb::object loss, std::shared_ptr<const bool> paired);

// What a step or a trainer is given: x and y, or a dict of arrays by name. `named`: it was a dict.
struct GivenBatch {
  data::Batch tensors;
  data::BatchType type;
  bool named = false;
};
// Of a dict, what the model takes is its input, the rest are targets. A tuple x has the model's inputs in order.
GivenBatch to_batch(const nn::Module& model, nb::handle x, nb::handle y);
// What a model is given by these names is its input; see to_batch().
bool is_input(const std::vector<nn::InputName>& names, const std::string& name);
// By name, or one array where it is the only one and has no name of its own.
nb::object to_python(const data::Batch& outputs);

// What a callable loss holds, its attributes or closure, is part of what is traced: who trains with it asks before.
class LossWatch {
 public:
  explicit LossWatch(nb::object loss) : loss_(std::move(loss)) { seen_ = now(); }
  // Where it holds something else than the last time, traces of the model no longer hold.
  void look(nn::Module& model) {
    if (loss_.is_none() || now() == seen_) return;
    model.changed();
    seen_ = now();  // the model may be among what it holds
  }
  const nb::object& loss() const { return loss_; }

 private:
  uint64_t now() const { return loss_.is_none() ? 0 : contents_of(loss_); }
  nb::object loss_;
  uint64_t seen_ = 0;
};

// One thread at a time, for a scope; another one waits without the interpreter's lock. A callback may come in again.
// When the interpreter ends nobody waits any more: who has the turn does not come back.
class Turn {
 public:
  using Mutex = std::recursive_timed_mutex;
  explicit Turn(Mutex& mutex) : lock_(mutex, std::try_to_lock) {
    if (lock_.owns_lock()) return;
    without_gil([&] {
      while (!lock_.try_lock_for(std::chrono::milliseconds(50)) && !is_ending()) continue;
    });
  }

 private:
  std::unique_lock<Mutex> lock_;
};

}  // namespace deepseek::python
