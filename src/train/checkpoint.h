// Where a training run stands, beside its tensors: kept in the checkpoint's metadata so that a resumed run continues
// with the same bits. Test: tests/train/trainer_test.cc
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "train/schedule.h"

namespace deepseek::train {

using NamedValues = std::vector<std::pair<std::string, double>>;

struct EpochRecord {
  int64_t epoch = 0;  // from 1
  double seconds = 0, learning_rate = 0;
  NamedValues training, validation;  // "loss" and the metrics; validation is empty where there is no such data
};

// What a run was begun with, by name; see resume.h.
using Settings = std::map<std::string, std::string>;

struct Progress {
  int64_t step = 0;       // updates done
  double loss_sum = 0;    // of the running epoch, over the targets that count
  NamedValues term_sums;  // of it, where the loss has several terms: "loss/<term>"
  int64_t seen = 0;       // which the running epoch had so far
  double best = 0;        // of the monitored value, once has_best
  bool has_best = false;
  int64_t skipped = 0;     // updates of the running epoch whose gradients overflowed
  std::string precision;   // "f32", "bf16" or "f16": what the run computes in
  int64_t bad_epochs = 0;  // since the best
  bool stopped_early = false;
  Plateau plateau;
  double epoch_seconds = 0;     // spent in the running epoch before it was interrupted
  std::vector<double> metrics;  // state of the running epoch's metrics
  std::vector<EpochRecord> history;
  Settings settings;  // empty in older files
};

// The tensors, and the progress as metadata and one tensor.
Status save_checkpoint(const std::string& path, std::map<std::string, graph::Tensor> tensors, const Progress& progress);
// Errors: those of load_safetensors; kDataCorrupt for a file without progress or with a damaged one.
Status load_checkpoint(const std::string& path, std::map<std::string, graph::Tensor>& tensors, Progress& progress);

// A line per epoch with a header, for spreadsheets.
std::string history_csv(const std::vector<EpochRecord>& history);

}  // namespace deepseek::train
