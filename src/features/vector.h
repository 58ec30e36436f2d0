// What features are computed on: columns of doubles with a type that says what they mean. Test:
// tests/features/vector_test.cc
#pragma once

#include <arrow/api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::features {

// What a value is. Primitives ask for it, so that a mean is not taken of postal codes.
enum class Logical : uint8_t {
  kNone,  // numbers that came out of a primitive
  kInteger,
  kIntegerNullable,
  kDouble,
  kBoolean,
  kBooleanNullable,
  kCategorical,
  kOrdinal,  // categories that are numbers: a weekday
  kDatetime,
  kText,  // natural language
};
// What a column is for.
enum Tag : uint32_t {
  kNumeric = 1,
  kCategory = 2,
  kIndex = 4,
  kTimeIndex = 8,
  kForeignKey = 16,
  kDateOfBirth = 32,
};
struct Schema {
  Logical logical = Logical::kNone;
  uint32_t tags = 0;
  bool operator==(const Schema&) const = default;
};
const char* name_of(Logical logical);

// A column. NaN is missing. Booleans are 0 and 1, categories numbers of `words` or numbers themselves, times
// microseconds since 1970 (UTC). Text has no values here, but `text` and `rows` of it.
struct Vector {
  const double* data = nullptr;
  int64_t size = 0;
  std::shared_ptr<const void> owner;          // of data
  std::shared_ptr<arrow::StringArray> words;  // sorted, each once
  std::shared_ptr<arrow::StringArray> text;
  const int32_t* rows = nullptr;  // of text; null: in order

  double operator[](int64_t i) const { return data[i]; }
};
// A vector that owns new memory, which it lets write through `data`.
Vector make_vector(int64_t size, double*& data);
// values[rows[i]], `missing` where rows[i] < 0.
Vector gather(const Vector& values, const std::vector<int32_t>& rows, double missing);

// Text as numbers of its sorted words, as categories are; other vectors as they are.
Result<Vector> coded(const Vector& vector);

// Categories, booleans, times, numbers of a column; errors name it. Timestamps are cut to microseconds.
Result<Vector> from_arrow(const std::string& name, const tables::Column& column, Logical logical);
// Back: double, int64 of integers and ordinals, bool, dictionary, timestamp[us]; null where a value is missing.
Result<std::shared_ptr<arrow::Array>> to_arrow(const Vector& vector, Logical logical);

}  // namespace deepseek::features
