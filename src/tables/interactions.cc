// New columns of pairs of columns, and the choice of those that tell about a target.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "base/threads.h"
#include "tables/columns.h"
#include "tables/selection.h"
#include "tables/step.h"

namespace deepseek::tables {

namespace {

using Json = nlohmann::json;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int kBins = 16;
constexpr int64_t kSample = 20000;  // rows that worth is estimated of

Result<std::vector<std::string>> text_of(const Column& column) {
  DS_ASSIGN(const Column text, as_text(column));
  std::vector<std::string> values;
  for (const auto& chunk : text->chunks()) {
    const auto& words = static_cast<const arrow::StringArray&>(*chunk);
    // A missing value is a category of its own.
    for (int64_t i = 0; i < words.length(); ++i)
      values.push_back(words.IsValid(i) ? words.GetString(i) : std::string());
  }
  return values;
}

Result<Column> column_of(const std::vector<double>& values) {
  arrow::DoubleBuilder builder;
  DS_ARROW(builder.Reserve(static_cast<int64_t>(values.size())));
  for (const double v : values) std::isnan(v) ? builder.UnsafeAppendNull() : builder.UnsafeAppend(v);
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
  return std::make_shared<arrow::ChunkedArray>(std::move(array));
}

// What options selection has, and how it weighs.
struct Selection {
  std::string target, method = "mutual_information";
  int64_t keep = 20;
  double redundancy = 0.95;

