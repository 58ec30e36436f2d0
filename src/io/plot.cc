#include "io/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "base/strings.h"
#include "io/axis.h"
#include "io/canvas.h"

namespace deepseek::io {
namespace {

// Okabe and Ito's palette: distinct for colour-blind readers too.
constexpr std::array kPalette = {Colour{0.00, 0.45, 0.70}, Colour{0.84, 0.37, 0.00}, Colour{0.00, 0.62, 0.45},
                                 Colour{0.80, 0.47, 0.65}, Colour{0.90, 0.62, 0.00}, Colour{0.34, 0.71, 0.91}};

Status check_labels(const std::string& path, const std::vector<std::string>& labels) {
  for (const std::string& label : labels)
    if (first_invalid_utf8(label) < label.size()) return invalid("[plot] '{}': labels must be UTF-8", path);
  return {};
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
};

bool drawable(double v) { return std::isfinite(v) && std::abs(v) < 1e300; }

void draw_series(Canvas& canvas, const Series& s, Colour colour, const std::function<double(double)>& px,
                 const std::function<double(double)>& py) {
  canvas.colour(colour);
  const auto fine = [&](size_t i) { return i < s.xs.size() && drawable(s.xs[i]) && drawable(s.ys[i]); };
  const bool few = s.xs.size() <= 40;
  std::vector<Spot> run;
  for (size_t i = 0; i < s.xs.size(); ++i) {
    if (!fine(i)) continue;
    run.push_back({px(s.xs[i]), py(s.ys[i])});
    const bool last = !fine(i + 1);
    if (few || (last && run.size() == 1)) canvas.disc(run.back().x, run.back().y, 3);
    if (!last) continue;
    canvas.polyline(run, 2);
    run.clear();
  }
}

}  // namespace

Status line_chart(const std::string& path, const std::string& title, const std::string& x_label,
                  const std::string& y_label, const std::vector<Series>& series) {
  Range xr, yr;
  for (const Series& s : series) {
    if (s.xs.size() != s.ys.size()) {
      return invalid("[plot] series '{}' has {} x values and {} y values", s.name, s.xs.size(), s.ys.size());
    }
    for (size_t i = 0; i < s.xs.size(); ++i) {
      if (!drawable(s.xs[i]) || !drawable(s.ys[i])) continue;
      xr.add(s.xs[i]);
      yr.add(s.ys[i]);
    }
  }
  if (xr.low > xr.high) return invalid("[plot] '{}': the series hold no finite point", path);
  std::vector<std::string> labels = {title, x_label, y_label};
  for (const Series& s : series) labels.push_back(s.name);
  DS_TRY(check_labels(path, labels));
  const double width = 800, height = 480;
  return draw_file(path, width, height, [&](Canvas& canvas) {
    const Axis xa(xr.low, xr.high, 8, false), ya(yr.low, yr.high, 6, true);
    canvas.font(12);
    double label_width = 0;
    for (const Tick& tick : ya.ticks()) label_width = std::max(label_width, canvas.width(tick.label));
    const bool legend = series.size() > 1;
    const double left = 48 + label_width, right = width - 28, top = legend ? 84 : 60, bottom = height - 62;
    const auto px = [&](double v) { return left + xa.at(v) * (right - left); };
    const auto py = [&](double v) { return bottom - ya.at(v) * (bottom - top); };

    canvas.colour(kInk);
    canvas.font(18, true);
    canvas.text(left, 36, title);
    canvas.font(12);
    for (const Tick& tick : ya.ticks()) {
      const double y = std::round(py(tick.value)) + 0.5;
      canvas.colour(kGrid);
      canvas.line(left, y, right, y, 1);
      canvas.colour(kMuted);
      canvas.text(left - 8, y + 4, tick.label, 1);
    }
    canvas.colour(kMuted);
    for (const Tick& tick : xa.ticks()) {
      const double x = std::round(px(tick.value)) + 0.5;
      canvas.line(x, bottom, x, bottom + 5, 1);
      canvas.text(x, bottom + 20, tick.label, 0.5);
    }
    canvas.line(left, std::round(bottom) + 0.5, right, std::round(bottom) + 0.5, 1);
    canvas.font(13);
    canvas.colour(kInk);
    canvas.text((left + right) / 2, height - 16, x_label, 0.5);
    canvas.text(22, (top + bottom) / 2, y_label, 0.5, -M_PI / 2);

    double legend_x = left;
    for (size_t i = 0; i < series.size(); ++i) {
      const Colour colour = kPalette[i % kPalette.size()];
      draw_series(canvas, series[i], colour, px, py);
      if (!legend) continue;
      canvas.font(13);
      canvas.colour(colour);
      canvas.line(legend_x, 59, legend_x + 20, 59, 3);
      canvas.colour(kInk);
      canvas.text(legend_x + 27, 63, series[i].name);
      legend_x += 27 + canvas.width(series[i].name) + 24;
    }
  });
}

Status confusion_matrix_chart(const std::string& path, const std::string& title,
                              const std::vector<std::string>& class_names, std::span<const int64_t> counts) {
  const size_t n = class_names.size();
  if (n == 0 || n > 100) return invalid("[plot] a confusion matrix takes 1 to 100 classes, got {}", n);
  if (counts.size() != n * n) {
    return invalid("[plot] {} classes need {} counts, got {}", n, n * n, counts.size());
  }
  double total = 0, right_total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] < 0) return invalid("[plot] counts[{}] is {}, expected 0 or more", i, counts[i]);
    total += static_cast<double>(counts[i]);
    if (i / n == i % n) right_total += static_cast<double>(counts[i]);
  }
  const double cell = std::clamp(560.0 / static_cast<double>(n), 14.0, 80.0), side = cell * static_cast<double>(n);
  // Names are measured before the page is made; 7.2 points per character is an upper bound for most at size 12.
  size_t longest = 0;
  for (const std::string& name : class_names) longest = std::max(longest, name.size());
  const double names = std::min(7.2 * static_cast<double>(longest) + 12, 220.0), left = names + 44, top = 74;
  const double width = std::max(left + side + 30, 440.0), height = top + side + names * 0.75 + 56;
  DS_TRY(check_labels(path, {title}));
  DS_TRY(check_labels(path, class_names));
  return draw_file(path, width, height, [&](Canvas& canvas) {
    canvas.colour(kInk);
    canvas.font(18, true);
    canvas.text(24, 34, title);
    canvas.font(12);
    canvas.colour(kMuted);
    canvas.text(24, 54,
                total > 0 ? fmt::format("{:.0f} of {:.0f} correct ({:.2f} %); shading: share of the row", right_total,
                                        total, 100 * right_total / total)
                          : std::string("no samples"));
    const double number_size = std::min(12.0, cell * 0.28 + 2);
    for (size_t row = 0; row < n; ++row) {
      double sum = 0;
      for (size_t c = 0; c < n; ++c) sum += static_cast<double>(counts[row * n + c]);
      const double y = top + cell * static_cast<double>(row);
      for (size_t c = 0; c < n; ++c) {
        const int64_t count = counts[row * n + c];
        const double share = sum > 0 ? static_cast<double>(count) / sum : 0, x = left + cell * static_cast<double>(c);
        // The square root lets small confusions show.
        const double depth = std::sqrt(share);
        canvas.colour({0.965 - 0.93 * depth, 0.97 - 0.62 * depth, 0.98 - 0.36 * depth});
        canvas.box(x + 0.5, y + 0.5, cell - 1, cell - 1);
        if (cell < 24 || count == 0) continue;
        canvas.font(number_size, row == c);
        canvas.colour(depth > 0.55 ? kWhite : kInk);
        canvas.text(x + cell / 2, y + cell / 2 + number_size * 0.36, std::to_string(count), 0.5);
      }
      const double size = std::min(12.0, cell * 0.8), middle = cell / 2 + size * 0.36;
      canvas.font(size);
      canvas.colour(kInk);
      canvas.text(left - 8, y + middle, class_names[row], 1);
      canvas.text(left + cell * static_cast<double>(row) + middle, top + side + 12, class_names[row], 1, -M_PI / 4);
    }
    canvas.font(13);
    canvas.colour(kMuted);
    canvas.text(left + side / 2, height - 16, "Predicted", 0.5);
    canvas.text(22, top + side / 2, "True", 0.5, -M_PI / 2);
  });
}

}  // namespace deepseek::io
