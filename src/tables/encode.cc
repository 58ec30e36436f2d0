// Columns as what models take: numbers on one scale, categories as numbers or booleans, dates in parts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "tables/columns.h"
#include "tables/edit.h"
#include "tables/numbers.h"
#include "tables/statistics.h"
#include "tables/step.h"

namespace deepseek::tables {

namespace {

using Json = nlohmann::json;

class Scale : public Step {
 public:
  std::string kind() const override { return "scale"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all numbers"});
    t.field("method", method_,
            {.doc = "standard: (x - mean) / standard deviation (n); minmax: to [0, 1]; robust: (x - median) / distance "
                    "of the quartiles. Columns of one value are only moved",
             .choices = {"standard", "minmax", "robust"}});
  }
  Status fit(const Source& source) override {
    fitted_.clear();
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, holds_numbers, "numbers"));
    DS_ASSIGN(const std::vector<Moments> all, moments(source, columns));
    std::vector<std::vector<double>> quartiles;
    if (method_ == "robust") {
      DS_ASSIGN(quartiles, quantiles(source, columns, {0.25, 0.5, 0.75}));
    }
    for (size_t i = 0; i < columns.size(); ++i) {
      const Moments& m = all[i];
      std::pair<double, double> f = method_ == "robust"
                                        ? std::make_pair(quartiles[i][1], quartiles[i][2] - quartiles[i][0])
                                    : method_ == "minmax" ? std::make_pair(m.min, m.max - m.min)
                                                          : std::make_pair(m.mean, m.stddev(0));
      const std::string& name = source.schema().field(columns[i])->name();
      if (std::isnan(f.first) || std::isnan(f.second) || std::isinf(f.first) || std::isinf(f.second)) {
        if (m.count > 0)
          return invalid("scale: column '{}' has infinite values; bound them by the step outliers first", name);
        f = {0, 1};
      }
      if (f.second == 0) f.second = 1;
      fitted_[name] = f;
    }
    return {};
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, f] : fitted_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      if (!holds_numbers(*result->column(c)->type()))
        return invalid("scale: column '{}' is {}, expected numbers", name, result->column(c)->type()->ToString());
      DS_ASSIGN(const Column scaled, scale(*result->column(c), f.first, f.second));
      DS_ASSIGN(result, set_column(result, c, scaled));
    }
    return result;
  }
  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema& before) const override {
    SqlColumns columns;
    for (const auto& [name, f] : fitted_) {
      const bool narrow = before.GetFieldByName(name)->type()->id() == arrow::Type::FLOAT;
      columns[name] = fmt::format("CAST(({} - {}) / {} AS {})", sql.as_double(name), sql.real(f.first),
                                  sql.real(f.second), narrow ? "FLOAT" : "DOUBLE");
    }
    return columns;
  }
  Json state() const override { return {{"columns", pairs_to_json(fitted_)}}; }
  Status set_state(const Json& state) override {
    fitted_ = pairs_from_json(state.at("columns"));
    return {};
  }

 private:
  std::vector<std::string> columns_;
  std::string method_ = "standard";
  Pairs fitted_;  // center and scale
};

bool is_category(const arrow::DataType& type) {
  return holds_text(type) || (type.id() == arrow::Type::DICTIONARY &&
                              holds_text(*static_cast<const arrow::DictionaryType&>(type).value_type()));
}

