#include "tune/report/view.h"

#include <algorithm>
#include <cmath>

#include "tune/pareto.h"

namespace deepseek::tune {
namespace {

// Beyond this, ranges are no doubles any more.
constexpr double kHuge = 1e300;
constexpr size_t kForestRows = 1000;
constexpr double kReach = 4, kPaleReach = 1.5;  // quartile distances beyond a quartile

Point cleaned(const Space& space, Point point) {
  point.resize(space.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < space.size(); ++i) {
    const Parameter& p = space[i];
    double& v = point[i];
    const double hair = 1e-9 * (p.high - p.low);  // low + k * step may round beyond the end
    if (!(v >= p.low - hair && v <= p.high + hair) || (p.kind == Kind::kChoice && v != std::floor(v)))
      v = std::numeric_limits<double>::quiet_NaN();
  }
  return point;
}

double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(std::floor(share * static_cast<double>(sorted.size() - 1)))];
}

}  // namespace

Shown shown_range(std::vector<double> values, bool up) {
  Shown s;
  if (values.empty()) return s;
  std::sort(values.begin(), values.end());
  const double low = values.front(), high = values.back();
  s.log = low > 0 && low > 1e-300 && quantile(values, 0.95) > 50 * quantile(values, 0.05);
  const auto even = [&](double v) { return s.log ? std::log(v) : v; };
  const double q1 = even(quantile(values, 0.25)), q3 = even(quantile(values, 0.75)), reach = kReach * (q3 - q1);
  s.low = low, s.high = high, s.palest = up ? low : high;
  if (!(reach > 0)) return s;
  for (const double v : values) {
    const bool far = up ? even(v) < q1 - reach : even(v) > q3 + reach;
    if (far) {
      ++s.beyond;
      continue;
    }
    if (up && s.beyond > 0 && s.low == low) s.low = v;  // the first that isn't far
    if (!up) s.high = v;
  }
  const double edge = up ? q1 - reach * kPaleReach / kReach : q3 + reach * kPaleReach / kReach;
  const double pale = s.log ? std::exp(edge) : edge;
  s.palest = up ? std::max(s.low, pale) : std::min(s.high, pale);
  return s;
}

View::View(const Setting& s, const std::vector<Trial>& t) : setting(s), trials(t), feasible(t.size(), false) {
  const size_t objectives = setting.objectives();
  for (size_t i = 0; i < trials.size(); ++i) {
    const Trial& trial = trials[i];
    points.push_back(cleaned(setting.space, trial.point));
    if (trial.state != TrialState::kComplete || trial.values.size() != objectives) continue;
    if (!std::all_of(trial.values.begin(), trial.values.end(), [](double v) { return std::abs(v) < kHuge; })) continue;
    complete.push_back(i);
    feasible[i] = std::all_of(trial.constraints.begin(), trial.constraints.end(), [](double c) { return c <= 0; });
  }
  const auto by_number = [&](size_t a, size_t b) { return trials[a].number < trials[b].number; };
  std::stable_sort(complete.begin(), complete.end(), by_number);
  std::vector<std::vector<double>> all;
  std::vector<size_t> kept;
  for (const size_t i : complete)
    if (feasible[i]) kept.push_back(i), all.push_back(losses(i));
  if (objectives == 1 && !all.empty()) {
    best = {kept[static_cast<size_t>(std::min_element(all.begin(), all.end()) - all.begin())]};
  } else {
    for (const size_t k : pareto_front(all)) best.push_back(kept[k]);
  }
  for (size_t k = 0; k < objectives; ++k) {
    std::vector<double> values;
    for (const size_t i : complete) values.push_back(trials[i].values[k]);
    shown.push_back(shown_range(std::move(values), up(k)));
  }
  for (size_t i = 0; i < setting.space.size(); ++i)
    if (setting.space[i].cardinality() > 1) parameters.push_back(i);
  std::vector<Trial> used;
  for (const size_t i : complete) {
    used.push_back({.number = trials[i].number, .state = TrialState::kComplete, .point = points[i]});
    used.back().values = trials[i].values;
  }
  ImportanceOptions options;
  options.rows = kForestRows;
  if (!shown.empty() && shown[0].beyond > 0) options.worst = up(0) ? shown[0].low : shown[0].high;
  Result<Forest> grown = Forest::fit(setting, used, options);
  if (!grown.ok()) {
    no_importances = grown.status().message();
    return;
  }
  forest = std::move(grown).value();
  importances = forest->importances();
  std::vector<double> share(setting.space.size(), 0);
  for (const Importance& i : importances) share[i.parameter] = i.share;
  std::stable_sort(parameters.begin(), parameters.end(), [&](size_t a, size_t b) { return share[a] > share[b]; });
}

double View::loss(size_t trial, size_t objective) const {
  return up(objective) ? -trials[trial].values[objective] : trials[trial].values[objective];
}

std::vector<double> View::losses(size_t trial) const {
  std::vector<double> list;
  for (size_t k = 0; k < setting.objectives(); ++k) list.push_back(loss(trial, k));
  return list;
}

std::string View::objective_name(size_t objective) const {
  return setting.objectives() == 1 ? "value" : fmt::format("value {}", objective + 1);
}

double View::badness(double value, size_t objective) const {
  const Shown& s = shown[objective];
  const double good = up(objective) ? s.high : s.low, bad = s.palest;
  if (good == bad) return 0;
  value = std::clamp(value, std::min(good, bad), std::max(good, bad));
  // By halves: the difference of huge values of both signs is no double.
  return s.log ? std::log(value / good) / std::log(bad / good) : (value / 2 - good / 2) / (bad / 2 - good / 2);
}

io::Axis View::colour_axis(size_t objective, int count) const {
  const Shown& s = shown[objective];
  return up(objective) ? io::Axis(s.palest, s.high, count, false, s.log)
                       : io::Axis(s.low, s.palest, count, false, s.log);
}

io::Axis View::value_axis(size_t objective, int count) const {
  const Shown& s = shown[objective];
  return io::Axis(s.low, s.high, count, true, s.log);
}

std::vector<size_t> thinned(const std::vector<size_t>& all, size_t most) {
  if (all.size() <= most) return all;
  std::vector<size_t> some;
  for (size_t k = 0; k < most; ++k) some.push_back(all[most > 1 ? k * (all.size() - 1) / (most - 1) : all.size() - 1]);
  return some;
}

std::vector<io::Tick> parameter_ticks(const Parameter& p, int count) {
  std::vector<io::Tick> ticks;
  const double cardinality = p.cardinality();
  if (p.kind == Kind::kChoice || cardinality <= count) {
    const int64_t stride = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(cardinality / count)));
    for (int64_t k = 0; k < static_cast<int64_t>(cardinality); k += stride) {
      const double v = p.low + static_cast<double>(k) * p.step;
      ticks.push_back({v, short_value(p, v)});
    }
    return ticks;
  }
  const io::Axis axis(p.low, p.high, count, false, p.log);
  for (const io::Tick& t : axis.ticks())
    if (p.kind != Kind::kInt || t.value == std::round(t.value)) ticks.push_back(t);
  return ticks;
}

std::string short_value(const Parameter& p, double value) {
  if (std::isnan(value)) return "-";
  if (p.kind == Kind::kInt && std::abs(value) < 1e7) return fmt::format("{:.0f}", value);
  return p.kind == Kind::kChoice ? p.text(value) : io::short_number(value);
}

std::string shortened(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace deepseek::tune
