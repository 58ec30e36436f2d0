// A study as its charts and its report see it: what counts, what is best, which range of values tells most, which
// parameters matter. Whatever trials hold, positions here are valid and numbers finite. Test: tests/tune/report_test.cc
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/axis.h"
#include "tune/report/importance.h"

namespace deepseek::tune {

// Of an objective: its range without the worst outliers, and whether its logarithm tells more.
struct Shown {
  double low = 0, high = 1;
  bool log = false;
  size_t beyond = 0;  // values that are worse than all of it
  double palest = 1;  // what colours call bad: within the range, nearer to the many
};
// Values must be finite. The best one, by `up` the greatest, is always inside; worse ones than four quartile distances
// beyond the quartile are not.
Shown shown_range(std::vector<double> values, bool up);

struct View {
  // Both must outlive it.
  View(const Setting& setting, const std::vector<Trial>& trials);

  const Setting& setting;
  const std::vector<Trial>& trials;
  std::vector<Point> points;     // of every trial; NaN: not active, or not in the space
  std::vector<size_t> complete;  // positions of complete trials whose values are finite, by number
  std::vector<bool> feasible;    // by trial: of the complete ones, those that keep all constraints
  std::vector<size_t> best;      // one, or the front
  std::vector<Shown> shown;      // by objective
  std::optional<Forest> forest;  // of the first objective
  std::vector<Importance> importances;
  std::string no_importances;      // why there are none
  std::vector<size_t> parameters;  // those with more than one value, by falling importance

  bool up(size_t objective) const { return setting.directions[objective] == Direction::kMaximize; }
  double loss(size_t trial, size_t objective) const;
  std::vector<double> losses(size_t trial) const;
  // "value", or "value 2" of several.
  std::string objective_name(size_t objective) const;
  // 0: as good as the best, 1: as bad as Shown::palest or worse.
  double badness(double value, size_t objective = 0) const;
  io::Axis value_axis(size_t objective, int count) const;
  io::Axis colour_axis(size_t objective, int count) const;  // from the best value to the palest
};

// At most `most` of them, evenly; the first and the last stay.
std::vector<size_t> thinned(const std::vector<size_t>& all, size_t most);
// Where values of a parameter stand on an axis of its unit coordinates.
std::vector<io::Tick> parameter_ticks(const Parameter& parameter, int count);
// A value in few digits; "-" for NaN.
std::string short_value(const Parameter& parameter, double value);
// At most `most` bytes and an ellipsis, whole characters of UTF-8.
std::string shortened(const std::string& text, size_t most);

}  // namespace deepseek::tune