// What the encoders of categories share: the values of each column in training data, sorted.
class Categories : public Step {
 public:
  Status fit(const Source& source) override {
    values_.clear();
    notes_.clear();
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, is_category, "text"));
    DS_ASSIGN(const auto counts, value_counts(source, columns));
    for (size_t i = 0; i < columns.size(); ++i) {
      const std::string& name = source.schema().field(columns[i])->name();
      std::vector<std::pair<int64_t, std::string>> found;  // the most frequent first
      for (const auto& [word, n] : counts[i]) found.emplace_back(-n, word);
      std::sort(found.begin(), found.end());
      if (most_ > 0 && static_cast<int64_t>(found.size()) > most_) {
        notes_.push_back(fmt::format("{}: the {} most frequent of {} values, the others count as unknown", name, most_,
                                     found.size()));
        found.resize(static_cast<size_t>(most_));
      }
      std::vector<std::string>& values = values_[name];
      for (auto& [count, word] : found) values.push_back(std::move(word));
      std::sort(values.begin(), values.end());
    }
    return {};
  }
  Json state() const override { return {{"values", values_}}; }
  Status set_state(const Json& state) override {
    values_ = state.at("values").get<std::map<std::string, std::vector<std::string>>>();
    return {};
  }
  std::vector<std::string> notes() const override { return notes_; }

 protected:
  // i32 numbers of the column's values, null where they are missing or unknown.
  Result<Column> numbers(const Column& column, const std::string& name, const std::vector<std::string>& values) const {
    if (!is_category(*column->type()))
      return invalid("{}: column '{}' is {}, expected text", kind(), name, column->type()->ToString());
    DS_ASSIGN(const Column text, as_text(column));
    arrow::StringBuilder builder;
    DS_ARROW(builder.AppendValues(values));
    DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> set, builder.Finish());
    const arrow::compute::SetLookupOptions options(arrow::Datum(set), arrow::compute::SetLookupOptions::SKIP);
    return map_column("index_in", text, &options);
  }

  std::vector<std::string> columns_;
  int64_t most_ = 0;  // values of a column, 0: all
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> notes_;
};

class Ordinal : public Categories {
 public:
  std::string kind() const override { return "ordinal"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all text"});
    t.field("unknown", unknown_,
            {.doc = "values that training data did not have: null or an error", .choices = {"null", "error"}});
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, values] : values_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      const Column column = result->column(c);
      DS_ASSIGN(const Column found, numbers(column, name, values));
      if (unknown_ == "error" && found->null_count() > column->null_count())
        return invalid("ordinal: column '{}' has {} values that training data did not have", name,
                       found->null_count() - column->null_count());
      DS_ASSIGN(result, set_column(result, c, found));
    }
    return result;
  }

  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema&) const override {
    SqlColumns columns;
    for (const auto& [name, values] : values_) {
      std::string cases;
      for (size_t v = 0; v < values.size(); ++v) cases += fmt::format(" WHEN {} THEN {}", sql.text(values[v]), v);
      columns[name] =
          cases.empty() ? "CAST(NULL AS INT)" : fmt::format("CAST(CASE {}{} END AS INT)", sql.name(name), cases);
    }
    return columns;
  }

 private:
  std::string unknown_ = "null";
};

class OneHot : public Categories {
 public:
  OneHot() { most_ = 100; }
  std::string kind() const override { return "one_hot"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all text"});
    t.field("most", most_,
            {.doc = "values of a column, the most frequent ones; all others are false in each column, as "
                    "missing values are. 0: all",
             .min = 0});
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, values] : values_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      DS_ASSIGN(const Column found, numbers(result->column(c), name, values));
      DS_ARROW_ASSIGN(result, result->RemoveColumn(c));
      for (size_t v = 0; v < values.size(); ++v) {
        DS_ASSIGN(const arrow::Datum same, call("equal", {arrow::Datum(found), arrow::Datum(static_cast<int32_t>(v))}));
        DS_ASSIGN(const arrow::Datum filled, call("coalesce", {same, arrow::Datum(false)}));
        DS_ASSIGN(result, add_column(result, name + "=" + values[v], filled.chunked_array(), kind()));
      }
    }
    return result;
  }
  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema&) const override {
    SqlColumns columns;
    for (const auto& [name, values] : values_)
      for (const std::string& value : values)
        columns[name + "=" + value] = fmt::format("COALESCE({} = {}, FALSE)", sql.name(name), sql.text(value));
    return columns;
  }
};

// Each category as the mean of the target in it, drawn towards the mean of all where it is rare (Micci-Barreca, 2001).
// Training data gets means of other rows only, fold by fold, so that a row's own target is not among its features.
class Target : public Categories {
 public:
  std::string kind() const override { return "target"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all text"});
    t.field("target", target_,
            {.doc = "the column of numbers or booleans that is to be predicted; empty: the pipeline's target"});
    t.field("smooth", smooth_, {.doc = "how many rows of the overall mean a category gets added", .min = 0});
    t.field("folds", folds_, {.doc = "of training data", .min = 2, .max = 1000});
    t.field("seed", seed_, {.doc = "of the folds", .min = 0});
  }

