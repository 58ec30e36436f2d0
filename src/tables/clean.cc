// Basic cleaning: missing values, outliers, constant columns.
#include <arrow/compute/api.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "tables/columns.h"
#include "tables/edit.h"
#include "tables/statistics.h"
#include "tables/step.h"

namespace deepseek::tables {

namespace {

using Json = nlohmann::json;

// The most frequent value, the least of them if there are several; null where nothing is there.
Result<std::shared_ptr<arrow::Scalar>> mode_of(const std::map<std::string, int64_t>& counts,
                                               const std::shared_ptr<arrow::DataType>& type) {
  const auto plain =
      type->id() == arrow::Type::DICTIONARY ? static_cast<const arrow::DictionaryType&>(*type).value_type() : type;
  std::shared_ptr<arrow::Scalar> best = arrow::MakeNullScalar(plain);
  int64_t most = 0;
  for (const auto& [word, n] : counts) {
    if (n < most) continue;
    DS_ARROW_ASSIGN(const std::shared_ptr<arrow::Scalar> value, arrow::Scalar::Parse(plain, word));
    if (n == most) {
      DS_ASSIGN(const arrow::Datum less, call("less", {arrow::Datum(value), arrow::Datum(best)}));
      if (!less.scalar_as<arrow::BooleanScalar>().value) continue;
    }
    most = n;
    best = value;
  }
  return best;
}

double as_double(const arrow::Scalar& scalar) {
  const auto cast = scalar.CastTo(arrow::float64());
  return cast.ok() && (*cast)->is_valid ? std::static_pointer_cast<arrow::DoubleScalar>(*cast)->value
                                        : std::numeric_limits<double>::quiet_NaN();
}

class Impute : public Step {
 public:
  std::string kind() const override { return "impute"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all"});
    t.field("strategy", strategy_,
            {.doc = "what missing numbers (nulls and NaN) become",
             .choices = {"median", "mean", "mode", "constant", "forward", "none"}});
    t.field("other", other_,
            {.doc = "the same for columns that are not numbers", .choices = {"mode", "constant", "forward", "none"}});
    t.field("value", value_, {.doc = "of `constant`, read as the column's type"});
    t.field("flag", flag_, {.doc = "adds a column <name>_missing of booleans for each column that has missing values"});
  }

