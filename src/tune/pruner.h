// Stops trials that do badly while they run. A pruner is a pure function of the trials. Test: tests/tune/pruner_test.cc
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tune/trial.h"

namespace deepseek::tune {

class Pruner {
 public:
  virtual ~Pruner() = default;
  // Whether `trial`, whose last report is new, should stop there. Reports are of the objective, so `direction` is its.
  virtual bool stops(const Trial& trial, const std::vector<Trial>& trials, Direction direction) const = 0;
  // The paused trial that should go on now, by its number; none where a new one is better.
  virtual std::optional<int64_t> resumes(const std::vector<Trial>& trials, Direction direction) const {
    return std::nullopt;
  }
  // Whether what it stops may go on later.
  virtual bool pauses() const { return false; }
};

// "none"; "median(warmup_steps=0, startup_trials=5)": worse than the median of others' values at the same step;
// "percentile(percentile=25, ...)": not among that share; "asha(min_step=1, factor=3, brackets=1)": at steps min_step *
// factor^k all but the best 1 / factor of those that came there (Li et al., 2020); "hyperband(...)": asha with several
// brackets; "patience(steps=10, min_delta=0)": no better value for so many steps; "threshold(low=, high=)".
Result<std::shared_ptr<Pruner>> make_pruner(const std::string& text);
std::vector<std::string> pruner_names();

}  // namespace deepseek::tune
