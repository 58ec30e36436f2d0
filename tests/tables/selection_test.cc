// Bins, mutual information by its closed form, and trees that find what a target was made of.
#include "tables/selection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace deepseek::tables {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Bins bins_of(std::vector<uint16_t> of, int count) { return {std::move(of), count}; }

TEST(Selection, FewValuesKeepABinEachAndMissingOnesHaveTheirOwn) {
  const std::vector<double> values = {3, 1, kNaN, 1, 2};
  const Bins bins = bin_numbers(values, 16);
  EXPECT_EQ(bins.count, 4);
  EXPECT_EQ(bins.of, (std::vector<uint16_t>{2, 0, 3, 0, 1}));
  EXPECT_EQ(bin_numbers(std::vector<double>{kNaN, kNaN}, 4).count, 1);
  EXPECT_EQ(bin_numbers(std::vector<double>{}, 4).count, 0);
}

TEST(Selection, ManyValuesFillBinsEvenly) {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back((i * 37) % 1000);
  const Bins bins = bin_numbers(values, 10);
  ASSERT_EQ(bins.count, 10);
  std::vector<int> sizes(10);
  for (const uint16_t b : bins.of) ++sizes[b];
  for (const int size : sizes) EXPECT_EQ(size, 100);
  // A value that is most of the column has one bin; what is left has some.
  std::vector<double> skewed(900, 5);
  for (int i = 0; i < 100; ++i) skewed.push_back(i + 10);
  EXPECT_GT(bin_numbers(skewed, 10).count, 1);
}

TEST(Selection, RareCategoriesShareABin) {
  const std::vector<double> codes = {0, 0, 0, 1, 1, 2, 3};
  const Bins bins = bin_categories(codes, 3);
  EXPECT_EQ(bins.count, 3);
  EXPECT_EQ(bins.of, (std::vector<uint16_t>{0, 0, 0, 1, 1, 2, 2}));
}

TEST(Selection, MutualInformationOfEqualsIsEntropyAndOfStrangersIsNone) {
  std::vector<uint16_t> a, b, c;
  for (int i = 0; i < 1200; ++i) {
    a.push_back(static_cast<uint16_t>(i % 3));
    b.push_back(static_cast<uint16_t>(i / 3 % 4));
    c.push_back(static_cast<uint16_t>((a.back() + b.back()) % 2));
  }
  const Bins x = bins_of(a, 3), y = bins_of(b, 4);
  EXPECT_NEAR(mutual_information(x, x, false), std::log(3), 1e-12);
  EXPECT_NEAR(mutual_information(x, y, false), 0, 1e-12);
  EXPECT_NEAR(mutual_information(x, x, true), std::log(3) - 4.0 / 2400, 1e-12);
}

TEST(Selection, BoostedTreesFindTheProduct) {
  std::mt19937 random(0);
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> columns(4);
  Response response;
  response.values.resize(1);
  for (int i = 0; i < 2000; ++i) {
    for (int c = 0; c < 3; ++c) columns[static_cast<size_t>(c)].push_back(normal(random));
    columns[3].push_back(columns[0].back() * columns[1].back());
    response.values[0].push_back(columns[3].back() > 0 ? 1.f : 0.f);
  }
  std::vector<Bins> bins;
  for (const auto& column : columns) bins.push_back(bin_numbers(column, 16));
  const std::vector<double> gains = boosted_gains(bins, response, 10);
  for (size_t c = 0; c < 3; ++c) EXPECT_GT(gains[3], 10 * gains[c]);
}

TEST(Selection, TheBetterOfTwoAlikeIsKept) {
  const std::vector<std::vector<double>> columns = {{1, 2, 3, 4}, {2, 4, 6, 8.1}, {1, -1, 1, -1}, {5, 5, 5, 5}};
  EXPECT_EQ(select(columns, {0.5, 0.6, 0.1, 0.0}, {}, 10, 0.95), (std::vector<size_t>{1, 2}));
  EXPECT_EQ(select(columns, {0.5, 0.6, 0.1, 0.0}, {{4, 3, 2, 1}}, 10, 0.95), (std::vector<size_t>{2}));
  EXPECT_EQ(select(columns, {0.5, 0.6, 0.1, 0.2}, {}, 1, 0.95), (std::vector<size_t>{1}));
}

}  // namespace
}  // namespace deepseek::tables
