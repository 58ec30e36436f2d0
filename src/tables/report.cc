#include "tables/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/html.h"
#include "base/memory.h"
#include "tables/columns.h"
#include "tables/edit.h"
#include "tables/selection.h"
#include "tables/source.h"
#include "tables/values.h"

namespace deepseek::tables {

namespace {

constexpr int kBars = 24, kTop = 8, kMost = 40;  // bars of a histogram, values listed, columns of the correlation table

std::string number(double x) { return std::isnan(x) ? "–" : fmt::format("{:.5g}", x); }
std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

struct Bar {
  std::string label;
  double height = 0;   // of the tallest one, in [0, 1]
  double target = -1;  // mean of the target in it, in [0, 1] of its range; negative: none
};

// Bars side by side, and a line of the target's mean over them.
std::string chart(const std::vector<Bar>& bars) {
  constexpr double kWidth = 360, kHeight = 90;
  const double step = kWidth / static_cast<double>(std::max<size_t>(bars.size(), 1));
  std::string svg = fmt::format("<svg viewBox='0 0 {} {}' role='img'>", kWidth, kHeight + 2);
  std::string line;
  for (size_t b = 0; b < bars.size(); ++b) {
    const double h = bars[b].height * kHeight, x = static_cast<double>(b) * step;
    svg += fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'><title>{}</title></rect>", x + 0.5,
                       kHeight - h, std::max(step - 1, 0.5), h, html_escaped(bars[b].label));
    if (bars[b].target >= 0)
      line += fmt::format("{:.1f},{:.1f} ", x + step / 2, kHeight - bars[b].target * (kHeight - 4));
  }
  if (!line.empty()) svg += fmt::format("<polyline points='{}'/>", line);
  return svg + "</svg>";
}

// A target as numbers: itself, or 1 for the rarest of its values that is not missing.
struct Target {
  std::string name, meaning;
  std::vector<double> values;
  double low = 0, high = 1;  // its range
  Bins bins;
};

class Writer {
 public:
  Writer(const Table& table, const ReportOptions& options) : table_(table), options_(options) {}

  Result<Report> run() {
    const double rows = static_cast<double>(std::max<int64_t>(table_->num_rows(), 1));
    if (!options_.target.empty()) DS_TRY(learn_target());
    std::string cards;
    for (int c = 0; c < table_->num_columns(); ++c) {
      DS_ASSIGN(const std::string text, card(c));
      cards += text;
    }
    int64_t repeated = 0;
    const Result<std::vector<int64_t>> first = first_equal(*table_, {}, "report");
    for (size_t row = 0; first.ok() && row < first->size(); ++row)
      repeated += (*first)[row] != static_cast<int64_t>(row);
    if (repeated > 0)
      warn(fmt::format("{} rows ({}) equal an earlier one", repeated, percent(static_cast<double>(repeated) / rows)));
    const std::string correlations = correlation_table();

    const bool sampled = options_.rows > table_->num_rows();
    std::string html = page_head(options_.title, kStyle) + "<table class='facts'>";
    const auto fact = [&](const std::string& what, const std::string& value) {
      html += fmt::format("<tr><th>{}</th><td>{}</td></tr>", what, html_escaped(value));
    };
    fact("rows", sampled
                     ? fmt::format("{}, of which {} evenly spaced ones are shown", options_.rows, table_->num_rows())
                     : fmt::format("{}", table_->num_rows()));
    fact("columns", fmt::format("{}", table_->num_columns()));
    fact("missing values", percent(static_cast<double>(missing_) / (rows * std::max(table_->num_columns(), 1))));
    fact("equal rows", first.ok() ? fmt::format("{}", repeated) : first.status().message());
    if (!options_.target.empty()) fact("target", target_.meaning);
    html += "</table>";
    if (!warnings_.empty()) {
      html += "<h2>Warnings</h2><ul class='warnings'>";
      for (const std::string& w : warnings_) html += "<li>" + html_escaped(w) + "</li>";
      html += "</ul>";
    }
    html += "<h2>Columns</h2><div class='cards'>" + cards + "</div>" + correlations + "</body></html>\n";
    return Report{std::move(html), std::move(warnings_)};
  }

 private:
  void warn(std::string text) { warnings_.push_back(std::move(text)); }

