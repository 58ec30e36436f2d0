// Arrow's errors as ours, and the columns of its tables as runs of contiguous memory.
// Test: tests/tables/files_test.cc
#pragma once

#include <arrow/api.h>

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace deepseek::tables {

using Table = std::shared_ptr<arrow::Table>;
using Column = std::shared_ptr<arrow::ChunkedArray>;

Status from_arrow(const arrow::Status& status);
template <class T>
Result<T> from_arrow(arrow::Result<T> result) {
  if (!result.ok()) return from_arrow(result.status());
  return std::move(result).ValueUnsafe();
}

// A contiguous part of a column.
struct Part {
  std::shared_ptr<arrow::ArrayData> data;
  int64_t begin = 0;  // the row of the column that it begins with
  int64_t length = 0;

  template <class T>
  const T* values() const {
    return data->GetValues<T>(1);
  }
  bool has_nulls() const { return data->GetNullCount() > 0; }
  bool valid(int64_t i) const {
    const auto* bits = data->buffers[0] ? data->buffers[0]->data() : nullptr;
    return bits == nullptr || ((bits[(i + data->offset) >> 3] >> ((i + data->offset) & 7)) & 1) != 0;
  }
  // f(i) for each null, in order; eight values that are all there take one look.
  template <class F>
  void each_null(F f) const {
    if (!has_nulls()) return;
    const uint8_t* const bits = data->buffers[0]->data();
    for (int64_t i = 0; i < length;) {
      const int64_t at = i + data->offset;
      if (at % 8 == 0 && i + 8 <= length && bits[at >> 3] == 0xff) {
        i += 8;
        continue;
      }
      if (((bits[at >> 3] >> (at & 7)) & 1) == 0) f(i);
      ++i;
    }
  }
};
// The column in parts of at most `most` rows, in order. What a part begins with depends on the column alone, so that
// results do not depend on the number of threads.
std::vector<Part> parts_of(const arrow::ChunkedArray& column, int64_t most = 1 << 16);

bool holds_numbers(const arrow::DataType& type);  // integers and floats

// The name of a type as Arrow prints it, and the type of such a name: bool, int8 ... uint64, float, double, string,
// date32[day], timestamp[us] and so on; the inverse knows what read_table() can make.
Result<std::shared_ptr<arrow::DataType>> type_of_name(const std::string& name);

// "expected one of a, b, c" with the nearest name, for columns that are not there.
std::string known_columns(const arrow::Schema& schema, const std::string& name);
// The column's number, or an error that names it and the step or option that wants it.
Result<int> find_column(const arrow::Schema& schema, const std::string& name, const std::string& wanted_by);

}  // namespace deepseek::tables

// DS_ARROW(status) returns an Arrow error from the enclosing function as ours.
#define DS_ARROW(expr) DS_TRY(::deepseek::tables::from_arrow(expr))
#define DS_ARROW_ASSIGN(decl, expr) DS_ASSIGN(decl, ::deepseek::tables::from_arrow(expr))
