// Tables as what models take: columns of numbers as one matrix of f32. Test: tests/tables/table_source_test.cc
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "graph/tensor.h"
#include "tables/arrow.h"

namespace deepseek::tables {

// Names a row of a table in messages: "row 17 of 'a.csv'".
using NameRow = std::function<std::string(int64_t row)>;

// Columns in plain types: dictionaries as their values, text as strings.
Result<Table> plain(const Table& table);
// Integers and decimals as doubles, which new data may be as well; half floats as floats.
Result<Table> as_reals(const Table& table);

// f32 [rows, columns], numbers rounded once, booleans 0 or 1. Errors: a column of another type, a value that is missing
// or not finite, each with the step of pipelines that helps.
Result<graph::Tensor> to_matrix(const arrow::Table& table, const NameRow& name_row);

}  // namespace deepseek::tables
