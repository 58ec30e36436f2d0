// Charts over the space's parameters.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/random.h"
#include "tune/report/chart_parts.h"
#include "tune/report/charts.h"
#include "tune/samplers/surrogate.h"

namespace deepseek::tune {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using io::Axis;
using io::Canvas;
using io::Spot;

namespace {

constexpr double kWide = 1120, kHalf = 550;
constexpr size_t kPanels = 12, kPanelMarks = 500;  // of slices
constexpr size_t kAxes = 14, kPaths = 500;         // of parallel coordinates
constexpr size_t kModelRows = 200, kModelColumns = 12, kModelMarks = 400;
constexpr Index kGrid = 41;  // points per axis that the model is asked for
constexpr int kLevels = 14;

// Sorts so that the best are drawn last, on top.
void best_last(const View& v, std::vector<size_t>& list) {
  std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return v.loss(a, 0) > v.loss(b, 0); });
}

// Evenly by rank, the best among them.
std::vector<size_t> by_rank(const View& v, std::vector<size_t> list, size_t most) {
  best_last(v, list);
  return thinned(list, most);
}

// Same choices don't hide each other: a place within their cell.
double spread(const Parameter& p, double value, int64_t number) {
  const double unit = p.to_unit(value), cells = p.cardinality();
  if (!(cells <= 50)) return unit;
  const double u = deepseek::uniform(hash_of(static_cast<uint64_t>(number), 0x51)) - 0.5;
  return unit + u * 0.5 / cells;
}

void draw_slice(Canvas& c, const View& v, size_t parameter, const std::vector<size_t>& trials, const Marginal* curve,
                const Frame& f, const Axis& ys) {
  const Parameter& p = v.setting.space[parameter];
  draw_y_axis(c, f, placed(ys), "");
  draw_x_axis(c, f, placed(p, 5), "");
  for (const size_t i : trials) {
    const Trial& t = v.trials[i];
    c.tag(t.number);
    c.colour(shade(v.badness(t.values[0])), v.feasible[i] ? 0.8 : 0.3);
    c.disc(f.x(spread(p, v.points[i][parameter], t.number)), f.y(ys.at(t.values[0])), 2.6);
  }
  c.tag(-1);
  if (curve) {
    const double half = 0.4 * (f.right - f.left) / p.cardinality();
    std::vector<Spot> line, band;
    for (size_t k = 0; k < curve->values.size(); ++k) {
      const double x = f.x(p.to_unit(curve->values[k])), mean = curve->mean[k], deviation = curve->deviation[k];
      if (p.numeric()) {
        line.push_back({x, f.y(ys.at(mean))});
        band.push_back({x, f.y(ys.at(mean - deviation))});
        band.insert(band.begin(), {x, f.y(ys.at(mean + deviation))});
        continue;
      }
      const double low = f.y(ys.at(mean - deviation)), high = f.y(ys.at(mean + deviation));
      c.colour(io::kInk, 0.15);
      c.box(x - half, high, 2 * half, low - high);
      c.colour(io::kInk);
      c.line(x - half, f.y(ys.at(mean)), x + half, f.y(ys.at(mean)), 1.6);
    }
    c.colour(io::kInk, 0.15);
    c.polygon(band);
    c.colour(io::kInk);
    c.polyline(line, 1.6);
  }
  if (v.best.empty() || std::isnan(v.points[v.best[0]][parameter])) return;
  const Trial& best = v.trials[v.best[0]];
  c.colour(kBest);
  c.ring(f.x(spread(p, v.points[v.best[0]][parameter], best.number)), f.y(ys.at(best.values[0])), 5, 2);
}

}  // namespace

