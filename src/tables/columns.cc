#include "tables/columns.h"

#include <arrow/compute/initialize.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace deepseek::tables {

Result<arrow::Datum> call(const std::string& function, const std::vector<arrow::Datum>& args,
                          const arrow::compute::FunctionOptions* options) {
  static const arrow::Status started = arrow::compute::Initialize();
  DS_ARROW(started);
  return from_arrow(arrow::compute::CallFunction(function, args, options));
}

Result<Column> map_column(const std::string& function, const Column& column,
                          const arrow::compute::FunctionOptions* options) {
  DS_ASSIGN(const arrow::Datum result, call(function, {arrow::Datum(column)}, options));
  return result.chunked_array();
}

Result<std::vector<int>> chosen(const arrow::Schema& schema, const std::vector<std::string>& names, const Step& step,
                                bool (*takes)(const arrow::DataType&), const std::string& expected) {
  std::vector<int> columns;
  for (const std::string& name : names) {
    DS_ASSIGN(const int column, find_column(schema, name, step.kind() + ": columns"));
    if (!takes(*schema.field(column)->type()))
      return invalid("{}: column '{}' is {}, expected {}", step.kind(), name, schema.field(column)->type()->ToString(),
                     expected);
    columns.push_back(column);
  }
  for (int c = 0; c < schema.num_fields() && names.empty(); ++c)
    if (std::find(step.targets.begin(), step.targets.end(), schema.field(c)->name()) == step.targets.end() &&
        takes(*schema.field(c)->type()))
      columns.push_back(c);
  return columns;
}

Result<Column> cast_column(const Column& column, const std::shared_ptr<arrow::DataType>& type) {
  const auto options = arrow::compute::CastOptions::Safe(type);
  return map_column("cast", column, &options);
}

bool holds_text(const arrow::DataType& type) {
  return type.id() == arrow::Type::STRING || type.id() == arrow::Type::LARGE_STRING;
}

Result<Column> as_text(const Column& column) {
  if (column->type()->id() == arrow::Type::STRING) return column;
  return cast_column(column, arrow::utf8());
}

bool takes_all(const arrow::DataType&) { return true; }

Result<Table> set_column(const Table& table, int column, const Column& values) {
  return from_arrow(table->SetColumn(column, table->field(column)->WithType(values->type()), values));
}

Result<Table> add_column(const Table& table, const std::string& name, const Column& values, const std::string& step) {
  if (!table->schema()->GetAllFieldIndices(name).empty())
    return invalid("{}: the column '{}' that it makes is there already; rename it", step, name);
  return from_arrow(table->AddColumn(table->num_columns(), arrow::field(name, values->type()), values));
}

Result<Table> LeavesOut::transform(const Table& table, Origin) const {
  Table result = table;
  for (const std::string& name : left_out_) {
    DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
    DS_ARROW_ASSIGN(result, result->RemoveColumn(c));
  }
  return result;
}

nlohmann::json LeavesOut::state() const { return {{"left_out", left_out_}}; }

Status LeavesOut::set_state(const nlohmann::json& state) {
  left_out_ = state.at("left_out").get<std::vector<std::string>>();
  return {};
}

}  // namespace deepseek::tables
