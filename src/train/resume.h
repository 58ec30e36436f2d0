// What a run must keep when it is resumed: another batch size, seed or data would neither continue it nor be a run of
// its own. Test: tests/train/run_folder_test.cc
#pragma once

#include <string>
#include <vector>

#include "data/dataset.h"
#include "train/checkpoint.h"
#include "train/run_options.h"

namespace deepseek::train {

// The settings that decide what a run computes, by their keys in a config, and what tells its data from others. How
// long, how fast and where to (epochs, patience, threads, memory, ...) is not among them.
Result<Settings> run_settings(const TrainerOptions& options, const data::Dataset& train,
                              const data::Dataset* validation, const std::vector<std::string>& metrics,
                              const std::string& monitor, bool own_loss);

// "288 samples x f32[1,28,28] -> y i64[], checksum 1c291ca3"; "none" for nullptr.
Result<std::string> fingerprint(const data::Dataset* dataset);

struct SettingChanges {
  std::vector<std::string> refused, allowed;  // "train.batch_size: 32 when the run began, 64 now"
};
// A user may want another rate halfway: settings of optimizer (its name apart) and schedule are allowed to change. What
// an older checkpoint does not know is not compared.
SettingChanges compare_settings(const Settings& begun, const Settings& now);

}  // namespace deepseek::train
