// Transforms that look at other rows of the table, or of the group: cumulated, shifted, rolling. Rows are in order of
// time.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "features/primitives.h"

namespace deepseek::features {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kSecond = 1e6;

// Where a value is missing the result is, and it goes on after it.
template <class F>
void cumulate(const Rows& r, double* out, F f) {
  double total = kNan;
  for (int64_t i = 0; i < r.size; ++i) {
    const double x = r.x[0][i];
    if (!std::isnan(x)) total = std::isnan(total) ? x : f(total, x);
    out[i] = std::isnan(x) ? kNan : total;
  }
}
void cum_sum(const Rows& r, double* out) {
  cumulate(r, out, [](double a, double b) { return a + b; });
}
void cum_min(const Rows& r, double* out) {
  cumulate(r, out, [](double a, double b) { return std::min(a, b); });
}
void cum_max(const Rows& r, double* out) {
  cumulate(r, out, [](double a, double b) { return std::max(a, b); });
}
void cum_mean(const Rows& r, double* out) {
  cum_sum(r, out);
  for (int64_t i = 0; i < r.size; ++i) out[i] /= static_cast<double>(i + 1);
}
void cum_count(const Rows& r, double* out) { std::iota(out, out + r.size, 1.0); }

int64_t whole(double x) { return static_cast<int64_t>(std::llround(x)); }

double at(const Rows& r, int64_t i) { return i >= 0 && i < r.size ? r.x[0][i] : kNan; }
void diff(const Rows& r, double* out) {
  const int64_t periods = whole(r.arguments[0]);
  for (int64_t i = 0; i < r.size; ++i) out[i] = i == 0 ? kNan : at(r, i - periods) - at(r, i - periods - 1);
}
void lag(const Rows& r, double* out) {
  const int64_t periods = whole(r.arguments[0]);
  for (int64_t i = 0; i < r.size; ++i) out[i] = at(r, i - periods);
}
// f(value before, value), with missing ones as the last that was there.
template <class F>
void filled(const Rows& r, double* out, F f) {
  double last = kNan;
  for (int64_t i = 0; i < r.size; ++i) {
    const double x = std::isnan(r.x[0][i]) ? last : r.x[0][i];
    out[i] = f(last, x);
    last = x;
  }
}
void absolute_diff(const Rows& r, double* out) {
  filled(r, out, [](double a, double b) { return std::fabs(b - a); });
}
void percent_change(const Rows& r, double* out) {
  filled(r, out, [](double a, double b) { return b / a - 1; });
}
void same_as_previous(const Rows& r, double* out) {
  filled(r, out, [](double a, double b) { return a == b ? 1.0 : 0.0; });
}
void time_since_previous(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i) out[i] = (at(r, i) - at(r, i - 1)) / kSecond / seconds_of(r.arguments[0]);
}
void rate_of_change(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i)
    out[i] = i == 0 ? kNan : (r.x[0][i] - r.x[0][i - 1]) / ((r.x[1][i] - r.x[1][i - 1]) / kSecond);
}
// Rank over the number of values, the mean of ranks for equal ones.
void percentile(const Rows& r, double* out) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < r.size; ++i) {
    out[i] = kNan;
    if (!std::isnan(r.x[0][i])) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return r.x[0][a] < r.x[0][b]; });
  const auto n = static_cast<double>(order.size());
  for (size_t i = 0; i < order.size();) {
    size_t j = i;
    while (j < order.size() && r.x[0][order[j]] == r.x[0][order[i]]) ++j;
    const double rank = static_cast<double>(i + 1 + j) / 2;
    for (; i < j; ++i) out[order[i]] = rank / n;
  }
}
template <bool kWanted>
void since_last(const Rows& r, double* out) {  // seconds from the last row whose boolean is so
  double last = kNan;
  for (int64_t i = 0; i < r.size; ++i) {
    if (r.x[1][i] == (kWanted ? 1 : 0)) last = r.x[0][i];
    out[i] = (r.x[0][i] - last) / kSecond;
  }
}