  Status fit(const Source& source) override {
    filled_.clear();
    notes_.clear();
    const arrow::Schema& schema = source.schema();
    DS_ASSIGN(const std::vector<int> columns, chosen(schema, columns_, *this, takes_all, "any"));
    std::map<std::string, std::vector<int>> by_strategy;
    std::map<int, Filled> filled;
    std::map<int, int64_t> missing;
    for (const int c : columns) {
      const auto& type = schema.field(c)->type();
      Filled f{holds_numbers(*type) ? strategy_ : other_, type, arrow::MakeNullScalar(type), false};
      if (f.strategy == "none") continue;
      by_strategy[f.strategy].push_back(c);
      filled[c] = std::move(f);
    }
    for (const auto& [strategy, list] : by_strategy) {
      std::vector<int64_t> counts;
      if (strategy == "median") {
        DS_ASSIGN(const auto medians, quantiles(source, list, {0.5}, {}, &counts));
        for (size_t i = 0; i < list.size(); ++i) DS_TRY(set_number(filled[list[i]], medians[i][0]));
      } else if (strategy == "mean") {
        DS_ASSIGN(const std::vector<Moments> all, moments(source, list));
        for (size_t i = 0; i < list.size(); ++i) {
          counts.push_back(all[i].missing);
          DS_TRY(
              set_number(filled[list[i]], all[i].count > 0 ? all[i].mean : std::numeric_limits<double>::quiet_NaN()));
        }
      } else {
        DS_ASSIGN(counts, missing_counts(source, list));
      }
      if (strategy == "forward") DS_TRY(whole_table(source, "impute: forward").status());
      if (strategy == "mode") {
        DS_ASSIGN(const auto values, value_counts(source, list));
        for (size_t i = 0; i < list.size(); ++i) {
          DS_ASSIGN(filled[list[i]].value, mode_of(values[i], filled[list[i]].type));
        }
      }
      for (size_t i = 0; i < list.size(); ++i) missing[list[i]] = counts[i];
    }
    DS_ASSIGN(const int64_t rows, count_rows(source));
    for (auto& [c, f] : filled) {
      const std::string& name = schema.field(c)->name();
      if (f.strategy == "constant") {
        auto parsed = arrow::Scalar::Parse(f.type, value_);
        if (!parsed.ok())
          return invalid("impute: value: '{}' is no {}, which column '{}' is", value_, f.type->ToString(), name);
        f.value = *parsed;
      }
      if (f.strategy != "forward" && !f.value->is_valid && missing[c] > 0)
        return invalid(
            "impute: column '{}' has no value at all, so no {}; leave it out by the step constant, or use the strategy "
            "constant",
            name, f.strategy);
      f.flag = flag_ && missing[c] > 0;
      if (missing[c] > 0)
        notes_.push_back(fmt::format("{}: {} of {} missing, {} {}", name, missing[c], rows, f.strategy,
                                     f.value->is_valid ? f.value->ToString() : ""));
      filled_[name] = std::move(f);
    }
    return {};
  }

  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, f] : filled_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      const Column column = result->column(c);
      if (f.flag) {
        DS_ASSIGN(const Column marks, flags(missing(*column)));
        DS_ASSIGN(result, add_column(result, name + "_missing", marks, kind()));
      }
      DS_ASSIGN(const Column values, replaced(name, column, f));
      DS_ASSIGN(result, set_column(result, c, values));
    }
    return result;
  }

  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema& before) const override {
    SqlColumns columns;
    for (const auto& [name, f] : filled_) {
      const arrow::DataType& type = *before.GetFieldByName(name)->type();
      if (f.flag) columns[name + "_missing"] = sql.is_missing(name, type);
      if (f.strategy == "forward")
        return Status(ErrorCode::kUnsupported,
                      "SQL: impute: forward needs an order of rows, which tables in SQL don't have");
      if (!f.value->is_valid) continue;
      DS_ASSIGN(const std::string value, sql.literal(*f.value));
      DS_ASSIGN(const std::string as, sql.type(*f.type));
      columns[name] = fmt::format("COALESCE(CAST({} AS {}), {})", sql.present(name, type), as, value);
    }
    return columns;
  }
  Json state() const override {
    Json columns = Json::object();
    for (const auto& [name, f] : filled_) {
      Json& to = columns[name];
      to["strategy"] = f.strategy;
      to["type"] = f.type->ToString();
      to["flag"] = f.flag;
      if (holds_numbers(*f.type) && f.value->is_valid)
        to["value"] = number_to_json(as_double(*f.value));
      else if (f.value->is_valid)
        to["value"] = f.value->ToString();
    }
    return {{"columns", columns}};
  }
  Status set_state(const Json& state) override {
    filled_.clear();
    for (const auto& [name, from] : state.at("columns").items()) {
      Filled f;
      f.strategy = from.at("strategy").get<std::string>();
      f.flag = from.at("flag").get<bool>();
      DS_ASSIGN(f.type, type_of_name(from.at("type").get<std::string>()));
      f.value = arrow::MakeNullScalar(f.type);
      if (from.contains("value")) {
        if (holds_numbers(*f.type)) {
          DS_ARROW_ASSIGN(f.value, arrow::MakeScalar(number_from_json(from.at("value")))->CastTo(f.type));
        } else {
          DS_ARROW_ASSIGN(f.value, arrow::Scalar::Parse(f.type, from.at("value").get<std::string>()));
        }
      }
      filled_[name] = std::move(f);
    }
    return {};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Filled {
    std::string strategy;
    std::shared_ptr<arrow::DataType> type;  // of the result
    std::shared_ptr<arrow::Scalar> value;
    bool flag = false;
  };

  // Integers stay integers where the value is one, which training data decides for good.
  static Status set_number(Filled& f, double value) {
    if (value != std::floor(value) && arrow::is_integer(f.type->id())) f.type = arrow::float64();
    f.value = arrow::MakeNullScalar(f.type);
    if (std::isnan(value)) return {};
    DS_ARROW_ASSIGN(f.value, arrow::MakeScalar(value)->CastTo(f.type));
    return {};
  }

  Result<Column> replaced(const std::string& name, const Column& column, const Filled& f) const {
    if (f.strategy == "forward") {
      Column source = column;
      if (holds_numbers(*column->type())) {
        std::vector<uint8_t> keep = missing(*column);
        for (uint8_t& k : keep) k = k == 0;
        DS_ASSIGN(source, mask(*column, keep));
      }
      return map_column("fill_null_forward", source);
    }
    if (!f.value->is_valid) return column;
    const bool numeric = holds_numbers(*column->type());
    if (!f.type->Equals(column->type()) && !(numeric && f.type->id() == arrow::Type::DOUBLE))
      return invalid("impute: column '{}' is {}, expected {}", name, column->type()->ToString(), f.type->ToString());
    if (numeric) return fill(*column, as_double(*f.value), f.type);
    DS_ASSIGN(const arrow::Datum filled, call("coalesce", {arrow::Datum(column), arrow::Datum(f.value)}));
    return filled.chunked_array();
  }

  std::vector<std::string> columns_;
  std::string strategy_ = "median", other_ = "mode", value_ = "0";
  bool flag_ = false;
  std::map<std::string, Filled> filled_;
  std::vector<std::string> notes_;
};