Chart slices_chart(const View& v) {
  std::vector<size_t> shown = v.parameters;
  if (shown.size() > kPanels) shown.resize(kPanels);
  const size_t columns = std::clamp<size_t>(shown.size(), 2, 4), rows = (shown.size() + columns - 1) / columns;
  Chart chart{"slices", "", kWide, 58 + 226 * static_cast<double>(rows), {}};
  if (v.complete.empty() || shown.empty()) return chart;
  chart.caption = "The value over each parameter, the most important first.";
  if (v.forest)
    chart.caption += " The line is the mean over all other parameters, in grey its deviation between trees.";
  if (shown.size() < v.parameters.size())
    chart.caption += fmt::format(" {} of {} parameters are shown.", shown.size(), v.parameters.size());
  std::vector<Marginal> curves;
  std::vector<std::vector<size_t>> marks;
  for (const size_t p : shown) {
    curves.push_back(v.forest ? v.forest->marginal(p) : Marginal());
    std::vector<size_t> active;
    for (const size_t i : v.complete)
      if (!std::isnan(v.points[i][p])) active.push_back(i);
    marks.push_back(by_rank(v, std::move(active), kPanelMarks));
  }
  chart.paint = [&v, shown, columns, curves, marks](Canvas& c) {
    draw_title(c, "Slices", kWide);
    const Axis ys = v.value_axis(0, 4);
    std::vector<LegendItem> legend;
    if (!v.best.empty()) legend.push_back({Mark::kRing, kBest, "best"});
    if (v.forest) legend.push_back({Mark::kLine, io::kInk, "mean over the others"});
    draw_legend(c, 90, 24, legend);
    std::vector<double> share(v.setting.space.size(), 0);
    for (const Importance& i : v.importances) share[i.parameter] = i.share;
    for (size_t k = 0; k < shown.size(); ++k) {
      const double wide = kWide / static_cast<double>(columns), left = static_cast<double>(k % columns) * wide;
      const double top = 40 + 226 * static_cast<double>(k / columns);
      const Frame f{left + 62, top + 26, left + wide - 16, top + 190};
      std::string name = v.setting.space[shown[k]].name;
      const std::string tail = v.forest ? fmt::format(" · {:.0f} %", 100 * share[shown[k]]) : "";
      c.font(12, true);
      c.colour(io::kInk);
      c.text(f.left, top + 14, fitted(c, name, f.right - f.left - c.width(tail)) + tail);
      draw_slice(c, v, shown[k], marks[k], v.forest ? &curves[k] : nullptr, f, ys);
    }
  };
  return chart;
}

Chart parallel_chart(const View& v) {
  Chart chart{"parallel", "", kWide, 420, {}};
  std::vector<size_t> axes = v.parameters;
  if (axes.size() > kAxes) axes.resize(kAxes);
  std::sort(axes.begin(), axes.end());
  if (v.complete.size() < 2 || axes.empty()) return chart;
  std::vector<size_t> some = by_rank(v, v.complete, kPaths);
  chart.caption = fmt::format("A line per trial, dark where the value is good; {} of {} complete trials", some.size(),
                              v.complete.size());
  chart.caption += axes.size() < v.parameters.size()
                       ? fmt::format(", the {} most important of {} parameters.", axes.size(), v.parameters.size())
                       : std::string(".");
  chart.paint = [&v, axes, some](Canvas& c) {
    draw_title(c, "Parallel coordinates", kWide);
    const size_t n = axes.size() + 1;
    bool inactive = false;
    for (const size_t i : some)
      for (const size_t p : axes) inactive = inactive || std::isnan(v.points[i][p]);
    const double left = 60, right = kWide - 70, room = (right - left) / static_cast<double>(n - 1);
    c.font(12, true);
    bool turned = false;
    for (const size_t p : axes) turned = turned || c.width(v.setting.space[p].name) > room - 10;
    const Frame f{left, turned ? 98.0 : 66.0, right, inactive ? 360.0 : 396.0};
    if (!v.best.empty()) draw_legend(c, 200, 24, {{Mark::kLine, kBest, "best"}});
    const double below = f.bottom + 34;
    const auto x_of = [&](size_t k) {
      return f.left + (f.right - f.left) * static_cast<double>(k) / static_cast<double>(n - 1);
    };
    const Axis values = v.value_axis(0, 6);
    for (const size_t i : some) {
      const Trial& t = v.trials[i];
      std::vector<Spot> spots;
      for (size_t k = 0; k < axes.size(); ++k) {
        const double at = v.points[i][axes[k]];
        spots.push_back({x_of(k), std::isnan(at) ? below : f.y(spread(v.setting.space[axes[k]], at, t.number))});
      }
      spots.push_back({x_of(n - 1), f.y(values.at(t.values[0]))});
      const bool best = !v.best.empty() && i == v.best[0];
      c.tag(t.number);
      c.colour(best ? kBest : shade(v.badness(t.values[0])), best ? 1 : 0.55);
      c.polyline(spots, best ? 2.5 : 1);
    }
    c.tag(-1);
    for (size_t k = 0; k < n; ++k) {
      const double x = x_of(k);
      c.colour(io::kMuted);
      c.line(x, f.top, x, f.bottom, 1);
      const auto ticks = k + 1 < n
                             ? placed(v.setting.space[axes[k]], v.setting.space[axes[k]].kind == Kind::kChoice ? 10 : 5)
                             : placed(values);
      c.font(10);
      for (const auto& [at, text] : ticks) {
        const std::string label = fitted(c, text, std::min(room - 12, 90.0));
        c.colour(io::kWhite, 0.8);
        c.box(x + 3, f.y(at) - 7, c.width(label) + 4, 13);
        c.colour(io::kInk);
        c.line(x - 2, f.y(at), x + 2, f.y(at), 1);
        c.text(x + 5, f.y(at) + 3.5, label);
      }
      c.font(12, true);
      c.colour(io::kInk);
      const std::string name = k + 1 < n ? v.setting.space[axes[k]].name : v.objective_name(0);
      if (turned) {
        c.text(x - 4, f.top - 10, fitted(c, name, 110), 0, -0.35);
      } else {
        c.text(x, f.top - 12, name, 0.5);
      }
    }
    if (!inactive) return;
    c.font(10);
    c.colour(io::kMuted);
    c.text(f.left - 8, below + 4, "inactive", 1);
  };
  return chart;
}

