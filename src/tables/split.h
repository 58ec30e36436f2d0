// Rows shared out for training, validation and test, so that what is measured is not what was learnt.
// Test: tests/python/test_split.py
#pragma once

#include <string>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

struct SplitOptions {
  std::vector<double> fractions = {0.7, 0.15, 0.15};  // of the rows, above 0, together 1
  // At most one of them. stratify: each value of this column is shared out by the fractions. group: rows of the same
  // value stay together. time: the earliest rows first, without shuffling; rows of the same time stay together.
  std::string stratify, group, time;
  uint64_t seed = 0;
};

// The row numbers of each part, in ascending order (by time: in order of time). Sizes are the fractions of the rows,
// rounded by largest remainder; groups and equal times make them as near as whole groups go. Errors: kInvalidArgument
// where a part would be empty, or a column is missing.
Result<std::vector<std::vector<int64_t>>> split(const arrow::Table& table, const SplitOptions& options);
Result<Table> take(const Table& table, const std::vector<int64_t>& rows);

// Rows of later parts that equal one of an earlier part in all columns, or in those given; `near`: also those that
// differ from one in a single column, of three at least.
struct Leak {
  int part = 0, other = 0;  // the later one, and the earlier one that has such a row
  int64_t rows = 0;         // of the later part
  int64_t near = 0;
};
Result<std::vector<Leak>> leaks(const std::vector<Table>& parts, const std::vector<std::string>& columns,
                                bool near = false);

}  // namespace deepseek::tables
