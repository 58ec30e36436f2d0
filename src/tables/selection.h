// How much a column tells about a target: mutual information, and the gain of boosted trees. Test:
// tests/python/test_select.py
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

// Values as numbers below `count`; missing values are one of them, where there are some.
struct Bins {
  std::vector<uint16_t> of;
  int count = 1;
};
// Numbers between quantiles, at most `most` of about equal size; few distinct ones keep a bin each. NaN is missing.
Bins bin_numbers(std::span<const double> values, int most);
// Codes of categories: a bin for each of the most frequent, one for all others.
Bins bin_categories(std::span<const double> codes, int most);

// Numbers and booleans as doubles; text as numbers of its sorted values. Missing is NaN.
Result<std::vector<double>> values_of(const std::string& name, const Column& column, const std::string& wanted_by);
bool holds_categories(const arrow::DataType& type);  // text, booleans, dictionaries of text
bool holds_values(const arrow::DataType& type);      // what values_of() takes: these and numbers
// The column as bins, as its type wants.
Result<Bins> bin_column(const std::string& name, const Column& column, int most, const std::string& wanted_by);

// In nats, of the counts; `corrected`: less what as many bins have by chance (Miller, 1955).
double mutual_information(const Bins& x, const Bins& y, bool corrected);

// The share of what is unknown of y that x tells: by its bins, or by the best single split of numbers in two, which
// finds rare classes that bins dilute. What many bins tell by chance is taken off where they are categories.
double told_share(std::span<const double> values, bool numbers, const Bins& y);

// What to predict: one row of residuals per class, or one of numbers.
struct Response {
  std::vector<std::vector<float>> values;
};
Result<Response> response_of(const std::string& name, const Column& column, const std::string& wanted_by);
// The gain of each column in all splits of gradient-boosted trees of depth 3 (Friedman, 2001), on squares.
std::vector<double> boosted_gains(const std::vector<Bins>& columns, const Response& response, int rounds);

// The columns by worth, best first, that are wanted: at most `keep`, and none that is correlated with a better one, or
// one of `known`, above `redundancy`. Numbers are of the same rows; correlation is Pearson's, missing values count as
// the mean.
std::vector<size_t> select(const std::vector<std::vector<double>>& columns, const std::vector<double>& worth,
                           const std::vector<std::vector<double>>& known, size_t keep, double redundancy);

}  // namespace deepseek::tables