namespace {

// The model's mean over two parameters, the others as in the best trial.
struct Surface {
  size_t x = 0, y = 0;
  MatrixXd values;  // [y, x], in the user's units
};

bool find_surface(const View& v, Surface& s) {
  if (v.best.empty() || v.complete.size() < 8 || !v.forest) return false;
  const Point& best = v.points[v.best[0]];
  std::vector<size_t> two;
  for (const size_t p : v.parameters)
    if (v.setting.space[p].numeric() && !std::isnan(best[p]) && two.size() < 2) two.push_back(p);
  if (two.size() < 2) return false;
  s.x = two[0], s.y = two[1];
  std::vector<size_t> columns = two;
  for (const size_t p : v.parameters)
    if (columns.size() < kModelColumns && p != s.x && p != s.y) columns.push_back(p);

  // Half of the best, half of all.
  std::vector<size_t> order = v.complete;
  best_last(v, order);
  std::vector<size_t> rows = thinned(order, kModelRows / 2);
  rows.insert(rows.end(), order.end() - static_cast<std::ptrdiff_t>(std::min(order.size(), kModelRows / 2)),
              order.end());
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());

  const Encoding encoding(v.setting.space);
  std::vector<bool> choice;
  for (const size_t p : columns) choice.push_back(encoding.choice()[p]);
  const auto encoded = [&](size_t i) {
    const VectorXd whole = encoding.encode(v.points[i]);
    VectorXd part(static_cast<Index>(columns.size()));
    for (size_t k = 0; k < columns.size(); ++k) part[static_cast<Index>(k)] = whole[static_cast<Index>(columns[k])];
    return part;
  };
  const Index n = static_cast<Index>(rows.size());
  MatrixXd x(n, static_cast<Index>(columns.size()));
  std::vector<double> losses;
  for (Index i = 0; i < n; ++i) {
    x.row(i) = encoded(rows[static_cast<size_t>(i)]).transpose();
    losses.push_back(v.loss(rows[static_cast<size_t>(i)], 0));
  }
  const VectorXd y = transformed(losses);
  const GpPrior prior = GpPrior::of(choice);
  const GpHyper start{prior.weight_mean, 0, -4};
  const GaussianProcess model(x, y, choice, GaussianProcess::fit(x, y, choice, prior, start, 40));

  MatrixXd at(kGrid * kGrid, x.cols());
  at.rowwise() = encoded(v.best[0]).transpose();
  for (Index i = 0; i < kGrid; ++i)
    for (Index j = 0; j < kGrid; ++j) {
      at(i * kGrid + j, 0) = static_cast<double>(j) / (kGrid - 1);
      at(i * kGrid + j, 1) = static_cast<double>(i) / (kGrid - 1);
    }
  VectorXd mean, variance;
  model.predict(at, mean, variance);
  if (!mean.allFinite()) return false;

  // Back from transformed losses, piece by piece between those that were seen.
  std::vector<std::pair<double, double>> known;
  for (Index i = 0; i < n; ++i) known.emplace_back(y[i], losses[static_cast<size_t>(i)]);
  std::sort(known.begin(), known.end());
  s.values.resize(kGrid, kGrid);
  for (Index i = 0; i < kGrid * kGrid; ++i) {
    const double m = mean[i];
    const auto after = std::lower_bound(known.begin(), known.end(), std::pair<double, double>(m, -INFINITY));
    double loss = after == known.end() ? known.back().second : after->second;
    if (after != known.begin() && after != known.end() && after->first > (after - 1)->first) {
      const double share = (m - (after - 1)->first) / (after->first - (after - 1)->first);
      loss = (1 - share) * (after - 1)->second + share * after->second;
    }
    s.values(i / kGrid, i % kGrid) = v.up(0) ? -loss : loss;
  }
  return true;
}

}  // namespace

