#include "tune/report/chart_parts.h"

#include <algorithm>
#include <cmath>

#include "tune/report/view.h"

namespace deepseek::tune {

using io::Canvas;
using io::Colour;

Colour shade(double badness) {
  static constexpr Colour kAnchors[] = {{0.03, 0.17, 0.40}, {0.10, 0.40, 0.68}, {0.38, 0.65, 0.83}, {0.74, 0.83, 0.92}};
  const double at = std::clamp(badness, 0.0, 1.0) * 3;
  const size_t k = std::min<size_t>(static_cast<size_t>(at), 2);
  const double t = at - static_cast<double>(k);
  const Colour &a = kAnchors[k], &b = kAnchors[k + 1];
  return {a.r + t * (b.r - a.r), a.g + t * (b.g - a.g), a.b + t * (b.b - a.b)};
}

std::string fitted(const Canvas& canvas, const std::string& text, double width) {
  if (text.size() < 400 && canvas.width(text) <= width) return text;
  std::string cut = text.substr(0, 400);
  while (!cut.empty() && canvas.width(cut + "…") > width) {
    while (cut.size() > 1 && (static_cast<unsigned char>(cut.back()) & 0xc0) == 0x80) cut.pop_back();
    cut.pop_back();
  }
  return cut + "…";
}

double Frame::x(double share) const { return left + std::clamp(share, 0.0, 1.0) * (right - left); }
double Frame::y(double share) const { return bottom - std::clamp(share, 0.0, 1.0) * (bottom - top); }

void draw_x_axis(Canvas& canvas, const Frame& f, const std::vector<std::pair<double, std::string>>& ticks,
                 const std::string& label) {
  canvas.font(11);
  canvas.colour(io::kMuted);
  canvas.line(f.left, f.bottom, f.right, f.bottom, 1);
  double free_from = -1e9;
  for (const auto& [at, text] : ticks) {
    const double x = f.x(at);
    canvas.line(x, f.bottom, x, f.bottom + 4, 1);
    const double room = (f.right - f.left) / static_cast<double>(std::max<size_t>(ticks.size(), 1)) * 0.95;
    const bool number = !text.empty() && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9'));
    const std::string shown = number ? text : fitted(canvas, text, std::max(room, 30.0));
    const double half = canvas.width(shown) / 2;
    if (x - half < free_from) continue;
    canvas.text(x, f.bottom + 16, shown, 0.5);
    free_from = x + half + 5;
  }
  if (label.empty()) return;
  canvas.font(12);
  canvas.colour(io::kInk);
  canvas.text((f.left + f.right) / 2, f.bottom + 34, fitted(canvas, label, f.right - f.left), 0.5);
}

void draw_y_axis(Canvas& canvas, const Frame& f, const std::vector<std::pair<double, std::string>>& ticks,
                 const std::string& label) {
  canvas.font(11);
  double widest = 0;
  for (const auto& [at, text] : ticks) {
    const double y = f.y(at);
    canvas.colour(io::kGrid);
    canvas.line(f.left, y, f.right, y, 1);
    canvas.colour(io::kMuted);
    const std::string shown = fitted(canvas, text, 90);
    canvas.text(f.left - 6, y + 4, shown, 1);
    widest = std::max(widest, canvas.width(shown));
  }
  if (label.empty()) return;
  canvas.font(12);
  canvas.colour(io::kInk);
  canvas.text(f.left - widest - 16, (f.top + f.bottom) / 2, fitted(canvas, label, f.bottom - f.top), 0.5, -M_PI / 2);
}

std::vector<std::pair<double, std::string>> placed(const io::Axis& axis) {
  std::vector<std::pair<double, std::string>> list;
  for (const io::Tick& t : axis.ticks()) list.emplace_back(axis.at(t.value), t.label);
  return list;
}

std::vector<std::pair<double, std::string>> placed(const Parameter& parameter, int count) {
  std::vector<std::pair<double, std::string>> list;
  for (const io::Tick& t : parameter_ticks(parameter, count)) list.emplace_back(parameter.to_unit(t.value), t.label);
  return list;
}

void draw_title(Canvas& canvas, const std::string& title, double width) {
  canvas.font(15, true);
  canvas.colour(io::kInk);
  canvas.text(14, 24, fitted(canvas, title, width - 28));
}

void draw_colour_bar(Canvas& canvas, const Frame& f, const io::Axis& axis, bool up, const std::string& label) {
  constexpr int kSteps = 40;
  for (int k = 0; k < kSteps; ++k) {
    const double share = (k + 0.5) / kSteps, height = (f.bottom - f.top) / kSteps;
    canvas.colour(shade(up ? 1 - share : share));
    // A little more than its part, under the next: no seams.
    canvas.box(f.left, f.y((k + 1.0) / kSteps), f.right - f.left, k == 0 ? height : height + 0.6);
  }
  canvas.font(11);
  canvas.colour(io::kMuted);
  for (const io::Tick& t : axis.ticks()) {
    if (axis.at(t.value) < -0.001 || axis.at(t.value) > 1.001) continue;
    canvas.line(f.right, f.y(axis.at(t.value)), f.right + 3, f.y(axis.at(t.value)), 1);
    canvas.text(f.right + 6, f.y(axis.at(t.value)) + 4, t.label);
  }
  canvas.colour(io::kInk);
  canvas.text(f.left, f.top - 8, label);
}

void draw_cross(Canvas& canvas, double x, double y, double r) {
  const io::Spot spots[] = {{x - r, y - r}, {x + r, y + r}, {x, y}, {x - r, y + r}, {x + r, y - r}};
  canvas.polyline(spots, 1.4);
}

void draw_legend(Canvas& canvas, double x, double y, const std::vector<LegendItem>& items) {
  canvas.font(12);
  for (const LegendItem& item : items) {
    canvas.colour(item.colour);
    const double middle = y - 4;
    switch (item.mark) {
      case Mark::kDisc: canvas.disc(x + 8, middle, 4); break;
      case Mark::kRing: canvas.ring(x + 8, middle, 4, 1.4); break;
      case Mark::kCross: draw_cross(canvas, x + 8, middle, 3.5); break;
      case Mark::kLine: canvas.line(x, middle, x + 16, middle, 2.5); break;
      case Mark::kDashes:
        canvas.dashes(4, 4);
        canvas.line(x, middle, x + 16, middle, 2);
        canvas.dashes(0, 0);
        break;
    }
    canvas.colour(io::kInk);
    canvas.text(x + 21, y, item.name);
    x += 21 + canvas.width(item.name) + 18;
  }
}

}  // namespace deepseek::tune
