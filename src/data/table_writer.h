// Tables written to a file part by part, such as predictions: JSON lines here, every other format by the library of tables
// where it can be loaded. Test: tests/predict/predictor_test.cc, tests/python/test_predict.py
#pragma once

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"

namespace deepseek::data {

struct TableColumn {
  std::string name;
  std::variant<std::vector<std::string>, std::vector<int64_t>, std::vector<float>, std::vector<double>> values;
};
using TablePart = std::vector<TableColumn>;  // columns of one length; every part has the same names and types
using WritePart = std::function<Status(const TablePart&)>;

// By the file's suffix: .jsonl or .ndjson, else as tables::write_tables() (.csv, .tsv, .parquet, .arrow). The file
// appears whole or not at all. Numbers that are not finite are null in JSON. Errors: kInvalidArgument, kIo; kUnsupported
// where the library of tables can't be loaded; what `produce` returns.
Status write_table(const std::string& path, const std::function<Status(const WritePart&)>& produce);

// What the library of tables registers.
using TableWriter = std::function<Status(const std::string&, const std::function<Status(const WritePart&)>&)>;
void register_table_writer(TableWriter writer);

}  // namespace deepseek::data