class Outliers : public Step {
 public:
  std::string kind() const override { return "outliers"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all numbers"});
    t.field("method", method_,
            {.doc = "sigma: mean +- factor standard deviations (n - 1); mad: median +- factor * 1.4826 median "
                    "absolute deviations; iqr: quartiles -+ factor * their distance",
             .choices = {"sigma", "mad", "iqr"}});
    t.field("factor", factor_, {.doc = "0: 3 for sigma, 3.5 for mad, 1.5 for iqr", .min = 0});
    t.field("action", action_,
            {.doc = "clip to the bounds, make null, leave out the row (of training data only), or add a column "
                    "<name>_outlier of booleans",
             .choices = {"clip", "null", "drop", "flag"}});
  }

  Status fit(const Source& source) override {
    bounds_.clear();
    notes_.clear();
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, holds_numbers, "numbers"));
    const double factor = factor_ > 0 ? factor_ : method_ == "sigma" ? 3 : method_ == "mad" ? 3.5 : 1.5;
    std::vector<std::pair<double, double>> bounds;
    if (method_ == "sigma") {
      DS_ASSIGN(const std::vector<Moments> all, moments(source, columns));
      for (const Moments& m : all) bounds.emplace_back(m.mean - factor * m.stddev(1), m.mean + factor * m.stddev(1));
    } else if (method_ == "mad") {
      DS_ASSIGN(const auto medians, quantiles(source, columns, {0.5}));
      std::vector<double> centers;
      for (const auto& m : medians) centers.push_back(m[0]);
      DS_ASSIGN(const auto spreads, quantiles(source, columns, {0.5}, centers));
      for (size_t i = 0; i < columns.size(); ++i) {
        const double reach = factor * 1.4826 * spreads[i][0];
        bounds.emplace_back(centers[i] - reach, centers[i] + reach);
      }
    } else {
      DS_ASSIGN(const auto quartiles, quantiles(source, columns, {0.25, 0.75}));
      for (const auto& q : quartiles) bounds.emplace_back(q[0] - factor * (q[1] - q[0]), q[1] + factor * (q[1] - q[0]));
    }
    std::vector<int64_t> counts(columns.size());
    DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
      for (size_t i = 0; i < columns.size(); ++i)
        counts[i] += count_outside(*batch->column(columns[i]), bounds[i].first, bounds[i].second);
      return {};
    }));
    DS_ASSIGN(const int64_t rows, count_rows(source));
    for (size_t i = 0; i < columns.size(); ++i) {
      const auto [low, high] = bounds[i];
      if (!std::isfinite(low) || !std::isfinite(high)) continue;  // no values, or infinite ones
      const std::string& name = source.schema().field(columns[i])->name();
      bounds_[name] = {low, high};
      if (counts[i] > 0)
        notes_.push_back(fmt::format("{}: {} of {} outside of [{}, {}]", name, counts[i], rows, low, high));
    }
    return {};
  }

  Result<Table> transform(const Table& table, Origin origin) const override {
    Table result = table;
    std::vector<uint8_t> keep;
    for (const auto& [name, bounds] : bounds_) {
      const auto [low, high] = bounds;
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      const Column column = result->column(c);
      if (!holds_numbers(*column->type()))
        return invalid("outliers: column '{}' is {}, expected numbers", name, column->type()->ToString());
      if (action_ == "clip") {
        DS_ASSIGN(const Column clipped, clip(*column, low, high));
        DS_ASSIGN(result, set_column(result, c, clipped));
        continue;
      }
      std::vector<uint8_t> out = outside(*column, low, high);
      if (action_ == "flag") {
        DS_ASSIGN(const Column marks, flags(out));
        DS_ASSIGN(result, add_column(result, name + "_outlier", marks, kind()));
        continue;
      }
      for (uint8_t& o : out) o = o == 0;
      if (action_ == "null") {
        DS_ASSIGN(const Column masked, mask(*column, out));
        DS_ASSIGN(result, set_column(result, c, masked));
      } else if (origin.training) {
        keep.resize(out.size(), 1);
        for (size_t i = 0; i < out.size(); ++i) keep[i] &= out[i];
      }
    }
    return keep.empty() ? result : keep_rows(result, keep);
  }

  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema& before) const override {
    SqlColumns columns;
    for (const auto& [name, bounds] : bounds_) {
      const arrow::DataType& type = *before.GetFieldByName(name)->type();
      const bool whole = arrow::is_integer(type.id());
      DS_ASSIGN(const std::string as, sql.type(type));
      const auto bound = [&](double value) { return fmt::format("CAST({} AS {})", sql.real(value), as); };
      const std::string x = sql.name(name);
      const std::string below = fmt::format("{} < {}", sql.as_double(name), sql.real(bounds.first)),
                        above = fmt::format("{} > {}", sql.as_double(name), sql.real(bounds.second));
      // NaN is greater than all numbers in SQL, but no outlier.
      const std::string nan = arrow::is_floating(type.id()) ? fmt::format("WHEN isnan({}) THEN ", x) : "";
      if (action_ == "clip") {
        columns[name] =
            fmt::format("CASE {}WHEN {} THEN {} WHEN {} THEN {} ELSE {} END", nan.empty() ? "" : nan + x + " ", below,
                        bound(whole ? std::ceil(bounds.first) : bounds.first), above,
                        bound(whole ? std::floor(bounds.second) : bounds.second), x);
      } else if (action_ == "null") {
        columns[name] = fmt::format("CASE {}WHEN {} OR {} THEN NULL ELSE {} END", nan.empty() ? "" : nan + "NULL ",
                                    below, above, x);
      } else if (action_ == "flag") {
        columns[name + "_outlier"] = fmt::format("CASE {}WHEN {} OR {} THEN TRUE ELSE FALSE END",
                                                 nan.empty() ? "" : nan + "FALSE ", below, above);
      }
    }
    return columns;
  }
  Json state() const override { return {{"bounds", pairs_to_json(bounds_)}}; }
  Status set_state(const Json& state) override {
    bounds_ = pairs_from_json(state.at("bounds"));
    return {};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  std::vector<std::string> columns_;
  std::string method_ = "sigma", action_ = "clip";
  double factor_ = 0;
  Pairs bounds_;
  std::vector<std::string> notes_;
};

