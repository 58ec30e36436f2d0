#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace deepseek {
namespace {

// Of the generator's public reference code (java.util.SplittableRandom's mix): the outputs of seed 0, whose state grows
// by the golden ratio each time.
TEST(Random, Splitmix64GivesItsReferenceNumbers) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;
  EXPECT_EQ(splitmix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(splitmix64(kGolden), 0x6e789e6aa1b965f4ull);
  EXPECT_EQ(splitmix64(2 * kGolden), 0x06c45d188009454full);
}

TEST(Random, PermutationsHaveEachNumberOnceAndDependOnTheKey) {
  std::vector<int64_t> order = permutation(1000, 7);
  EXPECT_EQ(order, permutation(1000, 7));
  EXPECT_NE(order, permutation(1000, 8));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_TRUE(permutation(0, 1).empty());
}

// Means and variances within five deviations of what so many numbers may be off.
TEST(Random, NumbersHaveTheirMoments) {
  constexpr int kCount = 100000;
  const auto moments = [](auto draw) {
    Numbers numbers(11);
    double sum = 0, squares = 0;
    for (int i = 0; i < kCount; ++i) {
      const double x = draw(numbers);
      sum += x, squares += x * x;
    }
    return std::pair(sum / kCount, squares / kCount - sum / kCount * sum / kCount);
  };
  const auto [uniform_mean, uniform_variance] = moments([](Numbers& n) { return n.uniform(); });
  EXPECT_NEAR(uniform_mean, 0.5, 0.005);
  EXPECT_NEAR(uniform_variance, 1.0 / 12, 0.002);
  const auto [normal_mean, normal_variance] = moments([](Numbers& n) { return n.normal(); });
  EXPECT_NEAR(normal_mean, 0, 0.016);
  EXPECT_NEAR(normal_variance, 1, 0.025);
  for (const double shape : {0.3, 1.0, 4.5}) {
    const auto [mean, variance] = moments([shape](Numbers& n) { return n.gamma(shape); });
    EXPECT_NEAR(mean, shape, 5 * std::sqrt(shape / kCount)) << shape;
    EXPECT_NEAR(variance, shape, 0.06 * shape + 0.02) << shape;
  }
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_GE(bounded(splitmix64(i), 7), 0);
    EXPECT_LT(bounded(splitmix64(i), 7), 7);
  }
}

}  // namespace
}  // namespace deepseek