// Weights (1 - alpha)^i as pandas' ewm with com = 0.5; missing values take a place.
struct Weighted {
  double mean = kNan, variance = kNan;
};
template <class F>
void weighted(const Rows& r, double* out, F f) {
  const double keep = 1 - 1 / (1 + r.arguments[0]);
  double mean = kNan, covariance = 0, weight = 1, sum = 1, squares = 1;
  for (int64_t i = 0; i < r.size; ++i) {
    const double x = r.x[0][i];
    if (std::isnan(mean)) {
      mean = x;
    } else {
      weight *= keep;
      sum *= keep;
      squares *= keep * keep;
      if (!std::isnan(x)) {
        const double before = mean, all = weight + 1;
        if (mean != x) mean = (weight * before + x) / all;
        covariance = (weight * (covariance + (before - mean) * (before - mean)) + (x - mean) * (x - mean)) / all;
        weight = all;
        sum += 1;
        squares += 1;
      }
    }
    const double spread = sum * sum - squares;
    out[i] = f(Weighted{mean, std::isnan(mean) || spread <= 0 ? kNan : sum * sum / spread * covariance});
  }
}
void weighted_mean(const Rows& r, double* out) {
  weighted(r, out, [](const Weighted& w) { return w.mean; });
}
void weighted_variance(const Rows& r, double* out) {
  weighted(r, out, [](const Weighted& w) { return w.variance; });
}
void weighted_deviation(const Rows& r, double* out) {
  weighted(r, out, [](const Weighted& w) { return std::sqrt(w.variance); });
}

// f(values) of a window that ends `gap` rows before each row, where it has `least` values at least. x[1] is what is
// looked at; x[0] the time.
template <class F>
void windows(const Rows& r, double* out, int64_t length, int64_t gap, double least, F f) {
  std::vector<double> values;
  for (int64_t i = 0; i < r.size; ++i) {
    values.clear();
    const int64_t end = i - gap + 1;
    for (int64_t j = std::max<int64_t>(0, length < 0 ? 0 : end - length); j < end; ++j)
      if (!std::isnan(r.x[1][j])) values.push_back(r.x[1][j]);
    out[i] = values.empty() || static_cast<double>(values.size()) < least ? kNan : f(values);
  }
}
double mean_of(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}
double deviation_of(const std::vector<double>& v) {
  if (v.size() < 2) return kNan;
  const double mean = mean_of(v);
  double sum = 0;
  for (const double x : v) sum += (x - mean) * (x - mean);
  return std::sqrt(sum / static_cast<double>(v.size() - 1));
}
double least_of(const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }
double most_of(const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); }
template <auto F>
void rolling(const Rows& r, double* out) {
  windows(r, out, whole(r.arguments[0]), whole(r.arguments[1]), r.arguments[2], F);
}
void rolling_count(const Rows& r, double* out) {
  const int64_t length = whole(r.arguments[0]), gap = whole(r.arguments[1]), least = whole(r.arguments[2]);
  const int64_t missing = least == 0 ? gap : least - 1 + gap;
  for (int64_t i = 0; i < r.size; ++i) out[i] = i < missing ? kNan : static_cast<double>(std::min(length, i - gap + 1));
}
// All rows up to the one `gap` before.
void expanding_count(const Rows& r, double* out) {
  const int64_t gap = whole(r.arguments[0]), least = whole(r.arguments[1]);
  for (int64_t i = 0; i < r.size; ++i) out[i] = i < gap + least - 1 ? kNan : static_cast<double>(i - gap + 1);
}
template <class F>
void expanding(const Rows& r, double* out, F value) {  // value(sums so far)
  const int64_t gap = whole(r.arguments[0]);
  double n = 0, mean = 0, m2 = 0, low = kNan, high = kNan;
  for (int64_t i = 0; i < r.size; ++i) {
    const double x = i >= gap ? r.x[1][i - gap] : kNan;
    if (!std::isnan(x)) {
      ++n;
      const double before = x - mean;
      mean += before / n;
      m2 += before * (x - mean);
      low = std::isnan(low) ? x : std::min(low, x);
      high = std::isnan(high) ? x : std::max(high, x);
    }
    out[i] = n == 0 || n < r.arguments[1] ? kNan : value(n, mean, m2, low, high);
  }
}
void expanding_mean(const Rows& r, double* out) {
  expanding(r, out, [](double, double mean, double, double, double) { return mean; });
}
void expanding_std(const Rows& r, double* out) {
  expanding(r, out, [](double n, double, double m2, double, double) { return n < 2 ? kNan : std::sqrt(m2 / (n - 1)); });
}
void expanding_min(const Rows& r, double* out) {
  expanding(r, out, [](double, double, double, double low, double) { return low; });
}
void expanding_max(const Rows& r, double* out) {
  expanding(r, out, [](double, double, double, double, double high) { return high; });
}

}  // namespace

