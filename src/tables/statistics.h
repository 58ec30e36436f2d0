// Statistics of columns, each in one or two passes shared among threads, with the same bits for any number of them.
// Missing values and NaN are left out. Test: tests/tables/statistics_test.cc
#pragma once

#include <limits>
#include <optional>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

struct Moments {
  int64_t count = 0;                          // of values that are there
  int64_t missing = 0;                        // nulls and NaN
  double mean = 0, m2 = 0, min = 0, max = 0;  // m2: sum of squared deviations; all 0 where there is no value
  // With n - ddof in the denominator; NaN where that is not positive. Infinity among the values makes it NaN.
  double variance(int64_t ddof) const;
  double stddev(int64_t ddof) const;
};
// Of the values of both.
Moments combine(const Moments& a, const Moments& b);
// Of a numeric column, by Chan, Golub and LeVeque's pairwise update (1979).
Moments moments(const arrow::ChunkedArray& column);

// Quantiles q in [0, 1] of a numeric column, between two neighbours by linear interpolation as NumPy's and pandas'
// default; NaN for each where there is no value. Few values besides those around the quantiles are copied.
// `missing`, if not null, becomes the number of nulls and NaN.
std::vector<double> quantiles(const arrow::ChunkedArray& column, const std::vector<double>& q,
                              int64_t* missing = nullptr);

// What quantiles are made of: values between two bounds, which a sample gives, and how many there are below.
struct Bracket {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  int64_t below = 0;
  std::vector<double> inside;
  void add(const double* x, int64_t n);  // NaN is left out
  // The quantile q of `count` values that were added; nothing where it is not inside. Values change their order.
  std::optional<double> quantile(double q, int64_t count);
};
// Around quantile q of `count` values, of which this is a sorted sample at random: all but certainly it is inside.
Bracket bracket_of(const std::vector<double>& sample, double q, int64_t count);
constexpr int64_t kQuantileSample = 65536;  // values of a sample

}  // namespace deepseek::tables