  Status fit(const Source& source) override {
    if (target_.empty()) target_ = target();
    if (target_.empty()) return invalid("target: name the column to be predicted by the option `target`");
    DS_TRY(find_target(source.schema()).status());
    DS_TRY(Categories::fit(source));
    values_.erase(target_);
    // Sums by category and fold, so that those of the other folds are the difference.
    const auto folds = static_cast<size_t>(folds_);
    all_.assign(folds, {});
    sums_.clear();
    for (const auto& [name, values] : values_) sums_[name].assign(folds, std::vector<Sum>(values.size()));
    DS_TRY(source.each([&](const Table& batch, int64_t first) -> Status {
      DS_ASSIGN(const std::vector<double> y, target_of(*batch));
      for (size_t i = 0; i < y.size(); ++i)
        if (y[i] == y[i]) all_[fold_of(first + static_cast<int64_t>(i))].add(y[i]);
      for (const auto& [name, values] : values_) {
        DS_ASSIGN(const std::vector<int32_t> rows, rows_of(*batch, name, values));
        std::vector<std::vector<Sum>>& sums = sums_[name];
        for (size_t i = 0; i < y.size(); ++i)
          if (rows[i] >= 0 && y[i] == y[i])
            sums[fold_of(first + static_cast<int64_t>(i))][static_cast<size_t>(rows[i])].add(y[i]);
      }
      return {};
    }));
    Sum all;
    for (const Sum& s : all_) all.add(s);
    if (all.n == 0) return invalid("target: column '{}' has no value at all", target_);
    mean_ = all.sum / all.n;
    means_.clear();
    for (const auto& [name, values] : values_) means_[name] = means_without(name, folds, mean_);
    return {};
  }

  Result<Table> transform(const Table& table, Origin origin) const override {
    Table result = table;
    for (const auto& [name, values] : values_) {
      DS_ASSIGN(const std::vector<int32_t> rows, rows_of(*result, name, values));
      std::vector<double> encoded(rows.size());
      if (!origin.training) {
        for (size_t i = 0; i < rows.size(); ++i)
          encoded[i] = rows[i] < 0 ? mean_ : means_.at(name)[static_cast<size_t>(rows[i])];
      } else {
        std::vector<std::vector<double>> means;
        std::vector<double> of_all;
        for (size_t f = 0; f < static_cast<size_t>(folds_); ++f) {
          of_all.push_back(mean_without(f));
          means.push_back(means_without(name, f, of_all.back()));
        }
        for (size_t i = 0; i < rows.size(); ++i) {
          const size_t f = fold_of(origin.first + static_cast<int64_t>(i));
          encoded[i] = rows[i] < 0 ? of_all[f] : means[f][static_cast<size_t>(rows[i])];
        }
      }
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      arrow::DoubleBuilder builder;
      DS_ARROW(builder.AppendValues(encoded));
      DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
      DS_ASSIGN(result, set_column(result, c, std::make_shared<arrow::ChunkedArray>(std::move(array))));
    }
    return result;
  }

