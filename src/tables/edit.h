// New columns and tables from old ones. Test: tests/python/test_tables.py
#pragma once

#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

// The numeric column with missing values (nulls and NaN) as `value`, in the type `type`, float64 or its own.
Result<Column> fill(const arrow::ChunkedArray& column, double value, const std::shared_ptr<arrow::DataType>& type);
// What lies outside of [low, high] as the nearest bound; missing values stay. Integer columns keep their type, with
// bounds rounded inwards.
Result<Column> clip(const arrow::ChunkedArray& column, double low, double high);
// (x - center) / scale of numbers: f32 of f32, else f64; missing values stay.
Result<Column> scale(const arrow::ChunkedArray& column, double center, double scale);
// A numeric column with nulls where `keep` is 0; values stay where they are in memory.
Result<Column> mask(const arrow::ChunkedArray& column, const std::vector<uint8_t>& keep);
// 1 where a numeric value is missing, or lies outside of [low, high].
std::vector<uint8_t> missing(const arrow::ChunkedArray& column);
std::vector<uint8_t> outside(const arrow::ChunkedArray& column, double low, double high);
int64_t count_outside(const arrow::ChunkedArray& column, double low, double high);
// A column of booleans.
Result<Column> flags(const std::vector<uint8_t>& values);
// Rows of the table where `keep` is not 0.
Result<Table> keep_rows(const Table& table, const std::vector<uint8_t>& keep);

}  // namespace deepseek::tables
