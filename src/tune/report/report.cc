#include "tune/report/report.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <unordered_map>

#include "base/html.h"
#include "base/json.h"
#include "base/progress.h"
#include "io/atomic_file.h"
#include "tune/report/findings.h"
#include "tune/report/report_script.h"

namespace deepseek::tune {
namespace {

constexpr size_t kTableRows = 1000, kTableColumns = 30, kTipParameters = 12, kFrontRows = 20, kWorkers = 12;

std::string duration(double seconds) {
  if (seconds < 1) return fmt::format("{:.0f} ms", 1000 * seconds);
  if (seconds < 120) return fmt::format("{:.3g} s", seconds);
  const double minutes = std::round(seconds / 60);
  if (minutes < 120) return fmt::format("{:.0f} min", minutes);
  if (minutes < 48 * 60) return fmt::format("{:.0f} h {:.0f} min", std::floor(minutes / 60), std::fmod(minutes, 60));
  return fmt::format("{:.1f} days", seconds / 86400);
}

// Exact, as JSON; a point that isn't in the space has fewer names.
std::string point_text(const View& v, size_t trial) { return v.setting.space.text(v.points[trial]); }

bool timed(const Trial& t) { return is_finished(t.state) && t.started > 0 && t.ended >= t.started; }

class Page {
 public:
  Page(const std::string& title, const View& view) : title_(title), v_(view) {}

  std::string run() {
    html_ = page_head(title_, kReportStyle);
    add_facts();
    const std::vector<std::string> warnings = findings(v_);
    if (!warnings.empty()) {
      html_ += "<h2>Warnings</h2><ul class='warnings'>";
      for (const std::string& w : warnings) html_ += "<li>" + html_escaped(w) + "</li>";
      html_ += "</ul>";
    }
    html_ += "<div class='charts'>";
    for (const Chart& chart : charts(v_)) {
      const bool wide = chart.width > 800;
      html_ += fmt::format("<section id='{}'{}>", chart.id, wide ? " class='wide'" : "");
      html_ += io::draw_svg(chart.width, chart.height, chart.paint);
      html_ += "<p>" + html_escaped(chart.caption) + "</p></section>";
    }
    html_ += "</div>";
    if (!v_.forest && !v_.complete.empty()) html_ += "<p>No " + html_escaped(v_.no_importances) + ".</p>";
    add_trials();
    add_data();
    return std::move(html_) + "</body></html>\n";
  }

 private:
  // `value` is HTML.
  void fact(const std::string& what, const std::string& value) {
    html_ += "<tr><th>" + html_escaped(what) + "</th><td>" + value + "</td></tr>";
  }

  void add_facts() {
    html_ += "<table class='facts'>";
    std::array<size_t, 6> counts{};
    for (const Trial& t : v_.trials) ++counts[static_cast<size_t>(t.state)];
    std::string states = fmt::format("{}", v_.trials.size());
    for (const TrialState s : {TrialState::kComplete, TrialState::kPruned, TrialState::kFailed, TrialState::kRunning,
                               TrialState::kPaused, TrialState::kWaiting})
      if (counts[static_cast<size_t>(s)] > 0)
        states += fmt::format("{} {} {}", states.find(' ') == std::string::npos ? ":" : ",",
                              counts[static_cast<size_t>(s)], to_string(s));
    fact("trials", states);
    fact("parameters", fmt::format("{}", v_.setting.space.size()));
    std::string goals;
    for (size_t k = 0; k < v_.setting.objectives(); ++k)
      goals += fmt::format("{}{} {}", k > 0 ? ", " : "", v_.up(k) ? "greatest" : "least", v_.objective_name(k));
    fact("sought", goals);
    add_times();
    if (v_.setting.objectives() == 1 && !v_.best.empty()) {
      const Trial& best = v_.trials[v_.best[0]];
      fact("best value", fmt::format("<b>{}</b> (trial {})", io::short_number(best.values[0], 8), best.number));
    }
    html_ += "</table>";
    if (v_.best.empty()) return;
    html_ += v_.setting.objectives() == 1 ? "<h2>Best parameters</h2>"
                                          : fmt::format("<h2>Pareto front</h2><p>{} of {} trials on the front.</p>",
                                                        std::min(v_.best.size(), kFrontRows), v_.best.size());
    html_ += "<button class='copy'>copy</button><pre id='best'>";
    for (const size_t i : thinned(v_.best, kFrontRows)) {
      if (v_.setting.objectives() == 1) {
        html_ += html_escaped(point_text(v_, i));
        break;
      }
      std::string values;
      for (const double x : v_.trials[i].values) values += (values.empty() ? "" : ", ") + io::short_number(x, 6);
      html_ += html_escaped(fmt::format("{{\"trial\": {}, \"values\": [{}], \"parameters\": {}}}\n",
                                        v_.trials[i].number, values, point_text(v_, i)));
    }
    html_ += "</pre>";
  }