void add_series(std::vector<Primitive>& list) {
  const Wants number{.tags = kNumeric}, when{Logical::kDatetime, kTimeIndex}, time{.tags = kTimeIndex};
  const std::vector<std::vector<Wants>> numeric = {{number}}, timed = {{when, number}}, dates = {{when}};
  const auto add = [&](const char* name, const char* doc, const std::vector<std::vector<Wants>>& inputs,
                       std::optional<Schema> output, Map map, std::vector<Parameter> parameters = {}) {
    list.push_back({.name = name,
                    .doc = doc,
                    .inputs = inputs,
                    .output = output,
                    .parameters = std::move(parameters),
                    .missing = kNan,
                    .map = map,
                    .ordered = true});
  };
  add("cum_sum", "sum of the rows so far", numeric, kNumber, cum_sum);
  add("cum_mean", "sum of the rows so far by their number", numeric, kNumber, cum_mean);
  add("cum_min", "least value so far", numeric, kNumber, cum_min);
  add("cum_max", "greatest value so far", numeric, kNumber, cum_max);
  add("cum_count", "number of rows so far", {{{.tags = kForeignKey}}, {{.tags = kCategory}}}, kCount, cum_count);
  add("diff", "difference from the row before", numeric, kNumber, diff, {{"periods", 0}});
  add("lag", "value of the row `periods` before",
      {{{.tags = kCategory}, time}, {number, time}, {{Logical::kBoolean}, time}, {{Logical::kBooleanNullable}, time}},
      {}, lag, {{"periods", 1}});
  add("absolute_diff", "absolute difference from the last value", numeric, kNumber, absolute_diff);
  add("percent_change", "change from the last value by that value", numeric, kDoubleNumber, percent_change);
  add("same_as_previous", "whether it is the last value", numeric, kMaybe, same_as_previous);
  add("time_since_previous", "time since the row before", dates, kNumber, time_since_previous,
      {{"unit", 0, time_units()}});
  add("rate_of_change", "difference from the row before per second", {{number, when}}, kDoubleNumber, rate_of_change);
  add("percentile", "rank among all rows, in (0, 1]", numeric, kNumber, percentile);
  list.back().causal = false;
  add("cumulative_time_since_last_true", "seconds since the last true", {{when, {Logical::kBoolean}}}, kDoubleNumber,
      since_last<true>);
  add("cumulative_time_since_last_false", "seconds since the last false", {{when, {Logical::kBoolean}}}, kDoubleNumber,
      since_last<false>);
  const std::vector<Parameter> com = {{.name = "com", .value = 0.5, .named = true}};
  add("exponential_weighted_average", "mean that forgets, by 1 / (1 + com) a row", numeric, kDoubleNumber,
      weighted_mean, com);
  add("exponential_weighted_variance", "variance that forgets", numeric, kDoubleNumber, weighted_variance, com);
  add("exponential_weighted_std", "standard deviation that forgets", numeric, kDoubleNumber, weighted_deviation, com);
  const auto window = [](double least) {
    return std::vector<Parameter>{{"window_length", 3}, {"gap", 1}, {"min_periods", least}};
  };
  add("rolling_mean", "mean of a window of rows", timed, kDoubleNumber, rolling<mean_of>, window(0));
  add("rolling_std", "standard deviation of a window of rows", timed, kDoubleNumber, rolling<deviation_of>, window(1));
  add("rolling_min", "least value of a window of rows", timed, kDoubleNumber, rolling<least_of>, window(1));
  add("rolling_max", "greatest value of a window of rows", timed, kDoubleNumber, rolling<most_of>, window(1));
  add("rolling_count", "number of rows of a window", dates, kDoubleNumber, rolling_count, window(0));
  const std::vector<Parameter> grown = {{"gap", 1}, {"min_periods", 1}};
  add("expanding_mean", "mean of the rows so far, without the last `gap`", timed, kDoubleNumber, expanding_mean, grown);
  add("expanding_std", "standard deviation of the same", timed, kDoubleNumber, expanding_std, grown);
  add("expanding_min", "least value of the same", timed, kNumber, expanding_min, grown);
  add("expanding_max", "greatest value of the same", timed, kNumber, expanding_max, grown);
  add("expanding_count", "number of the same", dates, kCount, expanding_count, grown);
}

}  // namespace deepseek::features
