// Steps that look at what columns are: their types, statistics of text, and columns that tell the target too well.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "tables/columns.h"
#include "tables/selection.h"
#include "tables/step.h"
#include "tables/text.h"

namespace deepseek::tables {

namespace {

using Json = nlohmann::json;
constexpr int64_t kSample = 20000;

// Formats that dates and times are tried in, in this order.
constexpr const char* kFormats[] = {"%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
                                    "%d.%m.%Y", "%d.%m.%Y %H:%M",    "%m/%d/%Y",          "%m/%d/%Y %H:%M",
                                    "%d/%m/%Y", "%Y/%m/%d"};

// Text as what it says, where enough of it says so. What does not is missing then.
class Types : public Step {
 public:
  std::string kind() const override { return "types"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "which; empty: all text"});
    t.field("share", share_,
            {.doc = "of the values that must be numbers, booleans or dates, so that the column becomes that; values "
                    "that are not "
                    "become missing",
             .min = 0.5,
             .max = 1});
  }
  Status fit(const Source& source) override {
    fitted_.clear();
    notes_.clear();
    DS_ASSIGN(const std::vector<int> columns, chosen(source.schema(), columns_, *this, holds_text, "text"));
    std::vector<std::map<std::string, int64_t>> good(columns.size());  // values that are of a type
    std::vector<int64_t> there(columns.size());
    std::vector<std::string> tried = {"number", "boolean"};
    tried.insert(tried.end(), std::begin(kFormats), std::end(kFormats));
    DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
      for (size_t i = 0; i < columns.size(); ++i) {
        const Column& column = batch->column(columns[i]);
        there[i] += column->length() - column->null_count();
        for (const std::string& as : tried) {
          DS_ASSIGN(const Column made, convert(column, as));
          good[i][as] += made->length() - made->null_count();
        }
      }
      return {};
    }));
    for (size_t i = 0; i < columns.size(); ++i) {
      if (there[i] == 0) continue;
      const auto best = std::max_element(tried.begin(), tried.end(),
                                         [&](const auto& a, const auto& b) { return good[i][a] < good[i][b]; });
      const auto share = static_cast<double>(good[i][*best]) / static_cast<double>(there[i]);
      if (share < share_) continue;
      const std::string& name = source.schema().field(columns[i])->name();
      fitted_[name] = *best;
      notes_.push_back(fmt::format("{}: {}, {} of {} values are none and become missing", name, *best,
                                   there[i] - good[i][*best], there[i]));
    }
    return {};
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const auto& [name, as] : fitted_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      if (!holds_text(*result->column(c)->type()))
        return invalid("types: column '{}' is {}, expected text", name, result->column(c)->type()->ToString());
      DS_ASSIGN(const Column made, convert(result->column(c), as));
      DS_ASSIGN(result, set_column(result, c, made));
    }
    return result;
  }
  Json state() const override { return {{"columns", fitted_}}; }
  Status set_state(const Json& state) override {
    fitted_ = state.at("columns").get<std::map<std::string, std::string>>();
    return {};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  static Result<Column> convert(const Column& given, const std::string& as) {
    DS_ASSIGN(const Column column, as_text(given));
    if (as != "number" && as != "boolean") {
      const arrow::compute::StrptimeOptions options(as, arrow::TimeUnit::MICRO, true);
      return map_column("strptime", column, &options);
    }
    arrow::DoubleBuilder numbers;
    arrow::BooleanBuilder truths;
    for (const auto& chunk : column->chunks()) {
      const auto& words = static_cast<const arrow::StringArray&>(*chunk);
      for (int64_t i = 0; i < words.length(); ++i) {
        const std::string word = words.IsValid(i) ? lower(trim(words.GetView(i))) : std::string();
        if (as == "number") {
          const auto value = parse_number(word);
          DS_ARROW(value ? numbers.Append(*value) : numbers.AppendNull());
        } else {
          const bool yes = word == "true" || word == "yes", no = word == "false" || word == "no";
          DS_ARROW(yes || no ? truths.Append(yes) : truths.AppendNull());
        }
      }
    }
    std::shared_ptr<arrow::Array> array;
    DS_ARROW(as == "number" ? numbers.Finish(&array) : truths.Finish(&array));
    return std::make_shared<arrow::ChunkedArray>(std::move(array));
  }

  std::vector<std::string> columns_, notes_;
  double share_ = 1;
  std::map<std::string, std::string> fitted_;  // column to number, boolean or a format
};

