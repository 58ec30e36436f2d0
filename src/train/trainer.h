// One run from config to trained model: data, step program, schedule, validation, checkpoints, resume, run folder.
// Test: tests/train/trainer_test.cc
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/sources.h"
#include "train/run_options.h"

namespace deepseek::train {

struct Evaluation {
  double loss = 0, accuracy = 0;
  int64_t classes = 0;
  std::vector<int64_t> confusion;  // [true * classes + predicted]
};

struct EpochRecord {
  int64_t epoch;
  double train_loss, train_accuracy, validation_loss, validation_accuracy, seconds;
};

struct RunResult {
  std::vector<EpochRecord> history;
  Evaluation test;
  bool interrupted = false;
};

struct RunHooks {
  std::function<void(const std::string&)> message;  // lines for the user
  std::function<bool(int64_t step, int64_t total, const std::string&)>
      progress;  // false asks to stop: the run saves first
};

// Writes config.yaml, history.csv, TensorBoard events, last.safetensors, best.safetensors, loss.png, accuracy.png and
// confusion.png into options.train.output. With `resume`, continues
// from last.safetensors bit-exactly on the same kind of machine; the result equals an uninterrupted run's.
Result<RunResult> run_training(RunOptions options, bool resume, const RunHooks& hooks);

// The model of a run folder with its best weights, and class names.
struct TrainedModel {
  nn::ModulePtr model;
  RunOptions options;
  data::Splits data;
};
Result<TrainedModel> load_run(const std::string& folder);

// The compiled training step of a config: what `deepseek explain` shows.
Result<std::shared_ptr<const runtime::Program>> training_program(const RunOptions& options);

Result<Evaluation> evaluate(nn::Module& model, const data::Dataset& dataset, int64_t batch_size,
                            const StepOptions& step);

}  // namespace deepseek::train
