// What data::write_table() writes with: parts of a table in a file of any format that tables are written in.
// Test: tests/python/test_predict.py
#pragma once

#include "data/table_writer.h"

namespace deepseek::tables {

Status write_parts(const std::string& path, const std::function<Status(const data::WritePart&)>& produce);

}  // namespace deepseek::tables