  Json state() const override {
    Json state = Categories::state();
    state["mean"] = number_to_json(mean_);
    for (const auto& [name, means] : means_)
      for (const double m : means) state["means"][name].push_back(number_to_json(m));
    return state;
  }
  Status set_state(const Json& state) override {
    DS_TRY(Categories::set_state(state));
    mean_ = number_from_json(state.at("mean"));
    means_.clear();
    for (const auto& [name, values] : values_) {
      for (size_t v = 0; v < values.size(); ++v)
        means_[name].push_back(number_from_json(state.at("means").at(name).at(v)));
      if (values.empty()) means_[name] = {};
    }
    return {};
  }

  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema&) const override {
    SqlColumns columns;
    for (const auto& [name, values] : values_) {
      std::string cases;
      for (size_t v = 0; v < values.size(); ++v)
        cases += fmt::format(" WHEN {} THEN {}", sql.text(values[v]), sql.real(means_.at(name)[v]));
      columns[name] = cases.empty() ? sql.real(mean_)
                                    : fmt::format("CASE {}{} ELSE {} END", sql.name(name), cases, sql.real(mean_));
    }
    return columns;
  }

 private:
  struct Sum {
    double sum = 0, n = 0;
    void add(double y) { sum += y, ++n; }
    void add(const Sum& other) { sum += other.sum, n += other.n; }
  };
  size_t fold_of(int64_t row) const {
    return static_cast<size_t>(
        bounded(hash_of(0x746172, static_cast<uint64_t>(seed_), static_cast<uint64_t>(row)), folds_));
  }
  Result<int> find_target(const arrow::Schema& schema) const {
    DS_ASSIGN(const int c, find_column(schema, target_, "target"));
    const arrow::DataType& type = *schema.field(c)->type();
    if (!holds_numbers(type) && type.id() != arrow::Type::BOOL)
      return invalid("target: column '{}' is {}, expected numbers or booleans", target_, type.ToString());
    return c;
  }
  // As doubles, NaN where it is missing.
  Result<std::vector<double>> target_of(const arrow::Table& table) const {
    DS_ASSIGN(const int c, find_target(*table.schema()));
    Column column = table.column(c);
    const auto options = arrow::compute::CastOptions::Unsafe(arrow::float64());
    DS_ASSIGN(column, map_column("cast", column, &options));
    std::vector<double> y;
    Numbers numbers;
    for (const Part& part : parts_of(*column)) {
      const double* x = numbers.load(part);
      y.insert(y.end(), x, x + part.length);
    }
    return y;
  }
  // Numbers of the categories, -1 where they are missing or unknown.
  Result<std::vector<int32_t>> rows_of(const arrow::Table& table, const std::string& name,
                                       const std::vector<std::string>& values) const {
    DS_ASSIGN(const int c, find_column(*table.schema(), name, kind()));
    DS_ASSIGN(const Column found, numbers(table.column(c), name, values));
    std::vector<int32_t> rows;
    for (const Part& part : parts_of(*found))
      for (int64_t i = 0; i < part.length; ++i) rows.push_back(part.valid(i) ? part.values<int32_t>()[i] : -1);
    return rows;
  }
  double mean_without(size_t fold) const {
    Sum others;
    for (size_t f = 0; f < all_.size(); ++f)
      if (f != fold) others.add(all_[f]);
    return others.n > 0 ? others.sum / others.n : mean_;
  }
  // Of each category in the folds but this one (one past the last: in all), drawn towards `mean`.
  std::vector<double> means_without(const std::string& name, size_t fold, double mean) const {
    const std::vector<std::vector<Sum>>& sums = sums_.at(name);
    std::vector<double> means(sums[0].size());
    for (size_t k = 0; k < means.size(); ++k) {
      Sum others;
      for (size_t f = 0; f < sums.size(); ++f)
        if (f != fold) others.add(sums[f][k]);
      means[k] = others.n + smooth_ > 0 ? (others.sum + smooth_ * mean) / (others.n + smooth_) : mean;
    }
    return means;
  }

  std::string target_;
  double smooth_ = 10, mean_ = 0;
  int64_t folds_ = 5, seed_ = 0;
  std::map<std::string, std::vector<double>> means_;           // by column and category
  std::vector<Sum> all_;                                       // by fold, of training data
  std::map<std::string, std::vector<std::vector<Sum>>> sums_;  // by column, fold and category
};

// Categories of any number as numbers below `buckets`, by a hash of the text, so that there is nothing to learn.
class Hashing : public Step {
 public:
  std::string kind() const override { return "hashing"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all text"});
    t.field("buckets", buckets_,
            {.doc = "how many numbers there are; missing values stay missing", .min = 2, .max = 1 << 30});
  }
  Status fit(const Source& source) override {
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, is_category, "text"));
    fitted_.clear();
    for (const int c : columns) fitted_.push_back(source.schema().field(c)->name());
    return {};
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const std::string& name : fitted_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      if (!is_category(*result->column(c)->type()))
        return invalid("hashing: column '{}' is {}, expected text", name, result->column(c)->type()->ToString());
      DS_ASSIGN(const Column text, as_text(result->column(c)));
      arrow::Int32Builder builder;
      DS_ARROW(builder.Reserve(text->length()));
      for (const auto& chunk : text->chunks()) {
        const auto& words = static_cast<const arrow::StringArray&>(*chunk);
        for (int64_t i = 0; i < words.length(); ++i) {
          if (words.IsNull(i))
            builder.UnsafeAppendNull();
          else
            builder.UnsafeAppend(static_cast<int32_t>(fnv1a(words.GetView(i)) % static_cast<uint64_t>(buckets_)));
        }
      }
      DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
      DS_ASSIGN(result, set_column(result, c, std::make_shared<arrow::ChunkedArray>(std::move(array))));
    }
    return result;
  }
  Json state() const override { return {{"columns", fitted_}}; }
  Status set_state(const Json& state) override {
    fitted_ = state.at("columns").get<std::vector<std::string>>();
    return {};
  }

 private:
  // 64-bit FNV-1a (Fowler, Noll and Vo): the same on every machine and in every language.
  static uint64_t fnv1a(std::string_view text) {
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
    return hash;
  }

  std::vector<std::string> columns_, fitted_;
  int64_t buckets_ = 1024;
};

