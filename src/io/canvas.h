// One drawing, two outputs: charts paint on a Canvas, which is an SVG text or, by cairo, a picture. An SVG's text stays
// text, its numbers have one decimal, and marks may say what they stand for. Units are points, y grows downwards. Test:
// tests/io/canvas_test.cc
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace deepseek::io {

struct Colour {
  double r, g, b;
  bool operator==(const Colour&) const = default;
};
constexpr Colour kInk{0.13, 0.15, 0.18}, kMuted{0.40, 0.43, 0.47}, kGrid{0.90, 0.91, 0.92}, kWhite{1, 1, 1};

struct Spot {
  double x, y;
};

class Canvas {
 public:
  virtual ~Canvas() = default;

  // For what is drawn from here on.
  void colour(Colour c, double opacity = 1) { colour_ = c, opacity_ = opacity; }
  void font(double size, bool bold = false) { size_ = size, bold_ = bold; }
  void dashes(double on, double off) { on_ = on, off_ = off; }  // of lines; 0: none
  // What marks stand for: as data-t of the SVG's elements, for scripts. Negative: nothing.
  void tag(int64_t number) { tag_ = number; }
  // Told where a pointer rests on the SVG's next marks; empty: nothing.
  void hint(std::string text) { hint_ = std::move(text); }

  // In the current font, as cairo measures it.
  double width(std::string_view text) const;
  // x at the text's left (align 0), middle (0.5) or right (1); y at its baseline; turned by `angle` (radians) about (x,
  // y).
  virtual void text(double x, double y, const std::string& text, double align = 0, double angle = 0) = 0;
  virtual void polyline(std::span<const Spot> spots, double thickness) = 0;  // round joins and ends
  // Filled; as one area, so that no seam shows between those that touch.
  virtual void polygons(std::span<const std::vector<Spot>> list) = 0;
  virtual void box(double x, double y, double w, double h) = 0;  // filled
  virtual void disc(double x, double y, double radius) = 0;      // filled
  void polygon(std::vector<Spot> spots) { polygons(std::span(&spots, 1)); }
  void line(double x0, double y0, double x1, double y1, double thickness);
  void ring(double x, double y, double radius, double thickness);

 protected:
  Colour colour_ = kInk;
  double opacity_ = 1, size_ = 12, on_ = 0, off_ = 0;
  bool bold_ = false;
  int64_t tag_ = -1;
  std::string hint_;
};

using Paint = std::function<void(Canvas&)>;

// <svg ...>...</svg> on white, for a page or a file. What isn't UTF-8 in texts becomes U+FFFD.
std::string draw_svg(double width, double height, const Paint& paint);
// A PNG's bytes, of 2 pixels per point. Errors: kIo (cairo's reason).
Result<std::string> draw_png(double width, double height, const Paint& paint);
// Either, by the name's ending .svg or .png. Files appear whole or not at all. Errors: kInvalidArgument (another
// ending), kIo.
Status draw_file(const std::string& path, double width, double height, const Paint& paint);

}  // namespace deepseek::io