  void add_times() {
    double first = INFINITY, last = 0, busy = 0;
    size_t n = 0;
    std::map<std::string, std::pair<size_t, double>> workers;
    for (const Trial& t : v_.trials) {
      if (!timed(t)) continue;
      ++n;
      first = std::min(first, t.started), last = std::max(last, t.ended), busy += t.ended - t.started;
      auto& worker = workers[t.worker];
      ++worker.first, worker.second += t.ended - t.started;
    }
    if (n == 0) return;
    fact("time", fmt::format("{}, from {} to {}", duration(last - first), moment_text(first), moment_text(last)));
    std::string text = duration(busy / static_cast<double>(n)) + " on average";
    if (last > first) text += fmt::format("; {:.2g} at a time", busy / (last - first));
    fact("evaluations", text);
    std::vector<std::pair<std::string, std::pair<size_t, double>>> order(workers.begin(), workers.end());
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
    text.clear();
    for (size_t k = 0; k < std::min(order.size(), kWorkers); ++k)
      text +=
          fmt::format("{}{}: {} ({})", k > 0 ? "<br>" : "", order[k].first.empty() ? "-" : html_escaped(order[k].first),
                      order[k].second.first, duration(order[k].second.second));
    if (order.size() > kWorkers) text += fmt::format("<br>and {} more", order.size() - kWorkers);
    fact(fmt::format("by worker ({})", order.size()), text);
  }

  // The best first, then the others by number.
  void add_trials() {
    if (v_.trials.empty()) return;
    std::vector<size_t> rows(v_.trials.size());
    std::iota(rows.begin(), rows.end(), size_t{0});
    std::vector<bool> good(rows.size(), false);
    for (const size_t i : v_.complete) good[i] = true;
    std::stable_sort(rows.begin(), rows.end(), [&](size_t a, size_t b) {
      if (good[a] != good[b]) return static_cast<bool>(good[a]);
      return good[a] ? v_.loss(a, 0) < v_.loss(b, 0) : v_.trials[a].number < v_.trials[b].number;
    });
    const size_t left_out = rows.size() - std::min(rows.size(), kTableRows);
    rows.resize(rows.size() - left_out);
    std::vector<size_t> columns = v_.parameters;
    if (columns.size() > kTableColumns) columns.resize(kTableColumns);
    std::sort(columns.begin(), columns.end());
    html_ += "<h2>Trials</h2>";
    if (left_out > 0)
      html_ +=
          fmt::format("<p>The best {} of {} trials; {} are left out.</p>", rows.size(), v_.trials.size(), left_out);
    if (columns.size() < v_.parameters.size())
      html_ += fmt::format("<p>The {} most important of {} parameters.</p>", columns.size(), v_.parameters.size());
    html_ += "<div class='scroll'><table class='trials'><thead><tr><th>trial</th><th>state</th>";
    for (size_t k = 0; k < v_.setting.objectives(); ++k) html_ += "<th>" + v_.objective_name(k) + "</th>";
    for (const size_t p : columns) html_ += "<th>" + html_escaped(v_.setting.space[p].name) + "</th>";
    const auto any = [&](auto has) {
      return std::any_of(rows.begin(), rows.end(), [&](size_t i) { return has(v_.trials[i]); });
    };
    const bool times = any(timed), errors = any([](const Trial&t) { return !t.error.empty(); }),
               constraints = any([](const Trial&t) { return !t.constraints.empty(); });
    if (constraints) html_ += "<th>feasible</th>";
    if (times) html_ += "<th>seconds</th>";
    if (errors) html_ += "<th>error</th>";
    html_ += "</tr></thead><tbody>";
    for (const size_t i : rows) {
      const Trial& t = v_.trials[i];
      html_ += fmt::format("<tr data-t='{}'><td>{}<td>{}", t.number, t.number, to_string(t.state));
      for (size_t k = 0; k < v_.setting.objectives(); ++k)
        html_ += "<td>" + (k < t.values.size() ? io::short_number(t.values[k], 6) : "");
      for (const size_t p : columns) {
        const double value = v_.points[i][p];
        html_ +=
            "<td>" + (std::isnan(value) ? "" : html_escaped(shortened(short_value(v_.setting.space[p], value), 80)));
      }
      if (constraints) html_ += !good[i] ? "<td>" : v_.feasible[i] ? "<td>yes" : "<td>no";
      if (times) html_ += "<td>" + (timed(t) ? io::short_number(t.ended - t.started) : "");
      if (errors) html_ += "<td>" + html_escaped(shortened(t.error, 300));
    }
    html_ += "</tbody></table></div>";
  }

