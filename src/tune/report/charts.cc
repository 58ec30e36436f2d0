#include "tune/report/charts.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "tune/pareto.h"
#include "tune/report/chart_parts.h"

namespace deepseek::tune {

using io::Axis;
using io::Canvas;
using io::Spot;

namespace {

constexpr size_t kMarks = 1500;       // of a history
constexpr size_t kLines = 100;        // learning curves
constexpr size_t kSteps = 100;        // spots of one
constexpr size_t kRows = 20;          // bars of importances
constexpr size_t kPairsAmong = 5;     // parameters
constexpr size_t kFrontMarks = 1000;  // of a scatter
constexpr double kWide = 1120, kHalf = 550, kLow = 340;

double last_number(const View& v) {
  double last = 1;
  for (const Trial& t : v.trials) last = std::max(last, static_cast<double>(t.number));
  return last;
}

// Positions by number of the trials where the objective was better than ever before.
std::vector<size_t> records(const View& v, size_t objective) {
  std::vector<size_t> list;
  for (const size_t i : v.complete)
    if (v.feasible[i] && (list.empty() || v.loss(i, objective) < v.loss(list.back(), objective))) list.push_back(i);
  return list;
}

std::string beyond(const Shown& s) {
  return s.beyond == 0 ? "" : fmt::format(" {} values lie beyond the chart and stand at its edge.", s.beyond);
}

std::vector<size_t> merged(std::vector<size_t> a, const std::vector<size_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end());
  a.erase(std::unique(a.begin(), a.end()), a.end());
  return a;
}

}  // namespace

Chart history_chart(const View& v, size_t objective) {
  Chart chart{v.setting.objectives() == 1 ? "history" : fmt::format("history_{}", objective + 1), "", kHalf, kLow, {}};
  if (v.trials.empty()) return chart;
  chart.caption = "Each trial by its number, and the best so far." + beyond(v.shown[objective]);
  const std::vector<size_t> best = records(v, objective);
  std::vector<size_t> some = merged(thinned(v.complete, kMarks), best), failed, pruned;
  for (size_t i = 0; i < v.trials.size(); ++i) {
    if (v.trials[i].state == TrialState::kFailed) failed.push_back(i);
    if (v.trials[i].state == TrialState::kPruned) pruned.push_back(i);
  }
  if (v.complete.size() > some.size())
    chart.caption += fmt::format(" {} of {} complete ones are drawn.", some.size(), v.complete.size());
  if (!pruned.empty() && v.setting.objectives() == 1) chart.caption += " Pruned ones stand at their last report.";
  failed = thinned(failed, kMarks / 3), pruned = thinned(pruned, kMarks / 3);
  const bool hollow = std::any_of(some.begin(), some.end(), [&](size_t i) { return !v.feasible[i]; });
  chart.paint = [&v, objective, best, some, failed, pruned, hollow](Canvas& c) {
    draw_title(c, v.setting.objectives() == 1 ? "History" : "History of " + v.objective_name(objective), kHalf);
    std::vector<LegendItem> legend = {{Mark::kDisc, kComplete, "complete"}, {Mark::kLine, kBest, "best so far"}};
    if (hollow) legend.push_back({Mark::kRing, kComplete, "infeasible"});
    if (!pruned.empty()) legend.push_back({Mark::kRing, kPruned, "pruned"});
    if (!failed.empty()) legend.push_back({Mark::kCross, kFailed, "failed"});
    draw_legend(c, 14, 46, legend);
    const Frame f{74, 62, kHalf - 20, kLow - 46};
    const Axis xs(0, last_number(v), 6, false), ys = v.value_axis(objective, 5);
    draw_y_axis(c, f, placed(ys), v.objective_name(objective));
    std::vector<std::pair<double, std::string>> ticks;
    for (const auto& [at, label] : placed(xs))
      if (label.find('.') == std::string::npos) ticks.emplace_back(at, label);
    draw_x_axis(c, f, ticks, "trial");
    const auto x = [&](size_t i) { return f.x(xs.at(static_cast<double>(v.trials[i].number))); };
    const auto y = [&](double value) { return f.y(ys.at(value)); };
    const double radius = some.size() > 400 ? 2 : 3;
    for (const size_t i : failed) {
      c.tag(v.trials[i].number), c.colour(kFailed);
      draw_cross(c, x(i), f.bottom - 5, 3);
    }
    for (const size_t i : pruned) {
      c.tag(v.trials[i].number), c.colour(kPruned);
      const auto& reports = v.trials[i].reports;
      const bool there = !reports.empty() && std::isfinite(reports.back().value) && v.setting.objectives() == 1;
      c.disc(x(i), there ? y(reports.back().value) : f.bottom - 5, radius + 0.6);
      c.tag(-1), c.colour(io::kWhite);
      c.disc(x(i), there ? y(reports.back().value) : f.bottom - 5, radius - 0.7);
    }
    for (const size_t i : some) {
      c.tag(v.trials[i].number), c.colour(kComplete, 0.75);
      c.disc(x(i), y(v.trials[i].values[objective]), radius);
      if (v.feasible[i]) continue;
      c.tag(-1), c.colour(io::kWhite);
      c.disc(x(i), y(v.trials[i].values[objective]), radius - 1);
    }
    c.tag(-1);
    std::vector<Spot> steps;
    for (const size_t i : best) {
      if (!steps.empty()) steps.push_back({x(i), steps.back().y});
      steps.push_back({x(i), y(v.trials[i].values[objective])});
    }
    if (!steps.empty()) steps.push_back({f.right, steps.back().y});
    c.colour(kBest);
    c.polyline(steps, 2);
  };
  return chart;
}

