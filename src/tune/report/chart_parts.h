// What charts of studies are made of: colours, frames with axes, legends. Test: tests/tune/report_test.cc
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/axis.h"
#include "io/canvas.h"
#include "tune/space.h"

namespace deepseek::tune {

constexpr io::Colour kBest{0.84, 0.37, 0.00}, kComplete{0.26, 0.52, 0.77}, kPruned{0.90, 0.62, 0.00},
    kFailed{0.78, 0.13, 0.17}, kPale{0.80, 0.83, 0.87};

// From dark (best, 0) to pale (worst, 1) blue: its lightness rises evenly, for colour-blind readers too.
io::Colour shade(double badness);

// Cut off at the end, with an ellipsis, where it is wider in the canvas's font.
std::string fitted(const io::Canvas& canvas, const std::string& text, double width);

// A rectangle of a chart, and where values lie in it. What lies outside is moved to its edge.
struct Frame {
  double left, top, right, bottom;
  double x(double share) const;
  double y(double share) const;
};

// Lines and labels at ticks; numbers that would overlap are left out, words cut off.
void draw_x_axis(io::Canvas& canvas, const Frame& frame, const std::vector<std::pair<double, std::string>>& ticks,
                 const std::string& label);
void draw_y_axis(io::Canvas& canvas, const Frame& frame, const std::vector<std::pair<double, std::string>>& ticks,
                 const std::string& label);
// Ticks with their places in [0, 1].
std::vector<std::pair<double, std::string>> placed(const io::Axis& axis);
std::vector<std::pair<double, std::string>> placed(const Parameter& parameter, int count);

void draw_title(io::Canvas& canvas, const std::string& title, double width);
// Of badness, dark at the best end.
void draw_colour_bar(io::Canvas& canvas, const Frame& frame, const io::Axis& axis, bool up, const std::string& label);
void draw_cross(io::Canvas& canvas, double x, double y, double radius);

enum class Mark { kDisc, kRing, kCross, kLine, kDashes };
struct LegendItem {
  Mark mark;
  io::Colour colour;
  std::string name;
};
void draw_legend(io::Canvas& canvas, double x, double y, const std::vector<LegendItem>& items);

}  // namespace deepseek::tune
