// Features computed from tables. Test: tests/python/test_features.py
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "features/define.h"

namespace deepseek::features {

struct ComputeOptions {
  // Rows of the table, in order of time; none: all of them.
  std::optional<std::vector<int32_t>> rows = {};
  // What is known at these times is taken, nothing later: none, one for all rows, or one for each. Nanoseconds, or
  // integers of integer time indices.
  std::vector<int64_t> cutoffs = {};
  bool include_cutoff = true;  // what became known at that very time, too
  // Only rows later than the cut-off minus this, or with later ones that refer to them; 0: all.
  int64_t window = 0;
  // Called now and then with the share that is done; an error stops it.
  std::function<Status(double)> progress = {};
};

// A vector for each of the chosen features, one value per row.
Result<std::vector<Vector>> compute(const Entities& entities, const Definitions& definitions,
                                    const ComputeOptions& options);

}  // namespace deepseek::features
