#include "tune/report/findings.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_set>

#include "base/strings.h"

namespace deepseek::tune {
namespace {

constexpr size_t kFew = 10;
constexpr double kEdge = 0.02;                                               // of a range: at its end
constexpr double kUnimportant = 0.01;                                        // a share
constexpr double kManyFailed = 0.1, kManyPruned = 0.8, kManyRepeated = 0.2;  // of finished trials

double share(size_t part, size_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<size_t>(whole, 1));
}

// Where failures gather: "name = value" or "name >= value", with how much of them and of the others lie there.
struct Gathering {
  std::string where;
  size_t failed = 0, others = 0;
  double gain = 0;  // share of the failures less that of the others there
};

Gathering find_gathering(const View& v, const std::vector<size_t>& failed, const std::vector<size_t>& others) {
  Gathering best;
  const auto consider = [&](size_t f, size_t o, const auto& where) {
    const double gain = share(f, failed.size()) - share(o, others.size());
    if (gain > best.gain + 1e-9) best = {where(), f, o, gain};
  };
  // In the space's order: what depends on a choice gathers no less than the choice, but comes after it.
  for (size_t k = 0; k < v.setting.space.size(); ++k) {
    const Parameter& p = v.setting.space[k];
    std::map<double, std::pair<size_t, size_t>> counts;
    for (const size_t i : failed)
      if (!std::isnan(v.points[i][k])) ++counts[v.points[i][k]].first;
    for (const size_t i : others)
      if (!std::isnan(v.points[i][k])) ++counts[v.points[i][k]].second;
    const auto at = [&](const char* relation, double value) {
      return [&p, relation, value] { return p.name + relation + short_value(p, value); };
    };
    for (const auto& [value, n] : counts)
      if (!p.numeric()) consider(n.first, n.second, at(" = ", value));
    if (!p.numeric()) continue;
    size_t f = 0, o = 0;
    for (const auto& [value, n] : counts) {
      f += n.first, o += n.second;
      consider(f, o, at(" <= ", value));
    }
    f = 0, o = 0;
    for (auto it = counts.rbegin(); it != counts.rend(); ++it) {
      f += it->second.first, o += it->second.second;
      consider(f, o, at(" >= ", it->first));
    }
  }
  return best;
}

void find_failures(const View& v, std::vector<std::string>& list) {
  std::vector<size_t> failed, others;
  std::map<std::string, size_t> errors;
  for (size_t i = 0; i < v.trials.size(); ++i) {
    const Trial& t = v.trials[i];
    if (!is_finished(t.state)) continue;
    (t.state == TrialState::kFailed ? failed : others).push_back(i);
    if (t.state == TrialState::kFailed && !t.error.empty()) ++errors[t.error.substr(0, t.error.find('\n'))];
  }
  const size_t n = failed.size() + others.size();
  if (failed.size() < 3) return;
  std::string text = fmt::format("{} of {} trials failed", failed.size(), n);
  const Gathering g = others.empty() ? Gathering() : find_gathering(v, failed, others);
  // By chance such a gain is of the order of 1 over the root of their number (Kolmogorov and Smirnov's statistic).
  const bool gathered = g.gain >= std::clamp(1.8 / std::sqrt(static_cast<double>(failed.size())), 0.5, 0.95);
  if (!gathered && share(failed.size(), n) < kManyFailed) return;
  if (gathered)
    text += fmt::format("; {} of them where {}, where {} of {} trials failed: narrow the range, or find out why",
                        g.failed, g.where, g.failed, g.failed + g.others);
  const auto most =
      std::max_element(errors.begin(), errors.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != errors.end())
    text += fmt::format("; most often ({} times): {}", most->second, shortened(most->first, 200));
  list.push_back(text);
}

// A wider range by a decade, or by half of its width; sides at 0, and at 1 of fractions, are taken to be meant.
void find_edges(const View& v, std::vector<std::string>& list) {
  if (v.setting.objectives() != 1 || v.best.empty() || v.complete.size() < kFew) return;
  std::vector<double> shares(v.setting.space.size(), 1);
  for (const Importance& i : v.importances) shares[i.parameter] = i.share;
  for (const size_t k : v.parameters) {
    const Parameter& p = v.setting.space[k];
    const double value = v.points[v.best[0]][k];
    if (p.kind == Kind::kChoice || p.cardinality() < 4 || std::isnan(value) || shares[k] < kUnimportant) continue;
    const bool whole = p.kind == Kind::kInt;
    double place = p.log ? std::log(value / p.low) / std::log(p.high / p.low) : (value - p.low) / (p.high - p.low);
    // Of ints and steps only the ends themselves.
    if (p.step > 0 && value > p.low && value < p.high) place = 0.5;
    const double width = p.high - p.low;
    const auto say = [&](const char* end, double bound, double wider) {
      if (whole) wider = std::round(wider);
      list.push_back(fmt::format("{}: the best value {} lies at the {} end of its range ({} to {}); try {} {}", p.name,
                                 short_value(p, value), end, io::short_number(p.low), io::short_number(p.high),
                                 bound == p.low ? "low =" : "high =", io::short_number(wider)));
    };
    if (place <= kEdge && p.low != 0) {
      double wider = p.log ? p.low / 10 : p.low - width / 2;
      if (p.low > 0 && wider < 0) wider = 0;
      if (whole && p.low >= 1 && wider < 1) wider = 1;
      if (wider < p.low && (!whole || std::round(wider) < p.low)) say("lower", p.low, wider);
    } else if (place >= 1 - kEdge && !(p.high == 1 && p.low >= 0)) {
      say("upper", p.high, p.log ? p.high * 10 : p.high + width / 2);
    }
  }
}

}  // namespace