Chart curves_chart(const View& v) {
  Chart chart{"curves", "", kHalf, kLow, {}};
  std::vector<size_t> all;
  std::vector<double> values, steps;
  for (size_t i = 0; i < v.trials.size(); ++i) {
    size_t finite = 0;
    for (const Report& r : v.trials[i].reports) finite += std::abs(r.value) < 1e300;
    if (finite < 2) continue;
    all.push_back(i);
    for (const Report& r : v.trials[i].reports)
      if (std::abs(r.value) < 1e300) values.push_back(r.value), steps.push_back(static_cast<double>(r.step));
  }
  if (all.empty()) return chart;
  const bool has_best = !v.best.empty() && std::find(all.begin(), all.end(), v.best[0]) != all.end();
  const Shown range = shown_range(values, v.up(0));
  std::vector<size_t> some =
      merged(thinned(all, kLines), has_best ? std::vector<size_t>{v.best[0]} : std::vector<size_t>{});
  chart.caption = fmt::format("Intermediate values of {} of {} trials that reported any; darker: better at the end.",
                              some.size(), all.size()) +
                  beyond(range);
  // The worst first, so that good ones lie on top.
  const auto rank = [&v](size_t i) {
    return v.trials[i].state != TrialState::kComplete || v.trials[i].values.empty() ? 2.0
                                                                                    : v.badness(v.trials[i].values[0]);
  };
  std::stable_sort(some.begin(), some.end(), [&](size_t a, size_t b) { return rank(a) > rank(b); });
  const auto [from, to] = std::minmax_element(steps.begin(), steps.end());
  const double first = *from, last = *to;
  chart.paint = [&v, some, range, first, last, has_best, rank](Canvas& c) {
    draw_title(c, "Learning curves", kHalf);
    draw_legend(c, 14, 46,
                {{Mark::kLine, shade(0.3), "complete"},
                 {Mark::kDashes, kPruned, "pruned"},
                 {Mark::kLine, kBest, "best"},
                 {Mark::kLine, kPale, "others"}});
    const Frame f{74, 62, kHalf - 20, kLow - 46};
    const Axis xs(first, last, 6, false), ys(range.low, range.high, 5, true, range.log);
    draw_y_axis(c, f, placed(ys), "reported value");
    draw_x_axis(c, f, placed(xs), "step");
    for (const bool on_top : {false, true}) {
      for (const size_t i : some) {
        const Trial& t = v.trials[i];
        const bool is_best = has_best && i == v.best[0], pruned = t.state == TrialState::kPruned;
        if (is_best != on_top) continue;
        std::vector<Spot> spots;
        std::vector<size_t> every(t.reports.size());
        for (size_t k = 0; k < every.size(); ++k) every[k] = k;
        for (const size_t k : thinned(every, kSteps))
          if (std::isfinite(t.reports[k].value))
            spots.push_back({f.x(xs.at(static_cast<double>(t.reports[k].step))), f.y(ys.at(t.reports[k].value))});
        c.tag(t.number);
        c.colour(is_best ? kBest : pruned ? kPruned : rank(i) <= 1 ? shade(rank(i)) : kPale, is_best ? 1 : 0.8);
        if (pruned) c.dashes(4, 4);
        c.polyline(spots, is_best ? 2.5 : 1.3);
        c.dashes(0, 0);
      }
    }
    c.tag(-1);
  };
  return chart;
}

