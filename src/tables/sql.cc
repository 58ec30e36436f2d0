#include "tables/sql.h"

#include <cmath>

#include "tables/columns.h"
#include "tables/pipeline.h"

namespace deepseek::tables {

namespace {

std::string doubled(const std::string& text, char quote) {
  std::string out(1, quote);
  for (const char c : text) {
    out += c;
    if (c == quote) out += c;
  }
  return out + quote;
}

}  // namespace

Result<Dialect> parse_dialect(std::string_view name) {
  if (name == "duckdb") return Dialect::kDuckDb;
  if (name == "spark") return Dialect::kSpark;
  return invalid("dialect: expected duckdb or spark, got '{}'", name);
}

std::string Sql::name(const std::string& column) const {
  return doubled(column, dialect_ == Dialect::kSpark ? '`' : '"');
}

std::string Sql::text(const std::string& value) const {
  if (dialect_ == Dialect::kDuckDb) return doubled(value, '\'');
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string Sql::real(double value) const {
  const std::string digits = std::isfinite(value) ? fmt::format("{}", value)
                             : std::isnan(value)  ? "NaN"
                             : value > 0          ? "Infinity"
                                                  : "-Infinity";
  return "CAST('" + digits + "' AS DOUBLE)";
}

Result<std::string> Sql::type(const arrow::DataType& type) const {
  const bool spark = dialect_ == Dialect::kSpark;
  switch (type.id()) {
    case arrow::Type::BOOL: return std::string("BOOLEAN");
    case arrow::Type::INT8: return std::string("TINYINT");
    case arrow::Type::INT16: return std::string("SMALLINT");
    case arrow::Type::INT32: return std::string(spark ? "INT" : "INTEGER");
    case arrow::Type::INT64: return std::string("BIGINT");
    case arrow::Type::FLOAT: return std::string("FLOAT");
    case arrow::Type::DOUBLE: return std::string("DOUBLE");
    case arrow::Type::STRING:
    case arrow::Type::LARGE_STRING: return std::string(spark ? "STRING" : "VARCHAR");
    case arrow::Type::DATE32: return std::string("DATE");
    case arrow::Type::TIMESTAMP: return std::string(spark ? "TIMESTAMP_NTZ" : "TIMESTAMP");
    default: return Status(ErrorCode::kUnsupported, fmt::format("SQL: there is no type for {}", type.ToString()));
  }
}

Result<std::string> Sql::literal(const arrow::Scalar& value) const {
  DS_ASSIGN(const std::string name, type(*value.type));
  if (!value.is_valid) return "CAST(NULL AS " + name + ")";
  return "CAST(" + text(value.ToString()) + " AS " + name + ")";
}

std::string Sql::present(const std::string& column, const arrow::DataType& type) const {
  if (!arrow::is_floating(type.id())) return name(column);
  return fmt::format("CASE WHEN isnan({0}) THEN NULL ELSE {0} END", name(column));
}

std::string Sql::is_missing(const std::string& column, const arrow::DataType& type) const {
  if (!arrow::is_floating(type.id())) return name(column) + " IS NULL";
  return fmt::format("({0} IS NULL OR isnan({0}))", name(column));
}

Result<SqlColumns> Step::sql(const Sql&, const arrow::Schema&) const {
  return Status(
      ErrorCode::kUnsupported,
      fmt::format("SQL: the step {} has no counterpart in SQL; run the pipeline itself, or leave the step out",
                  kind()));
}

Result<std::string> Pipeline::to_sql(const std::string& dialect, const std::string& from) const {
  if (!fitted_) return invalid("the pipeline is not fitted yet; call fit() or load one");
  DS_ASSIGN(const Dialect which, parse_dialect(dialect));
  const Sql sql(which);
  // What columns there are after each step, an empty table tells.
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (const Input& input : inputs_) {
    if (is_target(input.name)) continue;  // which is not there where a model is served
    DS_ASSIGN(const auto type, type_of_name(input.type));
    fields.push_back(arrow::field(input.name, type));
  }
  DS_ARROW_ASSIGN(Table table, arrow::Table::MakeEmpty(arrow::schema(fields)));
  const auto list = [&](const arrow::Schema& schema, const SqlColumns& changed) {
    std::string text;
    for (const auto& field : schema.fields()) {
      const auto found = changed.find(field->name());
      text += (text.empty() ? "  " : ",\n  ") +
              (found == changed.end() ? sql.name(field->name()) : found->second + " AS " + sql.name(field->name()));
    }
    return text;
  };
  std::string text = "WITH step_0 AS (\n  SELECT\n" + list(*table->schema(), {}) + "\n  FROM " + from + "\n)";
  size_t number = 0;
  for (const auto& step : steps_) {
    DS_ASSIGN(const Table after, step->transform(table, {}));  // checks that its columns are there
    DS_ASSIGN(const SqlColumns changed, step->sql(sql, *table->schema()));
    if (!changed.empty() || !after->schema()->Equals(*table->schema())) {
      text += fmt::format(",\nstep_{} AS (  -- {}\n  SELECT\n{}\n  FROM step_{}\n)", number + 1, step->kind(),
                          list(*after->schema(), changed), number);
      ++number;
    }
    table = after;
  }
  return text + fmt::format("\nSELECT * FROM step_{}\n", number);
}

}  // namespace deepseek::tables
