// Fitted pipelines as SQL, for engines that hold tables which no single machine does. Test: tests/python/test_sql.py
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "tables/arrow.h"

namespace deepseek::tables {

enum class Dialect { kDuckDb, kSpark };
Result<Dialect> parse_dialect(std::string_view name);  // duckdb, spark

// What dialects write differently.
class Sql {
 public:
  explicit Sql(Dialect dialect) : dialect_(dialect) {}
  Dialect dialect() const { return dialect_; }
  std::string name(const std::string& column) const;  // quoted
  std::string text(const std::string& value) const;   // a literal
  std::string real(double value) const;               // a double of these very bits
  Result<std::string> literal(const arrow::Scalar& value) const;
  Result<std::string> type(const arrow::DataType& type) const;
  // Null where the value is missing: NaN of floats, too.
  std::string present(const std::string& column, const arrow::DataType& type) const;
  std::string is_missing(const std::string& column, const arrow::DataType& type) const;
  // The column as `type`, a double by default.
  std::string as_double(const std::string& column) const { return "CAST(" + name(column) + " AS DOUBLE)"; }

 private:
  Dialect dialect_;
};

// Expressions of columns by name, over the columns before a step.
using SqlColumns = std::map<std::string, std::string>;

}  // namespace deepseek::tables