  void describe(OptionTable& t) {
    t.field("target", target, {.doc = "the column that is to be predicted; empty: the pipeline's target"});
    t.field("keep", keep, {.doc = "how many columns", .min = 1});
    t.field("method", method,
            {.doc = "how worth is measured: mutual_information with the target, or boosting, the gain in "
                    "gradient-boosted trees",
             .choices = {"mutual_information", "boosting"}});
    t.field("redundancy", redundancy,
            {.doc = "columns whose correlation with a better one is above it are left out", .min = 0, .max = 1});
  }
  Status check_target(const arrow::Schema& schema, const std::string& step) const {
    if (target.empty()) return invalid("{}: name the column to be predicted by the option `target`", step);
    return find_column(schema, target, step + ": target").status();
  }
  Result<Column> target_of(const arrow::Table& table, const std::string& step) const {
    DS_ASSIGN(const int c, find_column(*table.schema(), target, step + ": target"));
    return table.column(c);
  }
  Result<std::vector<double>> worth(const std::vector<Bins>& bins, const Column& y, const std::string& step) const {
    if (method == "boosting") {
      DS_ASSIGN(const Response response, response_of(target, y, step));
      return boosted_gains(bins, response, 20);
    }
    DS_ASSIGN(const Bins classes, bin_column(target, y, kBins, step));
    std::vector<double> worth(bins.size());
    parallel_for(static_cast<int64_t>(bins.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto b = static_cast<size_t>(begin); b < static_cast<size_t>(end); ++b)
        worth[b] = mutual_information(bins[b], classes, true);
    });
    return worth;
  }
};

class Interactions : public Step {
 public:
  std::string kind() const override { return "interactions"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "of which pairs are made; empty: all numbers and text but the target"});
    t.field("kinds", kinds_,
            {.doc = "products and ratios of numbers; crosses, text of two columns of text; group_means, a number's "
                    "mean among rows of the same text, "
                    "and its difference from that mean"});
    selection_.describe(t);
    t.field("max_candidates", most_, {.doc = "more pairs than this are an error, before they are tried", .min = 1});
  }

  Status fit(const Source& source) override {
    chosen_.clear();
    notes_.clear();
    for (const std::string& k : kinds_)
      if (k != "products" && k != "ratios" && k != "crosses" && k != "group_means")
        return invalid("interactions: kinds: unknown '{}'; there are products, ratios, crosses and group_means", k);
    if (selection_.target.empty()) selection_.target = target();
    DS_TRY(selection_.check_target(source.schema(), kind()));
    DS_ASSIGN(const Table sample, tables::sample(source, kSample));
    DS_ASSIGN(const Column y, selection_.target_of(*sample, kind()));
    std::vector<std::string> numbers, categories;
    DS_ASSIGN(const std::vector<int> columns,
              tables::chosen(source.schema(), columns_, *this, holds_values, "numbers or text"));
    for (const int c : columns) {
      const std::string& name = source.schema().field(c)->name();
      if (name == selection_.target) continue;
      (holds_numbers(*source.schema().field(c)->type()) ? numbers : categories).push_back(name);
    }
    std::vector<Pair> pairs = candidates(numbers, categories);
    if (static_cast<int64_t>(pairs.size()) > most_)
      return invalid(
          "interactions: {} pairs of {} columns of numbers and {} of text are more than max_candidates, {}; name fewer "
          "columns or kinds",
          pairs.size(), numbers.size(), categories.size(), most_);
    for (Pair& pair : pairs)
      if (pair.op == "mean" || pair.op == "less mean") DS_TRY(learn_means(TableSource(sample), pair));
    // A pair is worth what it tells beyond the better of its two.
    std::map<std::string, double> alone;
    std::vector<std::vector<double>> known;
    std::vector<Bins> bins;
    for (const std::vector<std::string>* list : {&numbers, &categories})
      for (const std::string& name : *list) {
        DS_ASSIGN(const int c, find_column(*sample->schema(), name, kind()));
        DS_ASSIGN(Bins own, bin_column(name, sample->column(c), kBins, kind()));
        DS_ASSIGN(const std::vector<double> w, information(own, y));
        alone[name] = w[0];
        bins.push_back(std::move(own));
        if (list == &numbers) {
          DS_ASSIGN(std::vector<double> values, values_of(name, sample->column(c), kind()));
          known.push_back(std::move(values));
        }
      }
    const size_t columns_alone = bins.size();
    std::vector<std::vector<double>> values;
    for (const Pair& pair : pairs) {
      DS_ASSIGN(const Column made, make(*sample, pair));
      DS_ASSIGN(std::vector<double> v, values_of(pair.name(), made, kind()));
      bins.push_back(pair.op == "cross" ? bin_categories(v, 256) : bin_numbers(v, kBins));
      values.push_back(std::move(v));
    }
    // Trees may split by the columns themselves, too.
    DS_ASSIGN(std::vector<double> worth, selection_.worth(bins, y, kind()));
    worth.erase(worth.begin(), worth.begin() + static_cast<std::ptrdiff_t>(columns_alone));
    if (selection_.method == "mutual_information")
      for (size_t p = 0; p < pairs.size(); ++p) worth[p] -= std::max(alone[pairs[p].a], alone[pairs[p].b]);
    for (const size_t p : select(values, worth, known, static_cast<size_t>(selection_.keep), selection_.redundancy)) {
      notes_.push_back(fmt::format("{}: {} {:.4g}", pairs[p].name(),
                                   selection_.method == "boosting" ? "gain" : "information beyond its columns",
                                   worth[p]));
      if (!pairs[p].means.empty()) DS_TRY(learn_means(source, pairs[p]));
      chosen_.push_back(std::move(pairs[p]));
    }
    notes_.insert(notes_.begin(),
                  fmt::format("{} of {} pairs kept, by {} rows", chosen_.size(), pairs.size(), sample->num_rows()));
    return {};
  }

  Result<Table> transform(const Table& table, Origin) const override {
    Table result = table;
    for (const Pair& pair : chosen_) {
      DS_ASSIGN(const Column column, make(*table, pair));
      DS_ASSIGN(result, add_column(result, pair.name(), column, kind()));
    }
    return result;
  }

  Result<SqlColumns> sql(const Sql& sql, const arrow::Schema& before) const override {
    SqlColumns columns;
    const auto type = [&](const std::string& name) -> const arrow::DataType& {
      return *before.GetFieldByName(name)->type();
    };
    const auto number = [&](const std::string& name) {
      return fmt::format("CAST({} AS DOUBLE)", sql.present(name, type(name)));
    };
    for (const Pair& pair : chosen_) {
      if (pair.op == "cross") {
        const auto word = [&](const std::string& name) {
          return fmt::format("COALESCE(CAST({} AS {}), '')", sql.name(name),
                             sql.dialect() == Dialect::kSpark ? "STRING" : "VARCHAR");
        };
        columns[pair.name()] = fmt::format("concat({}, '|', {})", word(pair.a), word(pair.b));
      } else if (pair.op == "*" || pair.op == "/") {
        const std::string divisor =
            pair.op == "*" ? number(pair.b) : fmt::format("NULLIF({}, {})", number(pair.b), sql.real(0));
        const std::string value = fmt::format("{} {} {}", number(pair.a), pair.op, divisor);
        columns[pair.name()] = fmt::format("CASE WHEN abs({0}) < {1} THEN {0} END", value,
                                           sql.real(std::numeric_limits<double>::infinity()));
      } else {
        std::string cases;
        for (const auto& [word, mean] : pair.means)
          cases += fmt::format(" WHEN {} THEN {}", sql.text(word), sql.real(mean));
        const std::string as_word = fmt::format("COALESCE(CAST({} AS {}), '')", sql.name(pair.b),
                                                sql.dialect() == Dialect::kSpark ? "STRING" : "VARCHAR");
        const std::string mean = cases.empty()
                                     ? sql.real(pair.mean)
                                     : fmt::format("CASE {}{} ELSE {} END", as_word, cases, sql.real(pair.mean));
        columns[pair.name()] = pair.op == "mean" ? mean : fmt::format("{} - {}", number(pair.a), mean);
      }
    }
    return columns;
  }
  Json state() const override {
    Json list = Json::array();
    for (const Pair& pair : chosen_) {
      Json means = Json::object();
      for (const auto& [word, mean] : pair.means) means[word] = number_to_json(mean);
      list.push_back(
          {{"op", pair.op}, {"a", pair.a}, {"b", pair.b}, {"mean", number_to_json(pair.mean)}, {"means", means}});
    }
    return {{"pairs", list}};
  }
  Status set_state(const Json& state) override {
    chosen_.clear();
    for (const Json& j : state.at("pairs")) {
      Pair pair{j.at("op"), j.at("a"), j.at("b"), {}, number_from_json(j.at("mean"))};
      for (const auto& [word, mean] : j.at("means").items()) pair.means[word] = number_from_json(mean);
      chosen_.push_back(std::move(pair));
    }
    return {};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Pair {
    std::string op, a, b;
    std::map<std::string, double> means;  // of a by words of b
    double mean = 0;                      // of all, for words that training data did not have
    std::string name() const {
      if (op == "cross") return a + " x " + b;
      if (op == "mean") return fmt::format("mean({}) by {}", a, b);
      if (op == "less mean") return fmt::format("{} - mean by {}", a, b);
      return fmt::format("{} {} {}", a, op, b);
    }
  };

  bool wants(const char* what) const {
    return kinds_.empty() || std::find(kinds_.begin(), kinds_.end(), what) != kinds_.end();
  }
  Result<std::vector<double>> information(const Bins& bins, const Column& y) const {
    Selection plain = selection_;
    plain.method = "mutual_information";
    return plain.worth({bins}, y, kind());
  }

  std::vector<Pair> candidates(const std::vector<std::string>& numbers,
                               const std::vector<std::string>& categories) const {
    std::vector<Pair> pairs;
    for (size_t i = 0; i < numbers.size(); ++i)
      for (size_t j = i + 1; j < numbers.size(); ++j) {
        if (wants("products")) pairs.push_back({"*", numbers[i], numbers[j]});
        if (!wants("ratios")) continue;
        pairs.push_back({"/", numbers[i], numbers[j]});
        pairs.push_back({"/", numbers[j], numbers[i]});
      }
    for (size_t i = 0; wants("crosses") && i < categories.size(); ++i)
      for (size_t j = i + 1; j < categories.size(); ++j) pairs.push_back({"cross", categories[i], categories[j]});
    for (size_t i = 0; wants("group_means") && i < numbers.size(); ++i)
      for (const std::string& category : categories) {
        pairs.push_back({"mean", numbers[i], category});
        pairs.push_back({"less mean", numbers[i], category});
      }
    return pairs;
  }

  Result<std::vector<double>> numbers_of(const arrow::Table& table, const std::string& name) const {
    DS_ASSIGN(const int c, find_column(*table.schema(), name, kind()));
    if (!holds_numbers(*table.column(c)->type()))
      return invalid("interactions: column '{}' is {}, expected numbers", name, table.column(c)->type()->ToString());
    return values_of(name, table.column(c), kind());
  }
  Result<std::vector<std::string>> words_of(const arrow::Table& table, const std::string& name) const {
    DS_ASSIGN(const int c, find_column(*table.schema(), name, kind()));
    return text_of(table.column(c));
  }

  Status learn_means(const Source& source, Pair& pair) const {
    std::map<std::string, std::pair<double, double>> sums;
    double sum = 0, n = 0;
    DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
      DS_ASSIGN(const std::vector<double> x, numbers_of(*batch, pair.a));
      DS_ASSIGN(const std::vector<std::string> words, words_of(*batch, pair.b));
      for (size_t i = 0; i < x.size(); ++i) {
        if (!std::isfinite(x[i])) continue;
        auto& [s, k] = sums[words[i]];
        s += x[i], ++k;
        sum += x[i], ++n;
      }
      return {};
    }));
    pair.mean = n > 0 ? sum / n : kNan;
    pair.means.clear();
    for (const auto& [word, s] : sums) pair.means[word] = s.first / s.second;
    return {};
  }

  Result<Column> make(const arrow::Table& table, const Pair& pair) const {
    if (pair.op == "cross") {
      DS_ASSIGN(const std::vector<std::string> a, words_of(table, pair.a));
      DS_ASSIGN(const std::vector<std::string> b, words_of(table, pair.b));
      arrow::StringBuilder builder;
      for (size_t i = 0; i < a.size(); ++i) DS_ARROW(builder.Append(a[i] + "|" + b[i]));
      DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
      return std::make_shared<arrow::ChunkedArray>(std::move(array));
    }
    DS_ASSIGN(std::vector<double> x, numbers_of(table, pair.a));
    if (pair.op == "*" || pair.op == "/") {
      DS_ASSIGN(const std::vector<double> y, numbers_of(table, pair.b));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = pair.op == "*" ? x[i] * y[i] : y[i] == 0 ? kNan : x[i] / y[i];  // nothing is divided by 0
        if (!std::isfinite(x[i])) x[i] = kNan;
      }
    } else {
      DS_ASSIGN(const std::vector<std::string> words, words_of(table, pair.b));
      for (size_t i = 0; i < x.size(); ++i) {
        const auto found = pair.means.find(words[i]);
        const double mean = found == pair.means.end() ? pair.mean : found->second;
        x[i] = pair.op == "mean" ? mean : x[i] - mean;
      }
    }
    return column_of(x);
  }

  std::vector<std::string> columns_, kinds_;
  Selection selection_;
  int64_t most_ = 20000;
  std::vector<Pair> chosen_;
  std::vector<std::string> notes_;
};

