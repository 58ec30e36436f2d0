// What steps share: Arrow's functions, and columns of a table chosen, replaced and added.
// Test: tests/python/test_tables.py
#pragma once

#include <arrow/compute/api.h>

#include <string>
#include <vector>

#include "tables/arrow.h"
#include "tables/step.h"

namespace deepseek::tables {

// One of Arrow's functions (https://arrow.apache.org/docs/cpp/compute.html).
Result<arrow::Datum> call(const std::string& function, const std::vector<arrow::Datum>& args,
                          const arrow::compute::FunctionOptions* options = nullptr);
// The same of one column, to a column.
Result<Column> map_column(const std::string& function, const Column& column,
                          const arrow::compute::FunctionOptions* options = nullptr);

// Without loss, or an error that says which value has no such.
Result<Column> cast_column(const Column& column, const std::shared_ptr<arrow::DataType>& type);
bool holds_text(const arrow::DataType& type);  // strings, of any offsets
// Text of any kind, or what has text, as plain strings (arrow::StringArray).
Result<Column> as_text(const Column& column);

// The columns that a step works on: those named by its option, which must be there and be taken, or all that are taken
// but the targets. `expected` says in the error what is: "numbers".
Result<std::vector<int>> chosen(const arrow::Schema& schema, const std::vector<std::string>& names, const Step& step,
                                bool (*takes)(const arrow::DataType&), const std::string& expected);
bool takes_all(const arrow::DataType& type);

Result<Table> set_column(const Table& table, int column, const Column& values);
// At the end; an error where the name is there already.
Result<Table> add_column(const Table& table, const std::string& name, const Column& values, const std::string& step);

// A step that leaves out columns, which fit() finds.
class LeavesOut : public Step {
 public:
  Result<Table> transform(const Table& table, Origin origin) const override;
  Result<SqlColumns> sql(const Sql&, const arrow::Schema&) const override { return SqlColumns(); }
  nlohmann::json state() const override;
  Status set_state(const nlohmann::json& state) override;
  std::vector<std::string> notes() const override { return notes_; }

 protected:
  std::vector<std::string> left_out_, notes_;
};

}  // namespace deepseek::tables
