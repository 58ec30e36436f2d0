// Moments and quantiles against sorting and two-pass sums, on columns that a sample describes badly too.
#include "tables/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "base/threads.h"

namespace deepseek::tables {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// In chunks of odd sizes, sliced; NaN becomes null in every other chunk.
Column column_of(const std::vector<double>& values) {
  std::vector<std::shared_ptr<arrow::Array>> chunks;
  for (size_t begin = 0, i = 0; begin < values.size(); ++i) {
    const size_t n = std::min(values.size() - begin, size_t{1} << (3 + 5 * (i % 4)));
    arrow::DoubleBuilder builder;
    EXPECT_TRUE(builder.Append(-1).ok());
    for (size_t k = 0; k < n; ++k) {
      const double v = values[begin + k];
      EXPECT_TRUE((std::isnan(v) && i % 2 == 0 ? builder.AppendNull() : builder.Append(v)).ok());
    }
    chunks.push_back(builder.Finish().ValueOrDie()->Slice(1));
    begin += n;
  }
  return std::make_shared<arrow::ChunkedArray>(std::move(chunks), arrow::float64());
}

double sorted_quantile(std::vector<double> v, double q) {
  std::erase_if(v, [](double x) { return std::isnan(x); });
  if (v.empty()) return kNaN;
  std::sort(v.begin(), v.end());
  const double rank = q * static_cast<double>(v.size() - 1);
  const auto k = static_cast<size_t>(rank);
  const double next = v[std::min(k + 1, v.size() - 1)];
  return v[k] + (next - v[k]) * (rank - static_cast<double>(k));
}

void check(const std::vector<double>& values) {
  const Column column = column_of(values);
  const std::vector<double> qs = {0, 0.01, 0.25, 0.5, 0.75, 0.999, 1};
  const std::vector<double> found = quantiles(*column, qs);
  for (size_t i = 0; i < qs.size(); ++i) {
    const double expected = sorted_quantile(values, qs[i]);
    if (std::isnan(expected))
      EXPECT_TRUE(std::isnan(found[i]));
    else
      EXPECT_NEAR(found[i], expected, 1e-12 * std::fabs(expected)) << qs[i];
  }
  long double sum = 0, squares = 0;
  int64_t count = 0;
  for (const double v : values)
    if (!std::isnan(v)) sum += v, ++count;
  const long double mean = count > 0 ? sum / count : 0;
  for (const double v : values)
    if (!std::isnan(v)) squares += (v - mean) * (v - mean);
  const Moments m = moments(*column);
  EXPECT_EQ(m.count, count);
  EXPECT_EQ(m.missing, static_cast<int64_t>(values.size()) - count);
  const auto size = std::fabs(static_cast<double>(mean));
  EXPECT_NEAR(m.mean, static_cast<double>(mean), 1e-12 * size + 1e-300);
  EXPECT_NEAR(m.m2, static_cast<double>(squares), 1e-10 * static_cast<double>(squares) + 1e-20 * size * size);
  if (count > 0) {
    EXPECT_EQ(m.min, found.front());
    EXPECT_EQ(m.max, found.back());
  }
}

TEST(Statistics, EqualSortingAndPlainSums) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  const std::vector<std::function<double(size_t)>> kinds = {
      [&](size_t) { return normal(random); },
      [&](size_t) { return std::exp(5 * normal(random)); },
      [&](size_t) { return 1e9 + normal(random); },               // large mean, small spread
      [&](size_t) { return static_cast<double>(random() % 2); },  // two values
      [](size_t) { return 3.25; },                                // one
      [](size_t i) { return static_cast<double>(i); },            // in order
      [](size_t i) { return static_cast<double>(i % 24 == 0); },  // what a regular sample may miss
      [](size_t i) { return i % 24 == 0 ? -1.0 * static_cast<double>(i) : static_cast<double>(i); },
      [](size_t) { return kNaN; },
  };
  for (size_t kind = 0; kind < kinds.size(); ++kind)
    for (const size_t n : {1, 2, 3, 1000, 200'000}) {
      SCOPED_TRACE(fmt::format("kind {} of {}", kind, n));
      std::vector<double> values(n);
      for (size_t i = 0; i < n; ++i) values[i] = kinds[kind](i);
      check(values);
      for (size_t i = 0; i < n; i += 3) values[i] = kNaN;
      check(values);
    }
}

TEST(Statistics, DoNotDependOnTheNumberOfThreads) {
  std::mt19937_64 random(2);
  std::normal_distribution<double> normal;
  std::vector<double> values(500'000);
  for (double& v : values) v = normal(random);
  const Column column = column_of(values);
  const int threads = num_threads();
  ASSERT_TRUE(set_num_threads(1).ok());
  const Moments one = moments(*column);
  ASSERT_TRUE(set_num_threads(5).ok());
  const Moments five = moments(*column);
  ASSERT_TRUE(set_num_threads(threads).ok());
  EXPECT_EQ(one.mean, five.mean);
  EXPECT_EQ(one.m2, five.m2);
}

TEST(Statistics, OfNothing) {
  const Column column = column_of({});
  EXPECT_TRUE(std::isnan(quantiles(*column, {0.5})[0]));
  EXPECT_EQ(moments(*column).count, 0);
  EXPECT_TRUE(std::isnan(moments(*column).stddev(1)));
}

}  // namespace
}  // namespace deepseek::tables