class Text : public Step {
 public:
  std::string kind() const override { return "text"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "of natural language; they must be named"});
    std::vector<std::string> names;
    for (const TextStatistic& s : text_statistics()) names.push_back(s.name);
    t.field("statistics", statistics_, {.doc = "columns <name>_<statistic>: " + join(names, ", ")});
    t.field("keep", keep_, {.doc = "keeps the column itself too"});
  }
  Status fit(const Source& source) override {
    if (columns_.empty()) return invalid("text: name the columns of natural language by the option `columns`");
    DS_TRY(chosen(source.schema(), columns_, *this, holds_text, "text").status());
    for (const std::string& name : statistics_) DS_TRY(find(name).status());
    return {};
  }
  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const std::string& name : columns_) {
      DS_ASSIGN(const int c, find_column(*result->schema(), name, kind()));
      const Column column = result->column(c);
      if (!holds_text(*column->type()))
        return invalid("text: column '{}' is {}, expected text", name, column->type()->ToString());
      DS_ASSIGN(const Column text, as_text(column));
      if (!keep_) {
        DS_ARROW_ASSIGN(result, result->RemoveColumn(c));
      }
      for (const std::string& statistic : statistics_) {
        DS_ASSIGN(const TextStatistic* s, find(statistic));
        arrow::DoubleBuilder builder;
        for (const auto& chunk : text->chunks()) {
          const auto& words = static_cast<const arrow::StringArray&>(*chunk);
          for (int64_t i = 0; i < words.length(); ++i) {
            const double value = words.IsValid(i) ? s->measure(words.GetView(i)) : std::nan("");
            DS_ARROW(std::isnan(value) ? builder.AppendNull() : builder.Append(value));
          }
        }
        DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
        DS_ASSIGN(result, add_column(result, name + "_" + statistic,
                                     std::make_shared<arrow::ChunkedArray>(std::move(array)), kind()));
      }
    }
    return result;
  }
  Json state() const override { return Json::object(); }
  Status set_state(const Json&) override { return {}; }

 private:
  static Result<const TextStatistic*> find(const std::string& name) {
    std::vector<std::string> names;
    for (const TextStatistic& s : text_statistics()) {
      if (s.name == name) return &s;
      names.push_back(s.name);
    }
    return invalid("text: statistics: unknown '{}'{} There are {}", name, did_you_mean(name, names), join(names, ", "));
  }
  std::vector<std::string> columns_, statistics_ = {"num_words", "num_characters"};
  bool keep_ = false;
};

// Columns that may not be there when the target is to be predicted, or say nothing of rows that come later.
class Leakage : public LeavesOut {
 public:
  std::string kind() const override { return "leakage"; }
  void describe(OptionTable& t) override {
    t.field("target", target_, {.doc = "the column that is to be predicted; empty: the pipeline's target"});
    t.field("columns", columns_, {.doc = "which are looked at; empty: all numbers, booleans and text"});
    t.field("threshold", threshold_,
            {.doc = "the share of what is unknown of the target that a column alone may tell", .min = 0, .max = 1});
    t.field("action", action_, {.doc = "warn in the notes, or leave out the columns too", .choices = {"warn", "drop"}});
  }
  Status fit(const Source& source) override {
    left_out_.clear();
    notes_.clear();
    if (target_.empty()) target_ = target();
    if (target_.empty()) return invalid("leakage: name the column to be predicted by the option `target`");
    DS_TRY(find_column(source.schema(), target_, "leakage: target").status());
    DS_ASSIGN(const Table rows, sample(source, kSample));
    DS_ASSIGN(const int t, find_column(*rows->schema(), target_, "leakage: target"));
    DS_ASSIGN(const Bins y, bin_column(target_, rows->column(t), 16, kind()));
    DS_ASSIGN(const std::vector<int> columns,
              chosen(source.schema(), columns_, *this, holds_values, "numbers, booleans or text"));
    for (const int c : columns) {
      const std::string& name = rows->field(c)->name();
      if (name == target_) continue;
      DS_ASSIGN(std::vector<double> values, values_of(name, rows->column(c), kind()));
      const bool number = holds_numbers(*rows->field(c)->type());
      const double share = told_share(values, number, y);
      std::erase_if(values, [](double v) { return std::isnan(v); });
      std::sort(values.begin(), values.end());
      // Integers and text of which none repeats or is missing number the rows.
      const bool index = rows->num_rows() > 100 && !arrow::is_floating(rows->field(c)->type()->id()) &&
                         static_cast<int64_t>(values.size()) == rows->num_rows() &&
                         std::adjacent_find(values.begin(), values.end()) == values.end();
      if (share >= threshold_) {
        notes_.push_back(fmt::format("{}: tells {:.1f} % of the target alone; is it known before the target is?", name,
                                     100 * share));
      } else if (index) {
        notes_.push_back(fmt::format("{}: no value repeats in {} rows; an index tells nothing of other rows", name,
                                     rows->num_rows()));
      } else {
        continue;
      }
      if (action_ == "drop") left_out_.push_back(name);
    }
    return {};
  }

 private:
  std::string target_, action_ = "warn";
  std::vector<std::string> columns_;
  double threshold_ = 0.95;
};

}  // namespace

std::unique_ptr<Step> make_types() { return std::make_unique<Types>(); }
std::unique_ptr<Step> make_text() { return std::make_unique<Text>(); }
std::unique_ptr<Step> make_leakage() { return std::make_unique<Leakage>(); }

}  // namespace deepseek::tables
