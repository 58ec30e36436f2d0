// What Step and Trainer share: options as Python hands them over, loss functions, turns of threads.
// Test: tests/python/test_trainer.py
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "binding.h"
#include "train/run_options.h"
#include "train/step.h"

namespace deepseek::python {

using Settings = std::map<std::string, std::string>;  // option path to its value as YAML

// Raises ValueError that names every mistake.
train::TrainerOptions read_options(const Settings& settings);

// A callable (prediction, target) -> scalar as the engine's; none for None.
train::LossFunction python_loss(nb::object loss);

// One thread at a time, for a scope; another one waits without the interpreter's lock. A callback may come in again.
class Turn {
 public:
  explicit Turn(std::recursive_mutex& mutex) : lock_(mutex, std::try_to_lock) {
    if (!lock_.owns_lock()) without_gil([&] { lock_.lock(); });
  }

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

}  // namespace deepseek::python
