#include "io/plot.h"

#include <cairo-svg.h>
#include <cairo.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string_view>

#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

constexpr double kPixelsPerPoint = 2.0;
constexpr const char* kFont = "sans-serif";

struct Colour {
  double r, g, b;
};
constexpr Colour kInk{0.13, 0.15, 0.18}, kMuted{0.40, 0.43, 0.47}, kGrid{0.90, 0.91, 0.92}, kWhite{1, 1, 1};
// Okabe and Ito's palette: distinct for colour-blind readers too.
constexpr std::array kPalette = {Colour{0.00, 0.45, 0.70}, Colour{0.84, 0.37, 0.00}, Colour{0.00, 0.62, 0.45},
                                 Colour{0.80, 0.47, 0.65}, Colour{0.90, 0.62, 0.00}, Colour{0.34, 0.71, 0.91}};

class Canvas {
 public:
  explicit Canvas(cairo_t* cr) : cr_(cr) {
    colour(kWhite);
    cairo_paint(cr_);
  }
  cairo_t* cr() const { return cr_; }
  void colour(Colour c) const { cairo_set_source_rgb(cr_, c.r, c.g, c.b); }
  void font(double size, bool bold = false) const {
    cairo_select_font_face(cr_, kFont, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr_, size);
  }
  double width(const std::string& text) const {
    cairo_text_extents_t e;
    cairo_text_extents(cr_, text.c_str(), &e);
    return e.x_advance;
  }
  // x at the text's left (align 0), middle (0.5) or right (1); y at its baseline; turned by `angle` about (x, y).
  void text(double x, double y, const std::string& text, double align = 0, double angle = 0) const {
    cairo_save(cr_);
    cairo_translate(cr_, x, y);
    cairo_rotate(cr_, angle);
    cairo_move_to(cr_, -align * width(text), 0);
    cairo_show_text(cr_, text.c_str());
    cairo_restore(cr_);
  }
  void line(double x0, double y0, double x1, double y1, double thickness) const {
    cairo_set_line_width(cr_, thickness);
    cairo_move_to(cr_, x0, y0);
    cairo_line_to(cr_, x1, y1);
    cairo_stroke(cr_);
  }
  void box(double x, double y, double w, double h) const {
    cairo_rectangle(cr_, x, y, w, h);
    cairo_fill(cr_);
  }

 private:
  cairo_t* cr_;
};

bool ends_with(std::string_view text, std::string_view end) { return text.ends_with(end); }

cairo_status_t append(void* closure, const unsigned char* data, unsigned length) {
  static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

// Runs `paint` on a white page of width x height points and stores it.
Status draw(const std::string& path, double width, double height, const std::function<void(const Canvas&)>& paint) {
  const bool svg = ends_with(path, ".svg");
  if (!svg && !ends_with(path, ".png")) return invalid("[plot] '{}': the name must end in .png or .svg", path);
  std::string bytes;
  cairo_surface_t* surface =
      svg ? cairo_svg_surface_create_for_stream(append, &bytes, width, height)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(width * kPixelsPerPoint),
                                       static_cast<int>(height * kPixelsPerPoint));
  cairo_t* cr = cairo_create(surface);
  if (!svg) cairo_scale(cr, kPixelsPerPoint, kPixelsPerPoint);
  paint(Canvas(cr));
  cairo_status_t state = cairo_status(cr);
  cairo_destroy(cr);
  if (state == CAIRO_STATUS_SUCCESS && !svg) state = cairo_surface_write_to_png_stream(surface, append, &bytes);
  cairo_surface_finish(surface);
  if (state == CAIRO_STATUS_SUCCESS) state = cairo_surface_status(surface);
  cairo_surface_destroy(surface);
  if (state == CAIRO_STATUS_INVALID_STRING) return invalid("[plot] '{}': labels must be UTF-8", path);
  if (state != CAIRO_STATUS_SUCCESS) {
    return make_error(ErrorCode::kIo, "[plot] cannot draw '{}': {}", path, cairo_status_to_string(state));
  }
  return write_file_atomic(path, std::as_bytes(std::span(bytes)));
}

