// Statistics of columns, each in one or two passes shared among threads, with the same bits for any number of them.
// Missing values and NaN are left out. Test: tests/tables/statistics_test.cc
#pragma once

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
// Of a numeric column, by Chan, Golub and LeVeque's pairwise update (1979).
Moments moments(const arrow::ChunkedArray& column);

// Quantiles q in [0, 1] of a numeric column, between two neighbours by linear interpolation as NumPy's and pandas'
// default; NaN for each where there is no value. Few values besides those around the quantiles are copied.
// `missing`, if not null, becomes the number of nulls and NaN.
std::vector<double> quantiles(const arrow::ChunkedArray& column, const std::vector<double>& q,
                              int64_t* missing = nullptr);

}  // namespace deepseek::tables
