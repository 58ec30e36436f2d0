// What may be tuned: parameters with ranges or choices, which may depend on another parameter's choice. A point holds
// one number per parameter: the value itself, a choice's position, or NaN where the parameter isn't active. Invariant:
// a point of Space::repaired() and of every sampler is valid by Space::check(). Test: tests/tune/space_test.cc
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace deepseek::tune {

using Point = std::vector<double>;

enum class Kind { kFloat, kInt, kChoice };

// Active only where an earlier parameter, a choice or an int, has one of these values (positions, for a choice).
struct Condition {
  size_t parent;
  std::vector<double> values;
};

struct Parameter {
  std::string name;
  Kind kind = Kind::kFloat;
  double low = 0, high = 1;          // both inside; of a choice 0 and its number less one
  double step = 0;                   // values are low + k * step; 0: any (floats)
  bool log = false;                  // even in the logarithm
  bool ordered = false;              // of a choice: neighbours are alike
  std::vector<std::string> choices;  // as JSON texts
  std::optional<Condition> when;

  // How many values there are; infinity for a float without a step.
  double cardinality() const;
  // Equal steps of the unit interval are alike: [0, 1] <-> [low, high], through the logarithm where `log`. Values with
  // steps, ints and choices are the middles of cells of equal width (in the logarithm, of their own).
  double to_unit(double value) const;
  double from_unit(double unit) const;
  // The k-th of `levels` values, k / (levels - 1) of the way for floats and ints.
  double level(int64_t k, int64_t levels) const;
  // Distances between its values mean something: not so for choices without order.
  bool numeric() const { return kind != Kind::kChoice || ordered; }
  // As JSON text.
  std::string text(double value) const;
};

class Space {
 public:
  Space() = default;
  explicit Space(std::vector<Parameter> parameters);

  // {"name": {"type": "float" | "int" | "choice", "low", "high", "step", "log", "choices", "ordered", "when": {name:
  // value or values}}, ...}, or a list, which is a choice, or a single value, which is one of one. What is not said:
  // type int where low and high are whole, else float; log where low > 0 and high >= 100 low; choices ordered where
  // they are numbers that rise.
  static Result<Space> parse(std::string_view json);
  std::string to_json() const;

  size_t size() const { return parameters_.size(); }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter& operator[](size_t i) const { return parameters_[i]; }
  std::optional<size_t> find(std::string_view name) const;

  bool active(const Point& point, size_t i) const;
  // What is not active becomes NaN, other values are moved to the nearest allowed ones; NaN of active ones becomes the
  // middle of the range.
  Point repaired(Point point) const;
  Status check(const Point& point) const;
  // From a coordinate in [0, 1] per parameter.
  Point from_unit(const std::vector<double>& unit) const;
  // Inactive ones are at 0.5.
  std::vector<double> to_unit(const Point& point) const;

  // {"name": value, ...} of the active parameters.
  std::string text(const Point& point) const;
  // Missing and inactive parameters are NaN; a value that isn't in the space is an error.
  Result<Point> parse_point(std::string_view json) const;

  // Number of different points; infinity where a float has no step.
  double cardinality() const;
  // The points of a grid with `levels` values per float and long int (all of a short one and of choices), in order, up
  // to `limit` of them.
  std::vector<Point> grid(int64_t levels, size_t limit) const;
  std::vector<Point> all(size_t limit) const { return grid(std::numeric_limits<int64_t>::max(), limit); }

 private:
  std::vector<Parameter> parameters_;
};

// Equal points have equal keys.
struct PointHash {
  size_t operator()(const Point& point) const;
};
struct PointEqual {
  bool operator()(const Point& a, const Point& b) const;
};

}  // namespace deepseek::tune
