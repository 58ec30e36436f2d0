// Axes of charts: a range, even or in the logarithm, and where its ticks stand. Test: tests/io/canvas_test.cc
#pragma once

#include <string>
#include <vector>

namespace deepseek::io {

struct Tick {
  double value;
  std::string label;
};

// Short: 0.001, 25, 1e-5, 3.2e6; what is below 0.001 with an exponent.
std::string short_number(double value, int digits = 4);

class Axis {
 public:
  // Ticks at 1, 2 or 5 times a power of ten, about `count` of them; `widen` moves the ends out to whole ticks. An empty
  // range gets room around it. A logarithmic one must start above 0.
  Axis(double low, double high, int count, bool widen, bool log = false);

  // 0 at the low end, 1 at the high one; outside both beyond.
  double at(double value) const;
  double low() const { return low_; }
  double high() const { return high_; }
  bool log() const { return log_; }
  const std::vector<Tick>& ticks() const { return ticks_; }

 private:
  void add_even_ticks(int count, bool widen);
  void add_log_ticks(int count, bool widen);

  double low_, high_;
  bool log_;
  std::vector<Tick> ticks_;
};

}  // namespace deepseek::io
