// A step of a pipeline: options, what it learns from training data, and the same transform everywhere after that.
// Test: tests/python/test_tables.py
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/options.h"
#include "tables/source.h"
#include "tables/sql.h"

namespace deepseek::tables {

// Where the rows of a table come from: training data, of which the first one has this number, or others.
struct Origin {
  bool training = false;
  int64_t first = 0;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual std::string kind() const = 0;
  // The columns to be predicted, as far as they are known. They are not there where a model is served, so no step changes
  // them unless its options name them.
  std::vector<std::string> targets;
  // The one of them where there is one alone, else empty: then options say which is meant.
  std::string target() const { return targets.size() == 1 ? targets[0] : std::string(); }
  virtual void describe(OptionTable& options) = 0;
  // Learns from training data. Errors name the column and what was expected of it.
  virtual Status fit(const Source& source) = 0;
  // After fit() or set_state(). Steps that leave out rows do so only from the training data that fit() saw: what comes
  // to be served keeps all its rows.
  virtual Result<Table> transform(const Table& table, Origin origin) const = 0;
  // The expressions of columns that the step changes or adds, over those before it; an error where SQL has none.
  virtual Result<SqlColumns> sql(const Sql& sql, const arrow::Schema& before) const;
  // What was learnt, and back; numbers keep every bit.
  virtual nlohmann::json state() const = 0;
  virtual Status set_state(const nlohmann::json& state) = 0;
  // What fit() found, a line each, for people.
  virtual std::vector<std::string> notes() const { return {}; }
};

struct StepInfo {
  std::string kind, doc;
  std::unique_ptr<Step> (*make)();
};
const std::vector<StepInfo>& steps();
Result<std::unique_ptr<Step>> make_step(const std::string& kind);

// One entry per file.
std::unique_ptr<Step> make_impute();
std::unique_ptr<Step> make_outliers();
std::unique_ptr<Step> make_duplicates();
std::unique_ptr<Step> make_constant();
std::unique_ptr<Step> make_scale();
std::unique_ptr<Step> make_ordinal();
std::unique_ptr<Step> make_one_hot();
std::unique_ptr<Step> make_target();
std::unique_ptr<Step> make_hashing();
std::unique_ptr<Step> make_dates();
std::unique_ptr<Step> make_interactions();
std::unique_ptr<Step> make_select();
std::unique_ptr<Step> make_types();
std::unique_ptr<Step> make_text();
std::unique_ptr<Step> make_leakage();

// A double that may be infinite or NaN, which JSON has no numbers for.
nlohmann::json number_to_json(double value);
double number_from_json(const nlohmann::json& value);
// Two numbers by column.
using Pairs = std::map<std::string, std::pair<double, double>>;
nlohmann::json pairs_to_json(const Pairs& pairs);
Pairs pairs_from_json(const nlohmann::json& json);

}  // namespace deepseek::tables