  // What the tip tells of each trial that has a mark.
  void add_data() {
    std::set<int64_t> drawn;
    constexpr std::string_view kMark = "data-t='";
    for (size_t at = html_.find(kMark); at != std::string::npos; at = html_.find(kMark, at + 1)) {
      int64_t number = 0;
      std::from_chars(html_.data() + at + kMark.size(), html_.data() + html_.size(), number);
      drawn.insert(number);
    }
    nlohmann::ordered_json data = nlohmann::ordered_json::object();
    for (size_t i = 0; i < v_.trials.size(); ++i) {
      const Trial& t = v_.trials[i];
      if (!drawn.contains(t.number)) continue;
      std::string text = fmt::format("trial {}, {}", t.number, to_string(t.state));
      for (size_t k = 0; k < t.values.size(); ++k)
        text += fmt::format("{}{}", k == 0 ? ": " : ", ", io::short_number(t.values[k], 6));
      for (size_t k = 0; k < std::min(v_.parameters.size(), kTipParameters); ++k) {
        const Parameter& p = v_.setting.space[v_.parameters[k]];
        const double value = v_.points[i][v_.parameters[k]];
        if (!std::isnan(value))
          text += fmt::format("\n{} = {}", shortened(p.name, 60), shortened(short_value(p, value), 60));
      }
      if (!t.error.empty()) text += "\n" + shortened(t.error, 100);
      data[std::to_string(t.number)] = std::move(text);
    }
    html_ += "<div id='tip' hidden></div><script type='application/json' id='data'>";
    // No text can end the element: every < is a JSON escape.
    for (const char c : dump_json(data, -1, true)) {
      if (c == '<') {
        html_ += "\\u003c";
      } else {
        html_ += c;
      }
    }
    html_ += "</script><script>";
    html_ += kReportScript;
    html_ += "</script>";
  }

  const std::string& title_;
  const View& v_;
  std::string html_;
};

}  // namespace

std::string report_page(const std::string& title, const Setting& setting, const std::vector<Trial>& trials) {
  const View view(setting, trials);
  return Page(title, view).run();
}

Status write_report(const std::string& path, const std::string& title, const Setting& setting,
                    const std::vector<Trial>& trials) {
  const std::string html = report_page(title, setting, trials);
  return io::write_file_atomic(path, std::as_bytes(std::span(html)));
}

}  // namespace deepseek::tune