class Dates : public Step {
 public:
  std::string kind() const override { return "dates"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all dates and timestamps"});
    t.field(
        "parts", parts_,
        {.doc = "year, quarter, month, week (ISO), day, day_of_week (Monday is 0), day_of_year, hour, minute, second; "
                "empty: year, month, day, day_of_week, and hour of timestamps"});
    t.field("keep", keep_, {.doc = "keeps the column itself too"});
  }
  Status fit(const Source& source) override {
    static const std::vector<std::string> known = {"year",        "quarter",     "month", "week",   "day",
                                                   "day_of_week", "day_of_year", "hour",  "minute", "second"};
    for (const std::string& part : parts_)
      if (std::find(known.begin(), known.end(), part) == known.end())
        return invalid(
            "dates: parts: unknown '{}'; there are year, quarter, month, week, day, day_of_week, "
            "day_of_year, hour, minute and second",
            part);
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, is_date, "dates"));
    fitted_.clear();
    for (const int c : columns) {
      std::vector<std::string> parts = parts_;
      const bool time = source.schema().field(c)->type()->id() == arrow::Type::TIMESTAMP;
      if (parts.empty()) parts = {"year", "month", "day", "day_of_week"};
      if (parts_.empty() && time) parts.emplace_back("hour");
      if (!time) std::erase_if(parts, [](const auto& p) { return p == "hour" || p == "minute" || p == "second"; });
      fitted_[source.schema().field(c)->name()] = parts;
    }
    return {};
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, parts] : fitted_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      const Column column = result->column(c);
      if (!is_date(*column->type()))
        return invalid("dates: column '{}' is {}, expected dates", name, column->type()->ToString());
      if (!keep_) {
        DS_ARROW_ASSIGN(result, result->RemoveColumn(c));
      }
      for (const std::string& part : parts) {
        DS_ASSIGN(const Column wide, map_column(part == "week" ? "iso_week" : part, column));
        DS_ASSIGN(const Column values, cast_column(wide, arrow::int32()));
        DS_ASSIGN(result, add_column(result, name + "_" + part, values, kind()));
      }
    }
    return result;
  }
  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema&) const override {
    SqlColumns columns;
    const bool spark = sql.dialect() == Dialect::kSpark;
    for (const auto& [name, parts] : fitted_)
      for (const std::string& part : parts) {
        const std::string x = sql.name(name);
        columns[name + "_" + part] = part == "day_of_week"
                                         ? (spark ? "weekday(" + x + ")" : "CAST(isodow(" + x + ") - 1 AS INTEGER)")
                                     : part == "day_of_year" ? "CAST(dayofyear(" + x + ") AS INTEGER)"
                                     : part == "week"        ? "CAST(weekofyear(" + x + ") AS INTEGER)"
                                                             : "CAST(" + part + "(" + x + ") AS INTEGER)";
      }
    return columns;
  }
  Json state() const override { return {{"columns", fitted_}}; }
  Status set_state(const Json& state) override {
    fitted_ = state.at("columns").get<std::map<std::string, std::vector<std::string>>>();
    return {};
  }

 private:
  static bool is_date(const arrow::DataType& type) {
    return type.id() == arrow::Type::DATE32 || type.id() == arrow::Type::DATE64 || type.id() == arrow::Type::TIMESTAMP;
  }

  std::vector<std::string> columns_, parts_;
  bool keep_ = false;
  std::map<std::string, std::vector<std::string>> fitted_;
};

}  // namespace

std::unique_ptr<Step> make_scale() { return std::make_unique<Scale>(); }
std::unique_ptr<Step> make_ordinal() { return std::make_unique<Ordinal>(); }
std::unique_ptr<Step> make_one_hot() { return std::make_unique<OneHot>(); }
std::unique_ptr<Step> make_target() { return std::make_unique<Target>(); }
std::unique_ptr<Step> make_hashing() { return std::make_unique<Hashing>(); }
std::unique_ptr<Step> make_dates() { return std::make_unique<Dates>(); }

}  // namespace deepseek::tables