struct Axis {
  double low, high, step;
  int decimals;
  bool scientific;

  std::string label(double value) const {
    if (std::abs(value) < step * 1e-6) return "0";
    return scientific ? fmt::format("{:.3g}", value) : fmt::format("{:.{}f}", value, decimals);
  }
};

// Ticks at 1, 2 or 5 times a power of ten, about `count` of them. `widen` moves the ends out to whole ticks.
Axis nice_axis(double low, double high, int count, bool widen) {
  if (high <= low) {
    const double around = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= around;
    high += around;
  }
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  const double part = raw / power;
  const double step = (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10) * power;
  if (widen) {
    low = std::floor(low / step + 1e-9) * step;
    high = std::ceil(high / step - 1e-9) * step;
  }
  const double largest = std::max(std::abs(low), std::abs(high));
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  return {low, high, step, decimals, largest >= 1e7 || decimals > 5};
}

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
};

bool drawable(double v) { return std::isfinite(v) && std::abs(v) < 1e300; }

void draw_series(const Canvas& canvas, const Series& s, Colour colour, const std::function<double(double)>& px,
                 const std::function<double(double)>& py) {
  cairo_t* cr = canvas.cr();
  canvas.colour(colour);
  cairo_set_line_width(cr, 2);
  cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
  cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
  const auto fine = [&](size_t i) { return i < s.xs.size() && drawable(s.xs[i]) && drawable(s.ys[i]); };
  const bool few = s.xs.size() <= 40;
  for (size_t i = 0; i < s.xs.size(); ++i) {
    if (!fine(i)) continue;
    const bool joined = i > 0 && fine(i - 1);
    if (joined) {
      cairo_line_to(cr, px(s.xs[i]), py(s.ys[i]));
    } else {
      cairo_move_to(cr, px(s.xs[i]), py(s.ys[i]));
    }
    if (!fine(i + 1)) cairo_stroke(cr);
  }
  for (size_t i = 0; i < s.xs.size(); ++i) {
    const bool alone = !(i > 0 && fine(i - 1)) && !fine(i + 1);
    if (!fine(i) || !(few || alone)) continue;
    cairo_arc(cr, px(s.xs[i]), py(s.ys[i]), 3, 0, 2 * M_PI);
    cairo_fill(cr);
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
  const double width = 800, height = 480;
  return draw(path, width, height, [&](const Canvas& canvas) {
    const Axis xa = nice_axis(xr.low, xr.high, 8, false), ya = nice_axis(yr.low, yr.high, 6, true);
    canvas.font(12);
    double label_width = 0;
    for (double v = ya.low; v <= ya.high + ya.step / 2; v += ya.step) {
      label_width = std::max(label_width, canvas.width(ya.label(v)));
    }
    const bool legend = series.size() > 1;
    const double left = 48 + label_width, right = width - 28, top = legend ? 84 : 60, bottom = height - 62;
    const auto px = [&](double v) { return left + (v - xa.low) / (xa.high - xa.low) * (right - left); };
    const auto py = [&](double v) { return bottom - (v - ya.low) / (ya.high - ya.low) * (bottom - top); };

    canvas.colour(kInk);
    canvas.font(18, true);
    canvas.text(left, 36, title);
    canvas.font(12);
    for (int64_t k = 0; ya.low + static_cast<double>(k) * ya.step <= ya.high + ya.step / 2; ++k) {
      const double v = ya.low + static_cast<double>(k) * ya.step, y = std::round(py(v)) + 0.5;
      canvas.colour(kGrid);
      canvas.line(left, y, right, y, 1);
      canvas.colour(kMuted);
      canvas.text(left - 8, y + 4, ya.label(v), 1);
    }
    canvas.colour(kMuted);
    for (double k = std::ceil(xa.low / xa.step - 1e-9); k * xa.step <= xa.high + xa.step * 1e-9; ++k) {
      const double v = k * xa.step, x = std::round(px(v)) + 0.5;
      canvas.line(x, bottom, x, bottom + 5, 1);
      canvas.text(x, bottom + 20, xa.label(v), 0.5);
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
  return draw(path, width, height, [&](const Canvas& canvas) {
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
