// Rows that equal an earlier one.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tables/edit.h"
#include "tables/step.h"
#include "tables/values.h"

namespace deepseek::tables {

namespace {

class Duplicates : public Step {
 public:
  std::string kind() const override { return "duplicates"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "rows are equal if these are; empty: all. The first of equal rows stays"});
  }
  Status fit(const Source& source) override {
    DS_ASSIGN(const Table table, whole_table(source, kind()));
    DS_ASSIGN(keep_, first_of_equals(*table));
    rows_ = static_cast<int64_t>(keep_.size());
    found_ = std::count(keep_.begin(), keep_.end(), 0);
    return {};
  }
  Result<Table> transform(const Table& table, Origin origin) const override {
    return !origin.training || found_ == 0 ? table : keep_rows(table, keep_);
  }
  Result<SqlColumns> sql(const Sql&, const arrow::Schema&) const override { return SqlColumns(); }
  nlohmann::json state() const override { return nlohmann::json::object(); }
  Status set_state(const nlohmann::json&) override { return {}; }
  std::vector<std::string> notes() const override {
    if (found_ == 0) return {};
    return {fmt::format("{} of {} rows equal an earlier one, left out", found_, rows_)};
  }

 private:
  Result<std::vector<uint8_t>> first_of_equals(const arrow::Table& table) const {
    DS_ASSIGN(const std::vector<int64_t> first, first_equal(table, columns_, "duplicates"));
    std::vector<uint8_t> keep(first.size());
    for (size_t row = 0; row < keep.size(); ++row) keep[row] = first[row] == static_cast<int64_t>(row);
    return keep;
  }

  std::vector<std::string> columns_;
  std::vector<uint8_t> keep_;  // of the rows of training data
  int64_t rows_ = 0, found_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_duplicates() { return std::make_unique<Duplicates>(); }

}  // namespace deepseek::tables