class Constant : public LeavesOut {
 public:
  std::string kind() const override { return "constant"; }
  void describe(OptionTable& t) override { t.field("columns", columns_, {.doc = "which may be left out; empty: all"}); }
  Status fit(const Source& source) override {
    left_out_.clear();
    notes_.clear();
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, takes_all, "any"));
    // What a column's values are all like: unknown yet, missing, a value, or not alike.
    std::vector<std::shared_ptr<arrow::Scalar>> one(columns.size());
    std::vector<uint8_t> differ(columns.size());
    int64_t rows = 0;
    DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
      rows += batch->num_rows();
      for (size_t i = 0; i < columns.size() && batch->num_rows() > 0; ++i) {
        if (differ[i]) continue;
        const Column& column = batch->column(columns[i]);
        DS_ASSIGN(const bool same, all_same(column));
        DS_ARROW_ASSIGN(std::shared_ptr<arrow::Scalar> value, column->GetScalar(0));
        // NaN is missing.
        if (value->is_valid && value->ToString() == "nan") value = arrow::MakeNullScalar(column->type());
        if (!same || (one[i] && !one[i]->Equals(*value))) differ[i] = 1;
        one[i] = std::move(value);
      }
      return {};
    }));
    for (size_t i = 0; i < columns.size() && rows >= 2; ++i) {  // one row says nothing
      if (differ[i]) continue;
      left_out_.push_back(source.schema().field(columns[i])->name());
      notes_.push_back(left_out_.back() + ": one value only, left out");
    }
    return {};
  }

 private:
  // A missing value is one of its own.
  static Result<bool> all_same(const Column& column) {
    if (holds_numbers(*column->type())) {
      const Moments m = moments(*column);
      return m.count == 0 || (m.missing == 0 && m.min == m.max);
    }
    if (column->null_count() > 0) return column->null_count() == column->length();
    const arrow::compute::CountOptions all(arrow::compute::CountOptions::ALL);
    DS_ASSIGN(const arrow::Datum distinct, call("count_distinct", {arrow::Datum(column)}, &all));
    return distinct.scalar_as<arrow::Int64Scalar>().value <= 1;
  }

  std::vector<std::string> columns_;
};

}  // namespace

std::unique_ptr<Step> make_impute() { return std::make_unique<Impute>(); }
std::unique_ptr<Step> make_outliers() { return std::make_unique<Outliers>(); }
std::unique_ptr<Step> make_constant() { return std::make_unique<Constant>(); }

nlohmann::json pairs_to_json(const Pairs& pairs) {
  Json json = Json::object();
  for (const auto& [name, p] : pairs) json[name] = {number_to_json(p.first), number_to_json(p.second)};
  return json;
}
Pairs pairs_from_json(const nlohmann::json& json) {
  Pairs pairs;
  for (const auto& [name, p] : json.items()) pairs[name] = {number_from_json(p.at(0)), number_from_json(p.at(1))};
  return pairs;
}

nlohmann::json number_to_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}
double number_from_json(const nlohmann::json& value) {
  if (!value.is_string()) return value.get<double>();
  const auto text = value.get<std::string>();
  return text == "Infinity"    ? std::numeric_limits<double>::infinity()
         : text == "-Infinity" ? -std::numeric_limits<double>::infinity()
                               : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace deepseek::tables
