// Transforms of numbers and booleans, each row of its own.
#include <cmath>
#include <limits>

#include "features/primitives.h"

namespace deepseek::features {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double add(double a, double b) { return a + b; }
double subtract(double a, double b) { return a - b; }
double multiply(double a, double b) { return a * b; }
double divide(double a, double b) { return a / b; }
double modulo(double a, double b) {  // with the sign of b, as NumPy's
  const double m = std::fmod(a, b);
  return m != 0 && (m < 0) != (b < 0) ? m + b : m;
}
double subtract_from(double x, double a) { return a - x; }
double divide_of(double x, double a) { return a / x; }
double modulo_of(double x, double a) { return modulo(a, x); }

double absolute(double x) { return std::fabs(x); }
double negate(double x) { return -x; }
double square_root(double x) { return std::sqrt(x); }
double logarithm(double x) { return std::log(x); }
double sine(double x) { return std::sin(x); }
double cosine(double x) { return std::cos(x); }
double tangent(double x) { return std::tan(x); }

// A missing value is neither greater, less nor equal.
double greater(double a, double b) { return a > b ? 1 : 0; }
double greater_equal(double a, double b) { return a >= b ? 1 : 0; }
double less(double a, double b) { return a < b ? 1 : 0; }
double less_equal(double a, double b) { return a <= b ? 1 : 0; }
double equal(double a, double b) { return a == b ? 1 : 0; }
double not_equal(double a, double b) { return a == b ? 0 : 1; }
double is_null(double x) { return std::isnan(x) ? 1 : 0; }

double negation(double x) { return std::isnan(x) ? kNan : x == 0 ? 1 : 0; }
// Three-valued (Kleene): false and missing is false.
double both(double a, double b) { return a == 0 || b == 0 ? 0 : std::isnan(a) || std::isnan(b) ? kNan : 1; }
double either(double a, double b) {
  return (!std::isnan(a) && a != 0) || (!std::isnan(b) && b != 0) ? 1 : std::isnan(a) || std::isnan(b) ? kNan : 0;
}

}  // namespace

void add_arithmetic(std::vector<Primitive>& list) {
  const Wants number{.tags = kNumeric}, date{Logical::kDatetime}, any;
  const std::vector<std::vector<Wants>> one = {{number}}, two = {{number, number}},
                                        compared = {{number, number}, {date, date}};
  const auto unary = [&](const char* name, const char* doc, Schema output, Map map) {
    list.push_back({.name = name, .doc = doc, .inputs = one, .output = output, .missing = kNan, .map = map});
  };
  unary("absolute", "absolute value", kNumber, each<absolute>);
  unary("negate", "the number with the other sign", kNumber, each<negate>);
  list.back().infix = "-";
  unary("square_root", "square root", kDoubleNumber, each<square_root>);
  unary("natural_logarithm", "natural logarithm", kDoubleNumber, each<logarithm>);
  unary("sine", "sine", kDoubleNumber, each<sine>);
  unary("cosine", "cosine", kDoubleNumber, each<cosine>);
  unary("tangent", "tangent", kDoubleNumber, each<tangent>);

  const auto binary = [&](const char* name, const char* doc, const char* infix, bool commutative, Schema output,
                          Map map, const std::vector<std::vector<Wants>>& inputs) {
    list.push_back({.name = name,
                    .doc = doc,
                    .inputs = inputs,
                    .output = output,
                    .missing = kNan,
                    .map = map,
                    .infix = infix,
                    .commutative = commutative});
  };
  binary("add_numeric", "sum of two numbers", "+", true, kNumber, each<add>, two);
  binary("subtract_numeric", "difference of two numbers", "-", true, kNumber, each<subtract>, two);
  binary("multiply_numeric", "product of two numbers", "*", true, kNumber, each<multiply>, two);
  binary("divide_numeric", "quotient of two numbers", "/", false, kNumber, each<divide>, two);
  binary("modulo_numeric", "remainder of two numbers", "%", false, kNumber, each<modulo>, two);
  binary("greater_than", "whether a > b", ">", false, kMaybe, each<greater>, compared);
  binary("greater_than_equal_to", "whether a >= b", ">=", false, kMaybe, each<greater_equal>, compared);
  binary("less_than", "whether a < b", "<", false, kMaybe, each<less>, compared);
  binary("less_than_equal_to", "whether a <= b", "<=", false, kMaybe, each<less_equal>, compared);
  binary("equal", "whether a = b", "=", true, kMaybe, each<equal>, {{any, any}});
  list.back().compares_words = true;
  binary("not_equal", "whether a and b differ, or one is missing", "!=", true, kMaybe, each<not_equal>, {{any, any}});
  list.back().compares_words = true;

  const auto scalar = [&](const char* name, const char* doc, const char* infix, double value, Schema output, Map map) {
    list.push_back({.name = name,
                    .doc = doc,
                    .inputs = one,
                    .output = output,
                    .parameters = {{"value", value}},
                    .missing = kNan,
                    .map = map,
                    .infix = infix});
  };
  scalar("add_numeric_scalar", "x + value", "+", 0, kNumber, each_with<add>);
  scalar("subtract_numeric_scalar", "x - value", "-", 0, kNumber, each_with<subtract>);
  scalar("multiply_numeric_scalar", "x * value", "*", 1, kNumber, each_with<multiply>);
  scalar("divide_numeric_scalar", "x / value", "/", 1, kNumber, each_with<divide>);
  scalar("modulo_numeric_scalar", "remainder of x / value", "%", 1, kNumber, each_with<modulo>);
  scalar("greater_than_scalar", "whether x > value", ">", 0, kMaybe, each_with<greater>);
  scalar("greater_than_equal_to_scalar", "whether x >= value", ">=", 0, kMaybe, each_with<greater_equal>);
  scalar("less_than_scalar", "whether x < value", "<", 0, kMaybe, each_with<less>);
  scalar("less_than_equal_to_scalar", "whether x <= value", "<=", 0, kMaybe, each_with<less_equal>);
  scalar("scalar_subtract_numeric_feature", "value - x", "value -", 0, kNumber, each_with<subtract_from>);
  scalar("divide_by_feature", "value / x", "value /", 1, kNumber, each_with<divide_of>);
  scalar("modulo_by_feature", "remainder of value / x", "value %", 1, kNumber, each_with<modulo_of>);

  list.push_back({.name = "is_null",
                  .doc = "whether the value is missing",
                  .inputs = {{any}},
                  .output = kTruth,
                  .missing = kNan,
                  .map = each<is_null>});
  const Wants boolean{Logical::kBoolean}, maybe{Logical::kBooleanNullable};
  const std::vector<std::vector<Wants>> booleans = {
      {maybe, maybe}, {boolean, boolean}, {boolean, maybe}, {maybe, boolean}};
  list.push_back({.name = "not",
                  .doc = "whether it is false",
                  .inputs = {{boolean}, {maybe}},
                  .output = kMaybe,
                  .missing = kNan,
                  .map = each<negation>});
  binary("and", "whether both are true", "", true, kMaybe, each<both>, booleans);
  binary("or", "whether one is true", "", true, kMaybe, each<either>, booleans);
  binary("multiply_boolean", "whether both are true", "*", true, kMaybe, each<both>, booleans);
  binary("multiply_numeric_boolean", "the number where the other is true, else 0", "*", true, kNumber, each<multiply>,
         {{number, boolean}, {number, maybe}, {boolean, number}, {maybe, number}});
}

}  // namespace deepseek::features
