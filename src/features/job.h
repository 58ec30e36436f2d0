// What `deepseek data features` does with files: a synthesis fitted or loaded, applied to tables, and saved.
// Test: tests/python/test_features.py
#pragma once

#include <string>
#include <vector>

#include "tables/jobs.h"

namespace deepseek::features {

struct SynthesisJob {
  std::string description;              // YAML, or a fitted synthesis, .json
  std::string output, save;             // the features and the fitted synthesis, where they are wanted
  std::string cutoff;                   // a time; nothing later is seen
  std::string instances;                // a table of the rows wanted, and perhaps each one's cutoff_time
  std::vector<std::string> files = {};  // table=file, where the description doesn't say
  bool estimate = false;                // tell what it takes, and stop
};
Status synthesize_files(const SynthesisJob& job, const tables::FileOptions& options, const tables::JobHooks& hooks);

// What features are made with, a line each.
std::string primitives_text();

}  // namespace deepseek::features