  Status learn_target() {
    DS_ASSIGN(const int c, find_column(*table_->schema(), options_.target, "report: target"));
    target_.name = options_.target;
    DS_ASSIGN(target_.values, values_of(target_.name, table_->column(c), "report"));
    DS_ASSIGN(target_.bins, bin_column(target_.name, table_->column(c), 16, "report"));
    target_.meaning = target_.name;
    if (holds_categories(*table_->column(c)->type())) {
      std::map<double, int64_t> counts;
      for (const double v : target_.values)
        if (!std::isnan(v)) ++counts[v];
      if (counts.empty()) return {};
      const auto rare = std::min_element(counts.begin(), counts.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      DS_ASSIGN(const Column text, as_text(table_->column(c)));
      for (size_t row = 0; row < target_.values.size(); ++row)
        if (target_.values[row] == rare->first) {
          DS_ARROW_ASSIGN(const auto value, text->GetScalar(static_cast<int64_t>(row)));
          target_.meaning = fmt::format("{}; lines show the share of '{}'", target_.name, value->ToString());
          break;
        }
      const double least = static_cast<double>(rare->second) / static_cast<double>(table_->num_rows());
      if (least < 0.02)
        warn(fmt::format("{}: its rarest value is {} of the rows; compare models by AUC, not by accuracy", target_.name,
                         percent(least)));
      for (double& v : target_.values) v = std::isnan(v) ? v : v == rare->first ? 1 : 0;
    } else {
      double low = std::numeric_limits<double>::infinity(), high = -low;
      for (const double v : target_.values)
        if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
      if (low <= high) target_.low = low, target_.high = high > low ? high : low + 1;
      target_.meaning += "; lines show its mean";
    }
    return {};
  }

  // Means of the target by bar.
  void add_target(std::vector<Bar>& bars, const std::vector<int>& bar_of) const {
    if (target_.values.empty()) return;
    std::vector<double> sums(bars.size()), counts(bars.size());
    for (size_t row = 0; row < bar_of.size(); ++row)
      if (bar_of[row] >= 0 && !std::isnan(target_.values[row])) {
        sums[static_cast<size_t>(bar_of[row])] += target_.values[row];
        ++counts[static_cast<size_t>(bar_of[row])];
      }
    for (size_t b = 0; b < bars.size(); ++b) {
      if (counts[b] == 0) continue;
      const double mean = sums[b] / counts[b];
      bars[b].target = (mean - target_.low) / (target_.high - target_.low);
      bars[b].label += fmt::format(", {} {:.4g}", target_.name, mean);
    }
  }

  Result<std::string> card(int c) {
    const std::string& name = table_->field(c)->name();
    const Column column = table_->column(c);
    const arrow::DataType& type = *column->type();
    const double rows = static_cast<double>(std::max<int64_t>(table_->num_rows(), 1));
    std::string facts, picture;
    const auto fact = [&](const std::string& what, const std::string& value) {
      facts += fmt::format("<tr><th>{}</th><td>{}</td></tr>", what, html_escaped(value));
    };
    int64_t missing = column->null_count();
    std::vector<double> values;
    if (holds_values(type)) {
      DS_ASSIGN(values, values_of(name, column, "report"));
      DS_ASSIGN(picture, holds_numbers(type) ? numbers(name, column, values, missing, fact)
                                             : categories(name, column, values, missing, fact));
    } else if (arrow::is_date(type.id()) || type.id() == arrow::Type::TIMESTAMP) {
      DS_ASSIGN(const arrow::Datum ends, call("min_max", {arrow::Datum(column)}));
      const auto& pair = ends.scalar_as<arrow::StructScalar>();
      if (pair.value[0]->is_valid) fact("from", pair.value[0]->ToString()), fact("to", pair.value[1]->ToString());
    }
    missing_ += missing;
    if (missing == table_->num_rows()) {
      warn(name + ": no value at all");
    } else if (static_cast<double>(missing) > rows / 2) {
      warn(fmt::format("{}: {} missing", name, percent(static_cast<double>(missing) / rows)));
    }
    if (!target_.values.empty() && name != target_.name && holds_values(type)) {
      const double share = told_share(values, holds_numbers(type), target_.bins);
      fact("tells of " + html_escaped(target_.name), percent(share));
      if (share > 0.95)
        warn(fmt::format("{}: tells {} of the target alone; is it known before the target is?", name, percent(share)));
    }
    return fmt::format(
        "<section><h3>{}</h3><p class='type'>{}</p>{}<table class='facts'><tr><th>missing</th><td>{} "
        "({})</td></tr>{}</table></section>",
        html_escaped(name), html_escaped(type.ToString()), picture, missing,
        percent(static_cast<double>(missing) / rows), facts);
  }

  template <class F>
  Result<std::string> numbers(const std::string& name, const Column& column, const std::vector<double>& values,
                              int64_t& missing, F fact) {
    const Moments m = moments(*column);
    missing = m.missing;
    if (m.count == 0) return std::string();
    const std::vector<double> q = quantiles(*column, {0.01, 0.25, 0.5, 0.75, 0.99});
    fact("mean", number(m.mean));
    fact("standard deviation", number(m.stddev(1)));
    fact("least", number(m.min));
    fact("quartiles", fmt::format("{}, {}, {}", number(q[1]), number(q[2]), number(q[3])));
    fact("greatest", number(m.max));
    if (std::isinf(m.min) || std::isinf(m.max)) {
      warn(name + ": infinite values");
      return std::string();
    }
    if (m.min == m.max && m.missing == 0) warn(name + ": one value only");
    const double reach = 1.5 * (q[3] - q[1]);
    const auto outside_count = count_outside(*column, q[1] - reach, q[3] + reach);
    fact("beyond 1.5 of the quartiles' distance",
         fmt::format("{} ({})", outside_count,
                     percent(static_cast<double>(outside_count) / static_cast<double>(m.count))));
    if (static_cast<double>(outside_count) > 0.05 * static_cast<double>(m.count) && reach > 0)
      warn(fmt::format("{}: {} of its values are outliers by their distance from the quartiles", name,
                       percent(static_cast<double>(outside_count) / static_cast<double>(m.count))));
    // Between the outermost hundredths, so that a few far values do not flatten all.
    double low = q[0], high = q[4];
    if (!(high > low)) low = m.min, high = m.max > m.min ? m.max : m.min + 1;
    std::vector<Bar> bars(kBars);
    std::vector<int> bar_of;
    std::vector<double> counts(kBars);
    for (const double v : values) {
      const double at = (v - low) / (high - low) * kBars;
      bar_of.push_back(std::isnan(v)
                           ? -1
                           : std::clamp(static_cast<int>(std::floor(std::clamp(at, -1.0, 1.0 + kBars))), 0, kBars - 1));
      if (bar_of.back() >= 0) ++counts[static_cast<size_t>(bar_of.back())];
    }
    const double most = *std::max_element(counts.begin(), counts.end());
    for (size_t b = 0; b < bars.size(); ++b) {
      const double width = (high - low) / kBars;
      bars[b].height = counts[b] / most;
      bars[b].label = fmt::format("{:.4g} to {:.4g}: {}", low + static_cast<double>(b) * width,
                                  low + static_cast<double>(b + 1) * width, counts[b]);
    }
    add_target(bars, bar_of);
    numeric_.emplace_back(name, values);
    return chart(bars);
  }

  template <class F>
  Result<std::string> categories(const std::string& name, const Column& column, const std::vector<double>& codes,
                                 int64_t& missing, F fact) {
    std::map<double, std::pair<int64_t, int64_t>> counts;  // how many, and the first row
    missing = 0;
    for (size_t row = 0; row < codes.size(); ++row) {
      if (std::isnan(codes[row])) {
        ++missing;
        continue;
      }
      auto [found, fresh] = counts.try_emplace(codes[row], 0, static_cast<int64_t>(row));
      ++found->second.first;
    }
    const int64_t there = static_cast<int64_t>(codes.size()) - missing;
    fact("distinct values", fmt::format("{}", counts.size()));
    if (counts.size() == 1 && missing == 0) warn(name + ": one value only");
    if (there > 100 && static_cast<int64_t>(counts.size()) == there) {
      warn(name + ": no value repeats; an index tells nothing of other rows");
    } else if (there > 100 && static_cast<double>(counts.size()) > 0.5 * static_cast<double>(there)) {
      warn(fmt::format("{}: {} distinct values of {}; hash or encode them by the target", name, counts.size(), there));
    }
    std::vector<std::pair<int64_t, double>> order;
    for (const auto& [code, n] : counts) order.emplace_back(-n.first, code);
    std::sort(order.begin(), order.end());
    DS_ASSIGN(const Column text, as_text(column));
    std::vector<Bar> bars;
    std::map<double, int> bar;
    std::string list;
    for (size_t i = 0; i < order.size() && static_cast<int>(i) < kBars; ++i) {
      DS_ARROW_ASSIGN(const auto word, text->GetScalar(counts[order[i].second].second));
      const int64_t n = -order[i].first;
      std::string label = word->ToString();
      if (label.size() > 40) label = label.substr(0, 37) + "...";
      if (static_cast<int>(i) < kTop)
        fact(html_escaped(label),
             fmt::format("{} ({})", n,
                         percent(static_cast<double>(n) / static_cast<double>(std::max<int64_t>(there, 1)))));
      bar[order[i].second] = static_cast<int>(bars.size());
      bars.push_back({fmt::format("{}: {}", label, n), static_cast<double>(n) / static_cast<double>(-order[0].first)});
    }
    std::vector<int> bar_of;
    for (const double code : codes) {
      const auto found = std::isnan(code) ? bar.end() : bar.find(code);
      bar_of.push_back(found == bar.end() ? -1 : found->second);
    }
    add_target(bars, bar_of);
    return chart(bars);
  }

  // Pearson's, of rows where both are there.
  static double correlation(const std::vector<double>& a, const std::vector<double>& b) {
    double n = 0, ma = 0, mb = 0, aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::isnan(a[i]) || std::isnan(b[i])) continue;
      ++n;
      const double da = a[i] - ma, db = b[i] - mb;
      ma += da / n, mb += db / n;
      aa += da * (a[i] - ma), bb += db * (b[i] - mb), ab += da * (b[i] - mb);
    }
    return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : std::nan("");
  }

