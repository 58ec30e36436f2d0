// Values of columns that are compared and hashed, of any type that is not nested. Test: tests/python/test_tables.py
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

// One column. Missing values, null and NaN, equal one another; both zeros are equal.
class Values {
 public:
  // kUnsupported for nested types; `wanted_by` is named in the error.
  static Result<Values> make(const std::string& name, const Column& column, const std::string& wanted_by);
  // Adds the column's hashes to those of the rows.
  void add_hashes(std::vector<uint64_t>& rows) const;
  bool equal(int64_t a, int64_t b) const;

 private:
  std::pair<const Part*, int64_t> find(int64_t row) const;
  bool is_missing(const Part& part, int64_t i) const;
  uint64_t bits(const Part& part, int64_t i) const;
  std::string_view text(const Part& part, int64_t i) const;
  uint64_t hash(const Part& part, int64_t i) const;

  std::vector<Part> parts_;
  arrow::Type::type id_ = arrow::Type::NA;
  int32_t width_ = 0;  // bytes of a value
};

// For each row the number of the first row that equals it in these columns; empty: in all.
Result<std::vector<int64_t>> first_equal(const arrow::Table& table, const std::vector<std::string>& columns,
                                         const std::string& wanted_by);

}  // namespace deepseek::tables
