// Aggregations: one number of all rows that belong to a parent.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "features/primitives.h"

namespace deepseek::features {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kSecond = 1e6, kDay = 86400e6;  // in microseconds

double count_of(Group& g) { return static_cast<double>(g.present().size()); }

double sum(Group& g, const double*) { return g.sum(); }
double mean(Group& g, const double*) { return g.present().empty() ? kNan : g.mean(); }
double rows(Group& g, const double*) { return static_cast<double>(g.size); }
double variance(Group& g, const double*) {
  const double n = count_of(g);
  return n < 2 ? kNan : g.power_sum(2) / (n - 1);
}
double deviation(Group& g, const double* a) { return std::sqrt(variance(g, a)); }
double least(Group& g, const double*) {
  const auto v = g.present();
  return v.empty() ? kNan : *std::min_element(v.begin(), v.end());
}
double most(Group& g, const double*) {
  const auto v = g.present();
  return v.empty() ? kNan : *std::max_element(v.begin(), v.end());
}
double median(Group& g, const double*) {
  const auto& v = g.sorted();
  const size_t n = v.size();
  if (n == 0) return kNan;
  return n % 2 == 1 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}
// The adjusted Fisher-Pearson coefficient, as pandas'.
double skew(Group& g, const double*) {
  const double n = count_of(g);
  if (n < 3) return kNan;
  double m2 = g.power_sum(2), m3 = g.power_sum(3);
  if (std::fabs(m2) < 1e-14) return 0;
  if (std::fabs(m3) < 1e-14) m3 = 0;
  return n * std::sqrt(n - 1) / (n - 2) * (m3 / std::pow(m2, 1.5));
}
// Of the population, minus 3, as SciPy's; NaN where a value is missing.
double kurtosis(Group& g, const double*) {
  const double n = count_of(g);
  if (n < static_cast<double>(g.size) || n == 0) return kNan;
  const double m2 = g.power_sum(2) / n, m4 = g.power_sum(4) / n, mean = g.mean();
  if (m2 <= std::pow(std::numeric_limits<double>::epsilon() * mean, 2)) return kNan;
  return m4 / (m2 * m2) - 3;
}

double distinct(Group& g, const double*) { return static_cast<double>(g.distinct().size()); }
double mode(Group& g, const double*) {
  double best = kNan, most = 0;
  for (const auto& [value, n] : g.distinct())
    if (n > most || (n == most && value < best)) most = n, best = value;
  return best;
}
double percent_distinct(Group& g, const double* a) { return distinct(g, a) / static_cast<double>(g.size); }
double no_duplicates(Group& g, const double* a) { return distinct(g, a) == count_of(g) ? 1 : 0; }
double unique(Group& g, const double* a) {
  return g.size - static_cast<int64_t>(g.present().size()) <= 1 && no_duplicates(g, a) != 0 ? 1 : 0;
}
// In nats; missing values are one of the values.
double entropy(Group& g, const double*) {
  const auto n = static_cast<double>(g.size), missing = n - count_of(g);
  double h = missing > 0 ? -missing / n * std::log(missing / n) : 0;
  for (const auto& [value, k] : g.distinct()) h -= k / n * std::log(k / n);
  return h;
}

template <class P>
double count_if(Group& g, P predicate) {
  const auto v = g.present();
  return static_cast<double>(std::count_if(v.begin(), v.end(), predicate));
}
double count_most(Group& g, const double* a) {
  const double best = most(g, a);
  return std::isnan(best) ? kNan : count_if(g, [&](double v) { return v == best; });
}
double count_least(Group& g, const double* a) {
  const double best = least(g, a);
  return std::isnan(best) ? kNan : count_if(g, [&](double v) { return v == best; });
}
double count_median(Group& g, const double* a) {
  const double middle = median(g, a);
  return std::isnan(middle) ? kNan : count_if(g, [&](double v) { return v == middle; });
}
double range(Group& g, const double* a) { return most(g, a) - least(g, a); }
double above_mean(Group& g, const double* a) {
  const double m = mean(g, a);
  return std::isnan(m) ? kNan : count_if(g, [&](double v) { return v > m; });
}
double below_mean(Group& g, const double* a) {
  const double m = mean(g, a);
  return std::isnan(m) ? kNan : count_if(g, [&](double v) { return v < m; });
}
double greater(Group& g, const double* a) {
  return count_if(g, [&](double v) { return v > a[0]; });
}
double less(Group& g, const double* a) {
  return count_if(g, [&](double v) { return v < a[0]; });
}
double inside(Group& g, const double* a) {
  return count_if(g, [&](double v) { return a[0] <= v && v <= a[1]; });
}
double outside(Group& g, const double* a) {
  return count_if(g, [&](double v) { return v < a[0] || v > a[1]; });
}
template <bool kInside>
double near_mean(Group& g, const double* a) {
  const double n = count_of(g);
  if (n == 0) return 0;
  const double m = g.mean(), reach = a[0] * std::sqrt(g.power_sum(2) / n);
  return count_if(g, [&](double v) { return (std::fabs(v - m) <= reach) == kInside; });
}

double crossings(Group& g, const double*) {
  double n = 0, last = 0;
  for (const double v : g.present()) {
    if (v == 0) continue;
    const double sign = v > 0 ? 1 : -1;
    n += last != 0 && sign != last ? 1 : 0;
    last = sign;
  }
  return n;
}
// Values, or runs of equal ones, that are greater than those on both sides, as SciPy's find_peaks.
double peaks(Group& g, const double*) {
  double n = 0;
  const double* x = g.x[0];
  for (int64_t i = 1; i + 1 < g.size; ++i) {
    if (!(x[i - 1] < x[i])) continue;
    int64_t j = i + 1;
    while (j < g.size - 1 && x[j] == x[i]) ++j;
    if (x[j] < x[i]) {
      ++n;
      i = j - 1;
    }
  }
  return n;
}
template <class P>
double longest_run(Group& g, P predicate) {
  double best = 0, run = 0;
  for (const double v : g.present()) {
    run = predicate(v) ? run + 1 : 0;
    best = std::max(best, run);
  }
  return best;
}
double run_true(Group& g, const double*) {
  return longest_run(g, [](double v) { return v != 0; });
}
double run_false(Group& g, const double*) {
  return longest_run(g, [](double v) { return v == 0; });
}
double run_negative(Group& g, const double*) {
  return longest_run(g, [](double v) { return v < 0; });
}
double run_positive(Group& g, const double*) {
  return longest_run(g, [](double v) { return v > 0; });
}
double run_above(Group& g, const double* a) {
  const double m = mean(g, a);
  return std::isnan(m) ? kNan : longest_run(g, [&](double v) { return v > m; });
}
double run_below(Group& g, const double* a) {
  const double m = mean(g, a);
  return std::isnan(m) ? kNan : longest_run(g, [&](double v) { return v < m; });
}
double increasing(Group& g, const double*) {
  const auto v = g.present();
  return std::is_sorted(v.begin(), v.end()) ? 1 : 0;
}
double decreasing(Group& g, const double*) {
  const auto v = g.present();
  return std::is_sorted(v.rbegin(), v.rend()) ? 1 : 0;
}

double percent_true(Group& g, const double*) { return g.sum() / static_cast<double>(g.size); }
double any(Group& g, const double*) { return g.sum() > 0 ? 1 : 0; }
double all(Group& g, const double*) { return g.sum() == count_of(g) ? 1 : 0; }
template <bool kWanted>
double since_last(Group& g, const double*) {  // how many of the kind after the last of the other
  const auto v = g.present();
  double n = 0;
  for (size_t i = v.size(); i > 0; --i) {
    if ((v[i - 1] != 0) != kWanted) return n;
    ++n;
  }
  return kNan;
}
double first(Group& g, const double*) { return g.size > 0 ? g.x[0][0] : kNan; }
double last(Group& g, const double*) { return g.size > 0 ? g.x[0][g.size - 1] : kNan; }

double time_since_last(Group& g, const double* a) { return (g.now - last(g, a)) / kSecond / seconds_of(a[0]); }
double time_since_first(Group& g, const double* a) { return (g.now - first(g, a)) / kSecond / seconds_of(a[0]); }
double time_between(Group& g, const double* a) {
  const double n = count_of(g);
  return n < 2 ? kNan : range(g, a) / (n - 1) / kSecond / seconds_of(a[0]);
}
double time_delta(Group& g, const double*) {
  const auto v = g.present();
  return v.empty() ? kNan : (v.back() - v.front()) / kSecond;
}
// Seconds since the last row, or the first of the best, by predicates of time (x[0]) and value (x[1]).
template <class B>
double time_since_best(Group& g, B better) {
  int64_t best = -1;
  for (int64_t i = 0; i < g.size; ++i) {
    if (std::isnan(g.x[0][i]) || std::isnan(g.x[1][i])) continue;
    if (best < 0 ? better(kNan, g.x[1][i]) : better(g.x[1][best], g.x[1][i])) best = i;
  }
  return best < 0 ? kNan : (g.now - g.x[0][best]) / kSecond;
}
double since_true(Group& g, const double*) {
  return time_since_best(g, [](double, double v) { return v != 0; });
}
double since_false(Group& g, const double*) {
  return time_since_best(g, [](double, double v) { return v == 0; });
}
double since_most(Group& g, const double*) {
  return time_since_best(g, [](double best, double v) { return std::isnan(best) || v > best; });
}
double since_least(Group& g, const double*) {
  return time_since_best(g, [](double best, double v) { return std::isnan(best) || v < best; });
}
// The slope of least squares of value (x[0]) by time (x[1]), per unit of time; the first of kTrendUnits is the largest
// of days, hours, minutes and seconds that the first time is a whole number of, which is what Featuretools takes.
const std::vector<std::string> kTrendUnits = {"auto", "seconds", "minutes", "hours", "days", "months", "years"};
double trend(Group& g, const double* a) {
  double n = 0, mx = 0, my = 0, start = kNan;
  for (int64_t i = 0; i < g.size; ++i) {
    if (std::isnan(g.x[0][i]) || std::isnan(g.x[1][i])) continue;
    if (n == 0) start = std::floor(g.x[1][i] / kSecond);
    ++n;
    my += (g.x[0][i] - my) / n;
    mx += (g.x[1][i] - mx) / n;
  }
  if (n <= 2) return kNan;
  double unit = 1;
  if (a[0] > 0) {
    unit = seconds_of(a[0] - 1);
  } else {
    for (const double u : {60.0, 3600.0, 86400.0})
      if (std::fmod(start, u) == 0) unit = u;
  }
  double xx = 0, xy = 0;
  for (int64_t i = 0; i < g.size; ++i) {
    if (std::isnan(g.x[0][i]) || std::isnan(g.x[1][i])) continue;
    const double t = (g.x[1][i] - mx) / kSecond / unit;
    xx += t * t;
    xy += t * (g.x[0][i] - my);
  }
  return xx == 0 ? 0 : xy / xx;
}

// Distinct values of a part of the date.
template <class F>
double distinct_dates(Group& g, F part) {
  std::unordered_set<int64_t> seen;
  for (const double t : g.present()) seen.insert(part(static_cast<int64_t>(std::floor(t / kDay))));
  return static_cast<double>(seen.size());
}
template <class F>
double distinct_civil(Group& g, F part) {
  return distinct_dates(g, [&](int64_t days) {
    const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
    return part(static_cast<int>(date.year()), static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  });
}
double unique_days(Group& g, const double*) {
  return distinct_dates(g, [](int64_t days) { return days; });
}
double unique_weeks(Group& g, const double*) {  // from Monday on; 1970 began on a Thursday
  return distinct_dates(g, [](int64_t days) { return (days + 3) >= 0 ? (days + 3) / 7 : (days + 3 - 6) / 7; });
}
double unique_months(Group& g, const double*) {
  return distinct_civil(g, [](int64_t y, int64_t m, int64_t) { return y * 12 + m; });
}
double unique_days_of_year(Group& g, const double*) {
  return distinct_civil(g, [](int64_t, int64_t m, int64_t d) { return m * 32 + d; });
}
double unique_days_of_month(Group& g, const double*) {
  return distinct_civil(g, [](int64_t, int64_t, int64_t d) { return d; });
}

}  // namespace

void add_aggregations(std::vector<Primitive>& list) {
  const std::vector<std::vector<Wants>> numeric = {{{.tags = kNumeric}}}, category = {{{.tags = kCategory}}},
                                        boolean = {{{Logical::kBoolean}}, {{Logical::kBooleanNullable}}},
                                        strictly_boolean = {{{Logical::kBoolean}}},
                                        plain = {{{Logical::kInteger}}, {{Logical::kDouble}}},
                                        plain_number = {{{Logical::kInteger, kNumeric}},
                                                        {{Logical::kDouble, kNumeric}}},
                                        dates = {{{Logical::kDatetime}}}, time = {{{Logical::kDatetime, kTimeIndex}}},
                                        any_type = {{{}}};
  const Wants when{Logical::kDatetime, kTimeIndex};
  const std::vector<std::vector<Wants>> time_and_boolean = {{when, {Logical::kBoolean}},
                                                            {when, {Logical::kBooleanNullable}}},
                                        time_and_number = {{when, {.tags = kNumeric}}};
  const std::vector<Parameter> unit = {{"unit", 0, time_units()}};
  enum { kSelf = 1, kNow = 2 };  // may stack on itself; needs the cut-off time
  const auto add = [&](const char* name, const char* doc, const std::vector<std::vector<Wants>>& inputs,
                       std::optional<Schema> output, double missing, Reduce reduce, int flags = 0,
                       std::vector<Parameter> parameters = {}) {
    list.push_back({.name = name,
                    .doc = doc,
                    .aggregation = true,
                    .inputs = inputs,
                    .output = output,
                    .parameters = std::move(parameters),
                    .missing = missing,
                    .reduce = reduce,
                    .stacks_on_itself = (flags & kSelf) != 0,
                    .needs_now = (flags & kNow) != 0});
  };
  add("count", "number of rows", {{{.tags = kIndex}}}, kCount, 0, rows);
  list.back().counts_rows = true;
  add("sum", "sum", numeric, kNumber, 0, sum);
  add("mean", "mean", numeric, kNumber, kNan, mean, kSelf);
  add("std", "standard deviation (n - 1)", numeric, kNumber, kNan, deviation);
  add("variance", "variance (n - 1)", numeric, kDoubleNumber, kNan, variance);
  add("min", "least value", numeric, kNumber, kNan, least);
  add("max", "greatest value", numeric, kNumber, kNan, most);
  add("median", "median", numeric, kNumber, kNan, median, kSelf);
  add("skew", "skewness, unbiased", numeric, kNumber, kNan, skew);
  add("kurtosis", "excess kurtosis of the population; 0 where a value is missing", plain_number, kDoubleNumber, 0,
      kurtosis);
  add("mode", "most frequent value, the least of equal ones", category, {}, kNan, mode, kSelf);
  add("num_unique", "number of distinct values", category, kCount, kNan, distinct);
  add("percent_unique", "distinct values per row", category, kDoubleNumber, 0, percent_distinct, kSelf);
  add("is_unique", "whether no value repeats, missing ones included", category, kMaybe, 0, unique);
  add("has_no_duplicates", "whether no value repeats", {{{.tags = kCategory}}, {{.tags = kNumeric}}}, kMaybe, 1,
      no_duplicates);
  add("entropy", "entropy of the values in nats", category, kNumber, kNan, entropy);
  add("first", "value of the first row", any_type, {}, kNan, first);
  add("last", "value of the last row", any_type, {}, kNan, last);
  add("percent_true", "share of true", {{{Logical::kBooleanNullable}}, {{Logical::kBoolean}}}, kDoubleNumber, kNan,
      percent_true, kSelf);
  add("num_true", "number of true", boolean, kCount, 0, sum, kSelf);
  add("any", "whether one is true", boolean, kTruth, kNan, any);
  add("all", "whether all are true", boolean, kTruth, kNan, all);
  add("max_min_delta", "greatest minus least value", numeric, kNumber, 0, range);
  add("max_count", "how often the greatest value occurs", numeric, kNumber, kNan, count_most, kSelf);
  add("min_count", "how often the least value occurs", numeric, kCount, kNan, count_least, kSelf);
  add("median_count", "how often the median occurs", numeric, kCount, 0, count_median);
  add("count_above_mean", "values above the mean", numeric, kCount, kNan, above_mean);
  add("count_below_mean", "values below the mean", numeric, kCount, kNan, below_mean);
  add("count_greater_than", "values above a threshold", numeric, kWhole, 0, greater, 0, {{"threshold", 10}});
  add("count_less_than", "values below a threshold", numeric, kWhole, 0, less, 0, {{"threshold", 10}});
  add("count_inside_range", "values in [lower, upper]", numeric, kCount, 0, inside, 0, {{"lower", 0}, {"upper", 1}});
  add("count_outside_range", "values not in [lower, upper]", numeric, kCount, 0, outside, 0,
      {{"lower", 0}, {"upper", 1}});
  add("count_inside_nth_std", "values within n standard deviations of the mean", numeric, kWhole, 0, near_mean<true>, 0,
      {{"n", 1}});
  add("count_outside_nth_std", "values beyond n standard deviations from the mean", numeric, kWhole, 0,
      near_mean<false>, 0, {{"n", 1}});
  add("num_zero_crossings", "changes of sign", numeric, kWhole, kNan, crossings, kSelf);
  add("num_peaks", "local maxima", numeric, kWhole, 0, peaks);
  add("max_consecutive_true", "longest run of true", strictly_boolean, kWhole, 0, run_true);
  add("max_consecutive_false", "longest run of false", strictly_boolean, kWhole, 0, run_false);
  add("max_consecutive_positives", "longest run above 0", plain, kWhole, 0, run_positive);
  add("max_consecutive_negatives", "longest run below 0", plain, kWhole, 0, run_negative);
  add("max_consecutive_zeros", "longest run of 0", plain, kWhole, 0, run_false);
  add("num_consecutive_greater_mean", "longest run above the mean", numeric, kCount, 0, run_above);
  add("num_consecutive_less_mean", "longest run below the mean", numeric, kCount, 0, run_below);
  add("is_monotonically_increasing", "whether no value is less than the one before", numeric, kMaybe, 0, increasing);
  add("is_monotonically_decreasing", "whether no value is greater than the one before", numeric, kMaybe, 0, decreasing);
  add("num_true_since_last_false", "number of true after the last false; 0 without a false", strictly_boolean, kCount,
      0, since_last<true>);
  add("num_false_since_last_true", "number of false after the last true; 0 without a true", strictly_boolean, kCount, 0,
      since_last<false>);
  add("time_since_last", "time from the last row to the cut-off", time, kDoubleNumber, kNan, time_since_last,
      kSelf | kNow, unit);
  add("time_since_first", "time from the first row to the cut-off", time, kDoubleNumber, kNan, time_since_first,
      kSelf | kNow, unit);
  add("time_since_last_true", "seconds from the last true to the cut-off", time_and_boolean, kDoubleNumber, 0,
      since_true, kNow);
  add("time_since_last_false", "seconds from the last false to the cut-off", time_and_boolean, kDoubleNumber, 0,
      since_false, kNow);
  add("time_since_last_max", "seconds from the first greatest value to the cut-off", time_and_number, kDoubleNumber, 0,
      since_most, kNow);
  add("time_since_last_min", "seconds from the first least value to the cut-off", time_and_number, kDoubleNumber, 0,
      since_least, kNow);
  add("avg_time_between", "mean time between rows", time, kDoubleNumber, kNan, time_between, kSelf, unit);
  add("first_last_time_delta", "seconds from the first row to the last", time, kDoubleNumber, 0, time_delta);
  add("trend", "slope of the line through the values by time, per unit; name one to have the same for all rows",
      {{{.tags = kNumeric}, when}}, kNumber, kNan, trend, kSelf, {{"unit", 0, kTrendUnits}});
  add("n_unique_days", "distinct days", dates, kWhole, 0, unique_days);
  add("n_unique_weeks", "distinct weeks, from Monday on", dates, kWhole, 0, unique_weeks);
  add("n_unique_months", "distinct months", dates, kWhole, 0, unique_months);
  add("n_unique_days_of_calendar_year", "distinct days, years apart", dates, kWhole, 0, unique_days_of_year);
  add("n_unique_days_of_month", "distinct days of the month", dates, kWhole, 0, unique_days_of_month);
}

}  // namespace deepseek::features
