// Small CSV files, such as lists of pictures with their labels (RFC 4180); tables to learn from are src/tables'.
// Invariant: every row has as many fields as the header. Test: tests/python/test_images.py
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace deepseek::data {

struct Csv {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<int64_t> lines;  // in the file, of each row, from 1
};

// The separator is the comma, or the tab or semicolon where the first line has those and no comma; empty lines are left
// out. Errors: kNotFound, kIo, kDataCorrupt with the line.
Result<Csv> read_csv(const std::string& path);

}  // namespace deepseek::data
