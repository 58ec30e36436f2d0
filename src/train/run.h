// A run from a config: opens data, makes the model, trains, tests, draws; and what a finished run folder gives back.
// Test: tests/train/trainer_test.cc
#pragma once

#include <optional>
#include <string>

#include "data/sources.h"
#include "train/trainer.h"

namespace deepseek::train {

struct RunResult {
  FitResult fit;
  std::optional<Evaluation> test;  // of the best weights, where there are test data and the run was not interrupted
};

// Trains as Trainer::fit does, then writes test.txt, loss.png, a chart per metric, and confusion.png for classes
// (confusion-<target>.png where several targets have classes).
Result<RunResult> run_training(const RunOptions& options, bool resume, const Hooks& hooks);

// A run folder's model with its best weights, and its data.
struct TrainedRun {
  nn::ModulePtr model;
  RunOptions options;
  data::Splits data;
};
Result<TrainedRun> load_run(const std::string& folder);

// The validation value that picks a run's best checkpoint: "loss" or a metric.
Result<std::string> monitored_value(const RunOptions& options);

// The compiled training step of a config: what `deepseek explain` shows.
// `observe` sees the passes that its graph goes through.
Result<std::shared_ptr<const runtime::Program>> training_program(const RunOptions& options,
                                                                 passes::PassObserver observe = {});

// Where the time of a config's training step goes: what `deepseek profile` shows.
Result<explain::StepProfile> profile_training(const RunOptions& options, const explain::ProfileOptions& how);

}  // namespace deepseek::train