std::vector<std::string> findings(const View& v) {
  std::vector<std::string> list;
  size_t finished = 0, pruned = 0, not_finite = 0, feasible = 0, repeated = 0, points = 0;
  std::unordered_set<Point, PointHash, PointEqual> seen;
  for (size_t i = 0; i < v.trials.size(); ++i) {
    const Trial& t = v.trials[i];
    finished += is_finished(t.state), pruned += t.state == TrialState::kPruned, feasible += v.feasible[i];
    not_finite += t.state == TrialState::kComplete;
    if (t.point.empty()) continue;
    ++points;
    repeated += !seen.insert(v.points[i]).second;
  }
  not_finite -= v.complete.size();
  if (v.complete.empty()) {
    list.push_back("no trial is complete yet");
  } else if (v.complete.size() < kFew) {
    list.push_back(fmt::format("{} complete trial{}: too few to tell what matters", v.complete.size(),
                               v.complete.size() == 1 ? "" : "s"));
  }
  if (!v.complete.empty() && feasible == 0)
    list.push_back("no complete trial keeps all constraints; loosen them, or give ranges where they hold");
  if (not_finite > 0)
    list.push_back(fmt::format("{} complete trials have no finite values, or not one per objective, and are left out",
                               not_finite));
  find_failures(v, list);
  if (v.complete.size() >= kFew / 2)
    for (size_t k = 0; k < v.setting.objectives(); ++k)
      if (v.shown[k].low == v.shown[k].high && v.shown[k].beyond == 0)
        list.push_back(fmt::format("{}: all complete trials have {}; does the objective depend on the parameters?",
                                   v.objective_name(k), v.shown[k].low));
  find_edges(v, list);
  if (v.setting.objectives() == 1 && v.complete.size() >= 12 && !v.best.empty()) {
    const auto at = std::find(v.complete.begin(), v.complete.end(), v.best[0]) - v.complete.begin();
    const size_t after = v.complete.size() - 1 - static_cast<size_t>(at);
    if (3 * after >= v.complete.size() && v.shown[0].low < v.shown[0].high)
      list.push_back(
          fmt::format("no better value in the last {} of {} complete trials: the search may be at its end, or its "
                      "ranges too narrow",
                      after, v.complete.size()));
  }
  if (pruned >= kFew && share(pruned, finished) > kManyPruned)
    list.push_back(fmt::format("{} of {} trials were pruned; a more patient pruner would tell more", pruned, finished));
  if (repeated >= kFew && share(repeated, points) > kManyRepeated)
    list.push_back(fmt::format("{} of {} trials repeat a point that was tried before", repeated, points));
  return list;
}

}  // namespace deepseek::tune