  std::string correlation_table() {
    const size_t n = std::min<size_t>(numeric_.size(), kMost);
    if (n < 2) return {};
    std::string html = "<h2>Correlations</h2><table class='correlations'><tr><th></th>";
    for (size_t a = 0; a < n; ++a) html += "<th><span>" + html_escaped(numeric_[a].first) + "</span></th>";
    html += "</tr>";
    for (size_t a = 0; a < n; ++a) {
      html += "<tr><th>" + html_escaped(numeric_[a].first) + "</th>";
      for (size_t b = 0; b < n; ++b) {
        const double r = a == b ? 1 : correlation(numeric_[a].second, numeric_[b].second);
        if (a < b && std::fabs(r) > 0.95)
          warn(fmt::format("{} and {}: correlation {:.3f}; one of them may do", numeric_[a].first, numeric_[b].first,
                           r));
        const double strength = std::isnan(r) ? 0 : std::fabs(r);
        html += fmt::format("<td style='background:rgba({},{:.2f})'>{}</td>", r < 0 ? "200,60,40" : "40,90,200",
                            0.75 * strength, std::isnan(r) ? "–" : fmt::format("{:.2f}", r));
      }
      html += "</tr>";
    }
    html += "</table>";
    if (n < numeric_.size()) html += fmt::format("<p>The first {} of {} columns of numbers.</p>", n, numeric_.size());
    return html;
  }

