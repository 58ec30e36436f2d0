// Numeric columns as doubles. Test: tests/tables/statistics_test.cc
#pragma once

#include <limits>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

// f(T()) for the C type of a numeric column.
template <class F>
auto visit_number(arrow::Type::type id, F f) {
  switch (id) {
    case arrow::Type::INT8: return f(int8_t());
    case arrow::Type::INT16: return f(int16_t());
    case arrow::Type::INT32: return f(int32_t());
    case arrow::Type::UINT8: return f(uint8_t());
    case arrow::Type::UINT16: return f(uint16_t());
    case arrow::Type::UINT32: return f(uint32_t());
    case arrow::Type::UINT64: return f(uint64_t());
    case arrow::Type::FLOAT: return f(float());
    case arrow::Type::DOUBLE: return f(double());
    default: return f(int64_t());
  }
}

// Parts as doubles, NaN where a value is missing: in place where memory holds them so, else in a buffer that the next
// load() reuses. Integers beyond 2^53 are rounded.
class Numbers {
 public:
  const double* load(const Part& part) {
    if (part.data->type->id() == arrow::Type::DOUBLE && !part.has_nulls()) return part.values<double>();
    buffer_.resize(static_cast<size_t>(part.length));
    visit_number(part.data->type->id(), [&](auto zero) {
      const auto* x = part.values<decltype(zero)>();
      for (int64_t i = 0; i < part.length; ++i) buffer_[static_cast<size_t>(i)] = static_cast<double>(x[i]);
    });
    part.each_null([&](int64_t i) { buffer_[static_cast<size_t>(i)] = std::numeric_limits<double>::quiet_NaN(); });
    return buffer_.data();
  }

 private:
  std::vector<double> buffer_;
};

}  // namespace deepseek::tables
