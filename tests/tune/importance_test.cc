// Shares of variance: closed forms of sums and products, categories, conditions, errors.
#include "tune/report/importance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace deepseek::tune {
namespace {

using ::testing::HasSubstr;

// `n` points that are uniform in unit coordinates, with values of `f`.
template <class F>
std::vector<Trial> random_trials(const Space& space, int n, const F& f) {
  Numbers numbers(7);
  std::vector<Trial> trials;
  for (int i = 0; i < n; ++i) {
    std::vector<double> unit;
    for (size_t k = 0; k < space.size(); ++k) unit.push_back(numbers.uniform());
    Trial t;
    t.number = i;
    t.state = TrialState::kComplete;
    t.point = space.from_unit(unit);
    t.values = {f(t.point)};
    trials.push_back(std::move(t));
  }
  return trials;
}

Setting setting_of(const std::string& space) {
  Setting setting;
  setting.space = *Space::parse(space);
  return setting;
}

double share_of(const std::vector<Importance>& list, size_t parameter, bool normalised = false) {
  for (const Importance& i : list)
    if (i.parameter == parameter) return normalised ? i.normalised : i.share;
  return std::nan("");
}

// Variances of a x1 + b x2 with even x1, x2 are as a^2 to b^2.
TEST(Importance, OfASumIsTheSquareOfTheSlope) {
  const Setting s = setting_of(R"({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0, "log": false},
                                   "c": {"low": 0.0, "high": 1.0}})");
  const auto trials = random_trials(s.space, 500, [](const Point& p) { return 3 * p[0] - 2 * p[1] + 5; });
  const auto list = importances(s, trials);
  ASSERT_TRUE(list.ok());
  EXPECT_EQ((*list)[0].parameter, 0u);
  EXPECT_NEAR(share_of(*list, 0), 9.0 / 13, 0.04);
  EXPECT_NEAR(share_of(*list, 1), 4.0 / 13, 0.04);
  EXPECT_LT(share_of(*list, 2), 0.01);
  EXPECT_NEAR(share_of(*list, 0, true), 9.0 / 13, 0.02);
  double total = 0, normalised = 0;
  for (const Importance& i : *list) {
    total += i.share, normalised += i.normalised;
    EXPECT_LT(i.deviation, 0.1);
  }
  EXPECT_LE(total, 1.0);
  EXPECT_NEAR(normalised, 1, 1e-12);
}

// x1 x2 on the unit square: Var = 1/9 - 1/16 = 7/144, of which (x1 - 1/2)/2 and the same of x2 have 1/48 = 3/144 each.
TEST(Importance, OfAProductLeavesTheRestToTheInteraction) {
  const Setting s = setting_of(R"({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0},
                                   "c": {"low": 0.0, "high": 1.0}})");
  const auto trials = random_trials(s.space, 500, [](const Point& p) { return p[0] * p[1]; });
  const auto forest = Forest::fit(s, trials);
  ASSERT_TRUE(forest.ok());
  const auto list = forest->importances();
  EXPECT_NEAR(share_of(list, 0), 3.0 / 7, 0.04);
  EXPECT_NEAR(share_of(list, 1), 3.0 / 7, 0.04);
  const auto pairs = forest->interactions({0, 1, 2});
  ASSERT_EQ(pairs.size(), 3u);
  EXPECT_EQ(pairs[0].first, 0u);
  EXPECT_EQ(pairs[0].second, 1u);
  EXPECT_NEAR(pairs[0].share, 1.0 / 7, 0.04);
  EXPECT_LT(pairs[1].share, 0.01);
}

// Of the logarithm, not of the value: 1e-5 to 1e-1 are even in their exponents.
TEST(Importance, MeasuresLogarithmsEvenly) {
  const Setting s = setting_of(R"({"lr": {"low": 1e-5, "high": 0.1, "log": true}, "b": {"low": 0.0, "high": 1.0}})");
  const auto trials = random_trials(s.space, 500, [](const Point& p) { return std::log10(p[0]) + 4 * p[1]; });
  const auto list = importances(s, trials);
  ASSERT_TRUE(list.ok());
  EXPECT_NEAR(share_of(*list, 0), 0.5, 0.06);
  EXPECT_NEAR(share_of(*list, 1), 0.5, 0.06);
}

// Values 0, 1, 5 of three choices have variance 14/3; 6 b adds 3.
TEST(Importance, TakesChoicesAsCategories) {
  const Setting s = setting_of(R"({"kind": ["y", "x", "z"], "b": {"low": 0.0, "high": 1.0}})");
  const double values[] = {1, 0, 5};
  const auto trials =
      random_trials(s.space, 500, [&](const Point& p) { return values[static_cast<size_t>(p[0])] + 6 * p[1]; });
  const auto forest = Forest::fit(s, trials);
  ASSERT_TRUE(forest.ok());
  const auto list = forest->importances();
  EXPECT_NEAR(share_of(list, 0), 14.0 / 23, 0.04);
  EXPECT_NEAR(share_of(list, 1), 9.0 / 23, 0.04);
  const Marginal curve = forest->marginal(0);
  ASSERT_EQ(curve.values, (std::vector<double>{0, 1, 2}));
  for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(curve.mean[k], values[k] + 3, 0.2) << k;
}

