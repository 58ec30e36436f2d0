// What Step and Trainer share: options as Python hands them over, loss functions, turns of threads.
// Test: tests/python/test_trainer.py
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

#include "binding.h"
#include "trace.h"
#include "train/run_options.h"
#include "train/step.h"

namespace deepseek::python {

using Settings = std::map<std::string, std::string>;  // option path to its value as YAML

// Raises ValueError that names every mistake.
train::TrainerOptions read_options(const Settings& settings);

// A callable (prediction, target) -> scalar as the engine's; none for None.
train::LossFunction python_loss(nb::object loss);

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