Chart pareto_chart(const View& v) {
  const size_t objectives = v.setting.objectives(), panels = objectives == 2 ? 1 : objectives >= 3 ? 3 : 0;
  const double width = panels == 1 ? kHalf : kWide, wide = width / static_cast<double>(std::max<size_t>(panels, 1));
  Chart chart{"pareto", "", width, 380, {}};
  if (panels == 0 || v.complete.empty()) return chart;
  std::vector<size_t> front = thinned(v.best, kFrontMarks), rest;
  for (const size_t i : v.complete)
    if (!std::binary_search(v.best.begin(), v.best.end(), i)) rest.push_back(i);
  rest = thinned(rest, kFrontMarks);
  chart.caption = fmt::format("{} trials that no other is better than in every objective.", v.best.size());
  if (objectives > 3) chart.caption += fmt::format(" The first three of {} objectives are shown.", objectives);
  chart.paint = [&v, front, rest, panels, wide, width](Canvas& c) {
    draw_title(c, "Pareto front", width);
    draw_legend(c, 14, 46, {{Mark::kDisc, kBest, "front"}, {Mark::kDisc, shade(0.85), "other trials"}});
    constexpr size_t kPairs[][2] = {{0, 1}, {0, 2}, {1, 2}};
    for (size_t p = 0; p < panels; ++p) {
      const size_t a = kPairs[p][0], b = kPairs[p][1];
      const double left = static_cast<double>(p) * wide;
      const Frame f{left + 74, 62, left + wide - 20, 334};
      const Axis xs = v.value_axis(a, panels == 1 ? 6 : 4), ys = v.value_axis(b, 5);
      draw_y_axis(c, f, placed(ys), v.objective_name(b));
      draw_x_axis(c, f, placed(xs), v.objective_name(a));
      const auto spot = [&](size_t i) {
        return Spot{f.x(xs.at(v.trials[i].values[a])), f.y(ys.at(v.trials[i].values[b]))};
      };
      for (const size_t i : rest) {
        c.tag(v.trials[i].number), c.colour(shade(0.85), 0.8);
        c.disc(spot(i).x, spot(i).y, 2.6);
      }
      c.tag(-1);
      if (panels == 1) {
        std::vector<size_t> order = front;
        std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return v.losses(i) < v.losses(j); });
        std::vector<Spot> stairs;
        for (const size_t i : order) {
          if (!stairs.empty()) stairs.push_back({spot(i).x, stairs.back().y});
          stairs.push_back(spot(i));
        }
        c.colour(kBest, 0.5);
        c.polyline(stairs, 1.3);
      }
      for (const size_t i : front) {
        c.tag(v.trials[i].number), c.colour(kBest);
        c.disc(spot(i).x, spot(i).y, 3.6);
      }
      c.tag(-1);
    }
  };
  return chart;
}