namespace {

// Where a grid's values reach a level, cell by cell (marching squares), whole cells side by side as one.
std::vector<std::vector<Spot>> at_least(const MatrixXd& grid, double level, const Frame& f) {
  std::vector<std::vector<Spot>> areas;
  const double last = static_cast<double>(grid.rows() - 1);
  const auto spot = [&](double i, double j) { return Spot{f.x(j / last), f.y(i / last)}; };
  for (Index i = 0; i + 1 < grid.rows(); ++i) {
    Index from = -1;  // of a run of whole cells
    for (Index j = 0; j < grid.cols(); ++j) {
      const bool inside = j + 1 < grid.cols();
      const Index corners[4][2] = {{i, j}, {i, j + 1}, {i + 1, j + 1}, {i + 1, j}};
      int reached = 0;
      for (const auto& corner : corners) reached += inside && grid(corner[0], corner[1]) >= level;
      if (reached == 4) {
        if (from < 0) from = j;
        continue;
      }
      const double y = static_cast<double>(i), x = static_cast<double>(j);
      if (from >= 0) {
        const double start = static_cast<double>(from);
        areas.push_back({spot(y, start), spot(y, x), spot(y + 1, x), spot(y + 1, start)});
      }
      from = -1;
      if (reached == 0) continue;
      std::vector<Spot> part;
      for (int k = 0; k < 4; ++k) {
        const auto &a = corners[k], &b = corners[(k + 1) % 4];
        const double here = grid(a[0], a[1]), next = grid(b[0], b[1]);
        const double ay = static_cast<double>(a[0]), ax = static_cast<double>(a[1]);
        if (here >= level) part.push_back(spot(ay, ax));
        if ((here >= level) == (next >= level)) continue;
        const double t = (level - here) / (next - here);
        part.push_back(spot(ay + t * static_cast<double>(b[0] - a[0]), ax + t * static_cast<double>(b[1] - a[1])));
      }
      areas.push_back(std::move(part));
    }
  }
  return areas;
}

}  // namespace

Chart contour_chart(const View& v) {
  Chart chart{"contour", "", kHalf, 430, {}};
  Surface s;
  if (!find_surface(v, s)) return chart;
  const Parameter &px = v.setting.space[s.x], &py = v.setting.space[s.y];
  chart.caption =
      "What a Gaussian process expects over the two most important numeric parameters, the others as in the best "
      "trial; dots are trials, whose other parameters may differ.";
  std::vector<size_t> marks;
  for (const size_t i : v.complete)
    if (!std::isnan(v.points[i][s.x]) && !std::isnan(v.points[i][s.y])) marks.push_back(i);
  marks = by_rank(v, std::move(marks), kModelMarks);
  MatrixXd bad = s.values.unaryExpr([&](double value) { return v.badness(value); });
  chart.paint = [&v, &px, &py, s, bad, marks](Canvas& c) {
    draw_title(c, "Contour", kHalf);
    const Frame f{96, 44, 452, 380};
    c.colour(shade(0.5 / kLevels));
    c.box(f.left, f.top, f.right - f.left, f.bottom - f.top);
    for (int k = 1; k < kLevels; ++k) {
      c.colour(shade((k + 0.5) / kLevels));
      c.polygons(at_least(bad, static_cast<double>(k) / kLevels, f));
    }
    for (const size_t i : marks) {
      const double x = f.x(px.to_unit(v.points[i][s.x])), y = f.y(py.to_unit(v.points[i][s.y]));
      c.tag(-1), c.colour(io::kWhite);
      c.disc(x, y, 3.4);
      c.tag(v.trials[i].number), c.colour(shade(v.badness(v.trials[i].values[0])));
      c.disc(x, y, 2.5);
    }
    c.tag(-1);
    c.colour(kBest);
    c.ring(f.x(px.to_unit(v.points[v.best[0]][s.x])), f.y(py.to_unit(v.points[v.best[0]][s.y])), 6, 2.2);
    // Ticks alone: grid lines would cross the surface.
    draw_x_axis(c, f, placed(px, 6), px.name);
    c.font(11);
    double widest = 0;
    for (const auto& [at, label] : placed(py, 6)) {
      c.colour(io::kMuted);
      c.line(f.left - 4, f.y(at), f.left, f.y(at), 1);
      c.text(f.left - 7, f.y(at) + 4, fitted(c, label, 60), 1);
      widest = std::max(widest, std::min(c.width(label), 60.0));
    }
    c.font(12);
    c.colour(io::kInk);
    c.text(f.left - widest - 17, (f.top + f.bottom) / 2, fitted(c, py.name, f.bottom - f.top), 0.5, -M_PI / 2);
    draw_colour_bar(c, {474, 64, 490, 380}, v.colour_axis(0, 6), v.up(0), v.objective_name(0));
  };
  return chart;
}

}  // namespace deepseek::tune