class Select : public LeavesOut {
 public:
  std::string kind() const override { return "select"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_,
            {.doc = "to choose from; empty: all numbers, booleans and text but the target. Others stay"});
    selection_.describe(t);
  }
  Status fit(const Source& source) override {
    left_out_.clear();
    notes_.clear();
    if (selection_.target.empty()) selection_.target = target();
    DS_TRY(selection_.check_target(source.schema(), kind()));
    DS_ASSIGN(const Table sample, tables::sample(source, kSample));
    DS_ASSIGN(const Column y, selection_.target_of(*sample, kind()));
    DS_ASSIGN(const std::vector<int> columns,
              chosen(source.schema(), columns_, *this, holds_values, "numbers, booleans or text"));
    std::vector<std::string> names;
    std::vector<Bins> bins;
    std::vector<std::vector<double>> values;
    for (const int c : columns) {
      const std::string& name = sample->field(c)->name();
      if (name == selection_.target) continue;
      names.push_back(name);
      DS_ASSIGN(Bins b,
                bin_column(name, sample->column(c), holds_numbers(*sample->field(c)->type()) ? kBins : 256, kind()));
      DS_ASSIGN(std::vector<double> v, values_of(name, sample->column(c), kind()));
      bins.push_back(std::move(b));
      values.push_back(std::move(v));
    }
    DS_ASSIGN(const std::vector<double> worth, selection_.worth(bins, y, kind()));
    const std::vector<size_t> kept =
        select(values, worth, {}, static_cast<size_t>(selection_.keep), selection_.redundancy);
    for (size_t c = 0; c < names.size(); ++c)
      if (std::find(kept.begin(), kept.end(), c) == kept.end()) left_out_.push_back(names[c]);
    notes_.push_back(fmt::format("{} of {} columns kept, by {}", kept.size(), names.size(), selection_.method));
    for (const size_t c : kept) notes_.push_back(fmt::format("{}: {:.4g}", names[c], worth[c]));
    return {};
  }

 private:
  std::vector<std::string> columns_;
  Selection selection_;
};

}  // namespace

std::unique_ptr<Step> make_interactions() { return std::make_unique<Interactions>(); }
std::unique_ptr<Step> make_select() { return std::make_unique<Select>(); }

}  // namespace deepseek::tables