namespace {

// Dominated area after each trial: a staircase that is kept sorted, so that all of them cost n log n.
std::vector<std::pair<double, double>> areas(const View& v, const std::vector<double>& reference) {
  std::map<double, double> stairs;  // the second loss falls as the first rises
  double area = 0;
  std::vector<std::pair<double, double>> curve;
  for (const size_t i : v.complete) {
    const double x = v.loss(i, 0), y = v.loss(i, 1);
    if (v.feasible[i] && x < reference[0] && y < reference[1]) {
      auto next = stairs.lower_bound(x);
      double height = next == stairs.begin() ? reference[1] : std::prev(next)->second;
      if (y < height && !(next != stairs.end() && next->first == x && next->second <= y)) {
        double from = x;
        while (next != stairs.end() && next->second >= y) {
          area += (next->first - from) * (height - y);
          from = next->first, height = next->second;
          next = stairs.erase(next);
        }
        const double to = next == stairs.end() ? reference[0] : next->first;
        area += (to - from) * (height - y);
        stairs[x] = y;
      }
    }
    curve.emplace_back(static_cast<double>(v.trials[i].number), area);
  }
  return curve;
}

}  // namespace

Chart hypervolume_chart(const View& v) {
  constexpr size_t kCheckpoints = 20, kFront = 60;
  const size_t objectives = v.setting.objectives();
  Chart chart{"hypervolume", "", kHalf, 380, {}};
  // Of three objectives and more it costs the front's size to a power of their number.
  if (objectives < 2 || v.best.empty() || (objectives > 2 && (v.best.size() > kFront || objectives > 4))) return chart;
  // The worst corner of the charts' ranges, in losses.
  std::vector<double> reference;
  std::string corner;
  for (size_t k = 0; k < objectives; ++k) {
    const double worst = v.up(k) ? v.shown[k].low : v.shown[k].high;
    reference.push_back(v.up(k) ? -worst : worst);
    corner += (k > 0 ? ", " : "") + io::short_number(worst);
  }
  std::vector<std::pair<double, double>> curve;
  if (objectives == 2) {
    curve = areas(v, reference);
  } else {
    std::vector<size_t> ends(v.complete.size());
    for (size_t k = 0; k < ends.size(); ++k) ends[k] = k;
    for (const size_t end : thinned(ends, kCheckpoints)) {
      std::vector<std::vector<double>> losses;
      for (size_t k = 0; k <= end; ++k)
        if (v.feasible[v.complete[k]]) losses.push_back(v.losses(v.complete[k]));
      // Fronts of fewer trials may be longer than the last.
      if (pareto_front(losses).size() > 2 * kFront) continue;
      curve.emplace_back(static_cast<double>(v.trials[v.complete[end]].number), hypervolume(losses, reference));
    }
  }
  if (curve.empty() || !std::isfinite(curve.back().second) || curve.back().second <= 0) return chart;
  chart.caption = fmt::format("Volume that the front dominates, up to ({}): {} after the last trial.", corner,
                              io::short_number(curve.back().second, 6));
  chart.paint = [&v, curve](Canvas& c) {
    draw_title(c, "Hypervolume", kHalf);
    const Frame f{84, 44, kHalf - 20, 334};
    const Axis xs(0, last_number(v), 6, false), ys(0, curve.back().second, 5, true);
    draw_y_axis(c, f, placed(ys), "hypervolume");
    draw_x_axis(c, f, placed(xs), "trial");
    std::vector<Spot> spots;
    for (size_t k = 0; k < curve.size(); ++k) {
      if (k > 0 && k + 1 < curve.size() && curve[k].second == curve[k - 1].second) continue;
      if (!spots.empty()) spots.push_back({f.x(xs.at(curve[k].first)), spots.back().y});
      spots.push_back({f.x(xs.at(curve[k].first)), f.y(ys.at(curve[k].second))});
    }
    c.colour(kBest);
    c.polyline(spots, 2);
    if (spots.size() == 1) c.disc(spots[0].x, spots[0].y, 3);
  };
  return chart;
}

