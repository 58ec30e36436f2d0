// Reading all samples of a data set part by part, for those who look at each. Test: tests/data/dataset_test.cc
#pragma once

#include "data/dataset.h"

namespace deepseek::data {

// How many samples of these fields take 16 MiB; at least one. Axes that vary count as one element.
int64_t samples_per_part(const std::vector<const Field*>& fields);

// begin, begin + 1, ..., end - 1.
std::vector<int64_t> rows_between(int64_t begin, int64_t end);

}  // namespace deepseek::data