  // Beside that of all pages.
  static constexpr const char* kStyle =
      ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1em}"
      ".type{color:#666;margin:0 0 .4em}"
      "svg{width:100%;height:92px}rect{fill:#7da2d6}polyline{fill:none;stroke:#c8553d;stroke-width:2}"
      ".correlations{border-collapse:collapse;font-size:.8em}.correlations td{width:3em;text-align:center;padding:.2em}"
      ".correlations th{text-align:right;font-weight:normal;padding:.2em .5em}.correlations "
      "span{writing-mode:vertical-rl}"
      "@media(prefers-color-scheme:dark){.type{color:#999}}";

  const Table& table_;
  const ReportOptions& options_;
  Target target_;
  std::vector<std::string> warnings_;
  int64_t missing_ = 0;  // values of all columns
  std::vector<std::pair<std::string, std::vector<double>>> numeric_;
};

}  // namespace

Result<Report> report(const Table& table, const ReportOptions& options) {
  Table plain = table;
  for (int c = 0; c < plain->num_columns(); ++c)
    if (plain->field(c)->type()->id() == arrow::Type::STRING_VIEW) {
      DS_ASSIGN(const Column text, as_text(plain->column(c)));
      DS_ASSIGN(plain, set_column(plain, c, text));
    }
  return Writer(plain, options).run();
}

}  // namespace deepseek::tables