Chart importances_chart(const View& v) {
  Chart chart{"importances", "", kHalf, 0, {}};
  if (!v.forest) return chart;
  struct Bar {
    std::string name;
    double share, deviation;
    bool pair;
  };
  std::vector<Bar> bars;
  std::vector<size_t> among;
  for (const Importance& i : v.importances) {
    if (bars.size() < kRows) bars.push_back({v.setting.space[i.parameter].name, i.share, i.deviation, false});
    if (among.size() < kPairsAmong && i.share > 0.01) among.push_back(i.parameter);
  }
  const size_t left_out = v.importances.size() - bars.size();
  for (const Interaction& i : v.forest->interactions(among))
    if (i.share >= 0.03)
      bars.push_back({v.setting.space[i.first].name + " × " + v.setting.space[i.second].name, i.share, 0, true});
  std::stable_sort(bars.begin(), bars.end(), [](const Bar& a, const Bar& b) { return a.share > b.share; });
  chart.height = 74 + 22 * static_cast<double>(bars.size());
  chart.caption =
      "Share of the variance over the whole space that each parameter explains alone (fANOVA), and pairs beyond that; "
      "lines are "
      "deviations between trees.";
  if (v.setting.objectives() > 1) chart.caption += " Of value 1.";
  if (v.shown[0].beyond > 0) chart.caption += " Values beyond the history's range count as its end.";
  if (left_out > 0) chart.caption += fmt::format(" {} parameters matter less and are left out.", left_out);
  chart.paint = [bars, height = chart.height](Canvas& c) {
    draw_title(c, "Importances", kHalf);
    double longest = bars[0].share, names = 0;
    c.font(12);
    for (const Bar& b : bars) names = std::max(names, std::min(c.width(b.name), 190.0));
    const Frame f{names + 26, 40, kHalf - 70, height - 34};
    const Axis xs(0, std::max(100 * longest, 1.0), 5, true);
    c.colour(io::kGrid);
    for (const io::Tick& t : xs.ticks()) c.line(f.x(xs.at(t.value)), f.top, f.x(xs.at(t.value)), f.bottom, 1);
    for (size_t k = 0; k < bars.size(); ++k) {
      const Bar& b = bars[k];
      const double y = f.top + 22 * static_cast<double>(k), end = f.x(xs.at(100 * b.share));
      c.colour(b.pair ? kPruned : kComplete);
      c.hint(fmt::format("{}: {:.1f} %", b.name, 100 * b.share));
      c.box(f.left, y + 3, std::max(end - f.left, 0.5), 16);
      c.hint("");
      c.font(12);
      c.colour(io::kInk);
      c.text(f.left - 8, y + 15, fitted(c, b.name, 190), 1);
      double after = end;
      if (b.deviation > 0) {
        const double from = f.x(xs.at(100 * (b.share - b.deviation))), to = f.x(xs.at(100 * (b.share + b.deviation)));
        c.line(from, y + 11, to, y + 11, 1.2);
        after = to;
      }
      c.font(11);
      c.colour(io::kMuted);
      c.text(after + 6, y + 15, fmt::format("{:.1f} %", 100 * b.share));
    }
    draw_x_axis(c, f, placed(xs), "");
  };
  return chart;
}

std::vector<Chart> charts(const View& view) {
  std::vector<Chart> list;
  for (size_t k = 0; k < view.setting.objectives(); ++k) list.push_back(history_chart(view, k));
  for (const auto& make :
       {curves_chart, pareto_chart, hypervolume_chart, importances_chart, contour_chart, slices_chart, parallel_chart})
    list.push_back(make(view));
  std::erase_if(list, [](const Chart& c) { return !c.paint; });
  return list;
}

Result<std::vector<std::string>> write_charts(const std::string& folder, const Setting& setting,
                                              const std::vector<Trial>& trials) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kIo, "cannot make the folder '{}': {}", folder, error.message());
  const View view(setting, trials);
  std::vector<std::string> paths;
  for (const Chart& chart : charts(view)) {
    paths.push_back((std::filesystem::path(folder) / (chart.id + ".png")).string());
    DS_TRY(io::draw_file(paths.back(), chart.width, chart.height, chart.paint));
  }
  return paths;
}

}  // namespace deepseek::tune