TEST(Importance, MarginalCurvesFollowTheFunction) {
  Setting s = setting_of(R"({"a": {"low": -1.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}})");
  s.directions = {Direction::kMaximize};
  const auto trials = random_trials(s.space, 800, [](const Point& p) { return 100 * p[0] * p[0] + 10 * p[1]; });
  const auto forest = Forest::fit(s, trials);
  ASSERT_TRUE(forest.ok());
  const Marginal curve = forest->marginal(0, 21);
  ASSERT_EQ(curve.values.size(), 21u);
  for (size_t k = 0; k < 21; ++k) {
    EXPECT_NEAR(curve.mean[k], 100 * curve.values[k] * curve.values[k] + 5, 6) << curve.values[k];
    EXPECT_LT(curve.deviation[k], 8);
  }
}

// depth matters by 2 x in half of the space, where algo is "a"; algo by 3: Var of the main effects 9/4 of algo, and
// 1/12 of depth.
TEST(Importance, InactiveParametersSayNothing) {
  const Setting s = setting_of(
      R"({"algo": ["a", "b"], "depth": {"low": 0.0, "high": 1.0, "when": {"algo": "a"}}, "other": ["u", "v"]})");
  const auto trials = random_trials(s.space, 800, [](const Point& p) { return p[0] == 0 ? 2 * p[1] - 1 : 3; });
  const auto list = importances(s, trials);
  ASSERT_TRUE(list.ok());
  const double whole = 9.0 / 4 + 1.0 / 12 + 1.0 / 12;  // algo, depth, both
  EXPECT_NEAR(share_of(*list, 0), 9.0 / 4 / whole, 0.03);
  EXPECT_NEAR(share_of(*list, 1), 1.0 / 12 / whole, 0.02);
  EXPECT_LT(share_of(*list, 2), 0.01);
}

TEST(Importance, WorseValuesMayCountAsOne) {
  const Setting s = setting_of(R"({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}})");
  auto trials = random_trials(s.space, 300, [](const Point& p) { return p[0] + (p[1] > 0.98 ? 1e300 : 0.0); });
  EXPECT_LT(share_of(*importances(s, trials), 0), 0.1);
  EXPECT_GT(share_of(*importances(s, trials, {.worst = 1.0}), 0), 0.8);
}

TEST(Importance, IsAFunctionOfItsSeed) {
  const Setting s = setting_of(R"({"a": {"low": 0.0, "high": 1.0}, "k": {"low": 1, "high": 9}, "c": ["x", "y"]})");
  const auto trials = random_trials(s.space, 60, [](const Point& p) { return p[0] * p[1] + p[2]; });
  const auto a = importances(s, trials), b = importances(s, trials), c = importances(s, trials, {.seed = 1});
  for (size_t k = 0; k < 3; ++k) EXPECT_EQ((*a)[k].share, (*b)[k].share);
  EXPECT_NE((*a)[0].share, (*c)[0].share);
  EXPECT_NEAR((*a)[0].share, (*c)[0].share, 0.05);
}

TEST(Importance, OddStudies) {
  const Setting s = setting_of(R"({"a": {"low": 0.0, "high": 1.0}, "one": ["x"], "n": {"low": 1, "high": 1}})");
  auto trials = random_trials(s.space, 20, [](const Point& p) { return p[0]; });
  const auto list = importances(s, trials);
  ASSERT_TRUE(list.ok());
  EXPECT_NEAR((*list)[0].share, 1, 1e-9);
  trials[5].values = {INFINITY};
  trials[6].values = {1.7e308};
  trials[7].values = {-1.7e308};
  EXPECT_TRUE(std::isfinite((*importances(s, trials))[0].share));
  EXPECT_THAT(importances(s, {trials.begin(), trials.begin() + 3}).status().message(),
              HasSubstr("at least 4 complete trials, got 3"));
  for (Trial& t : trials) t.values = {2.5};
  EXPECT_THAT(importances(s, trials).status().message(), HasSubstr("all 20 values are 2.5"));
  EXPECT_THAT(importances(s, trials, {.objective = 1}).status().message(), HasSubstr("objective 1: the study has 1"));
  EXPECT_THAT(importances(s, trials, {.trees = 0}).status().message(), HasSubstr("at least 1"));
}

}  // namespace
}  // namespace deepseek::tune
