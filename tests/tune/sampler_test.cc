#include "tune/samplers/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <unordered_set>

#include "tune/samplers/sobol.h"
#include "tune/study.h"

namespace deepseek::tune {
namespace {

using testing::HasSubstr;

Space space_of(const char* json) { return std::move(Space::parse(json)).value(); }

const char* kMixed =
    R"({"x": {"low": -5.0, "high": 5.0}, "rate": {"low": 1e-5, "high": 1e-1}, "n": {"low": 1, "high": 20}, "c": ["a", "b", "c"],
                         "y": {"low": 0.0, "high": 1.0, "when": {"c": ["a", "b"]}}})";

double loss_of(const Point& p) {
  return (p[0] - 1) * (p[0] - 1) + std::abs(std::log10(p[1]) + 3) + std::abs(p[2] - 7) / 4 + 2 * p[3] +
         (std::isnan(p[4]) ? 1 : p[4]);
}

std::vector<Trial> search(const Setting& setting, const std::string& name, int64_t trials, bool fresh = false) {
  std::shared_ptr<Sampler> sampler = std::move(make_sampler(name)).value();
  std::vector<Trial> done;
  for (int64_t n = 0; n < trials; ++n) {
    if (fresh) sampler = std::move(make_sampler(name)).value();
    Result<Point> p = sampler->suggest(setting, done, n);
    if (!p.ok()) {
      EXPECT_EQ(p.status().code(), ErrorCode::kNotFound) << p.status().to_string();
      break;
    }
    EXPECT_TRUE(setting.space.check(*p).ok()) << name << " " << setting.space.text(*p);
    Trial t;
    t.number = n;
    t.point = *p;
    t.state = TrialState::kComplete;
    t.values = {loss_of(*p)};
    done.push_back(std::move(t));
  }
  return done;
}

class EverySampler : public testing::TestWithParam<std::string> {};

TEST_P(EverySampler, SameSeedSameTrialsWhateverIsKept) {
  const Setting setting{space_of(kMixed), {Direction::kMinimize}, 7, {}};
  const std::vector<Trial> kept = search(setting, GetParam(), 40), fresh = search(setting, GetParam(), 40, true);
  ASSERT_EQ(kept.size(), 40u);
  for (size_t i = 0; i < 40; ++i) EXPECT_TRUE(PointEqual()(kept[i].point, fresh[i].point)) << i;
  const std::vector<Trial> other = search({setting.space, setting.directions, 8, {}}, GetParam(), 40);
  EXPECT_FALSE(PointEqual()(kept[5].point, other[5].point) && PointEqual()(kept[6].point, other[6].point));
}

TEST_P(EverySampler, FiniteSpaceIsTriedOnceAndNoMore) {
  const Setting setting{
      space_of(
          R"({"a": [1, 2, 3], "b": ["x", "y"], "c": {"low": 1, "high": 3}, "d": {"choices": ["p", "q"], "when": {"b": "x"}}, "e": [1, 2]})"),
      {Direction::kMinimize},
      1,
      {}};
  std::shared_ptr<Sampler> sampler = std::move(make_sampler(GetParam())).value();
  std::vector<Trial> done;
  std::unordered_set<Point, PointHash, PointEqual> seen;
  for (int64_t n = 0;; ++n) {
    Result<Point> p = sampler->suggest(setting, done, n);
    if (!p.ok()) {
      EXPECT_EQ(p.status().code(), ErrorCode::kNotFound);
      EXPECT_THAT(p.status().message(), HasSubstr("all 54 points"));
      break;
    }
    ASSERT_TRUE(seen.insert(*p).second) << setting.space.text(*p);
    Trial t;
    t.number = n;
    t.point = *p;
    t.state = TrialState::kComplete;
    t.values = {(*p)[0] + (*p)[2]};
    done.push_back(std::move(t));
    ASSERT_LE(n, 54);
  }
  EXPECT_EQ(seen.size(), 54u);
}

TEST_P(EverySampler, KnownConstraintsHold) {
  Setting setting{space_of(kMixed), {Direction::kMinimize}, 3, {}};
  setting.allowed = [](const Point& p) { return p[0] + p[2] / 4 < 2; };
  for (const Trial& t : search(setting, GetParam(), 40))
    EXPECT_TRUE(setting.allowed(t.point)) << setting.space.text(t.point);
  setting.allowed = [](const Point&) { return false; };
  const Result<Point> none = std::move(make_sampler(GetParam())).value()->suggest(setting, {}, 0);
  ASSERT_FALSE(none.ok());
}

// Failed trials, trials without values and running ones are part of every history.
TEST_P(EverySampler, BrokenTrialsAreNoTrouble) {
  const Setting setting{space_of(kMixed), {Direction::kMaximize}, 3, {}};
  std::vector<Trial> trials = search(setting, "random", 30);
  for (size_t i = 0; i < 30; i += 3) trials[i].state = TrialState::kFailed, trials[i].values.clear();
  for (size_t i = 1; i < 30; i += 6) trials[i].state = TrialState::kRunning, trials[i].values.clear();
  trials[2].state = TrialState::kPruned, trials[2].values.clear();
  trials[5].state = TrialState::kPruned, trials[5].values.clear(), trials[5].reports = {{1, 3.0}};
  trials[8].state = TrialState::kWaiting, trials[8].point.clear();
  trials[11].values = {1e300};
  const Result<Point> p = std::move(make_sampler(GetParam())).value()->suggest(setting, trials, 30);
  ASSERT_TRUE(p.ok()) << p.status().to_string();
  EXPECT_TRUE(setting.space.check(*p).ok());
}

INSTANTIATE_TEST_SUITE_P(Samplers, EverySampler, testing::ValuesIn(sampler_names()),
                         [](const auto& i) { return i.param; });

// On a smooth function these must do better than random search, by far: the bound is a tenth of the median of 20 seeds.
TEST(Sampler, ModelsBeatRandomSearch) {
  const auto median_best = [](const std::string& name) {
    std::vector<double> best;
    for (uint64_t seed = 0; seed < 11; ++seed) {
      double least = 1e9;
      for (const Trial& t : search({space_of(kMixed), {Direction::kMinimize}, seed, {}}, name, 50))
        least = std::min(least, t.values[0]);
      best.push_back(least);
    }
    std::nth_element(best.begin(), best.begin() + 5, best.end());
    return best[5];
  };
  const double random = median_best("random");
  EXPECT_LT(median_best("hybrid"), 0.4 * random);
  EXPECT_LT(median_best("gp"), 0.4 * random);
  EXPECT_LT(median_best("tpe"), 0.9 * random);
}

TEST(Sampler, MaximizingIsMinimizingTheNegative) {
  Setting least{space_of(kMixed), {Direction::kMinimize}, 5, {}}, most{space_of(kMixed), {Direction::kMaximize}, 5, {}};
  std::vector<Trial> trials = search(least, "random", 25);
  const Result<Point> a = make_hybrid_sampler()->suggest(least, trials, 25);
  for (Trial& t : trials) t.values[0] = -t.values[0];
  const Result<Point> b = make_hybrid_sampler()->suggest(most, trials, 25);
  EXPECT_TRUE(PointEqual()(*a, *b));
}

// A constraint that the objective knows alone: x > 0 is not allowed, where the loss would be least.
TEST(Sampler, LearnsBlackBoxConstraintsAndFailures) {
  for (const bool fails : {false, true}) {
    const Setting setting{space_of(R"({"x": {"low": -5.0, "high": 5.0}, "y": {"low": -5.0, "high": 5.0}})"),
                          {Direction::kMinimize},
                          2,
                          {}};
    const auto sampler = make_hybrid_sampler();
    std::vector<Trial> done;
    double best = 1e9;
    int64_t late_misses = 0;
    for (int64_t n = 0; n < 40; ++n) {
      Trial t;
      t.number = n;
      t.point = *sampler->suggest(setting, done, n);
      const double x = t.point[0], y = t.point[1], loss = (x - 2) * (x - 2) + y * y;
      const bool feasible = x <= 0;
      t.state = fails && !feasible ? TrialState::kFailed : TrialState::kComplete;
      if (t.state == TrialState::kComplete) t.values = {loss};
      if (!fails) t.constraints = {x};
      if (feasible) best = std::min(best, loss);
      if (n >= 20 && !feasible) ++late_misses;
      done.push_back(std::move(t));
    }
    EXPECT_LT(best, 4.6) << fails;  // the best that is allowed is 4
    EXPECT_LE(late_misses, 14) << fails << " " << best;
  }
}

TEST(Sampler, SeveralObjectivesSpreadOverTheFront) {
  const Setting setting{space_of(R"({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}})"),
                        {Direction::kMinimize, Direction::kMinimize},
                        2,
                        {}};
  for (const char* name : {"hybrid", "tpe"}) {
    const auto sampler = std::move(make_sampler(name)).value();
    std::vector<Trial> done;
    for (int64_t n = 0; n < 50; ++n) {
      Trial t;
      t.number = n;
      t.point = *sampler->suggest(setting, done, n);
      t.state = TrialState::kComplete;
      t.values = {t.point[0] * t.point[0] + t.point[1], (t.point[0] - 1) * (t.point[0] - 1) + t.point[1]};
      done.push_back(std::move(t));
    }
    int near = 0;
    for (const size_t i : best_trials(setting, done)) near += done[i].point[1] < 0.05;
    EXPECT_GE(near, 5) << name;
  }
  EXPECT_THAT(make_cmaes_sampler()->suggest(setting, {}, 0).status().message(), HasSubstr("expected one objective"));
}

TEST(Sobol, EachHalfQuarterAndEighthGetsItsShare) {
  const Sobol sobol;
  for (const uint64_t seed : {1u, 2u}) {
    std::vector<std::set<int>> cells(6);
    for (uint64_t i = 0; i < 64; ++i) {
      const std::vector<double> p = sobol.point(6, i, seed);
      for (size_t d = 0; d < 6; ++d) cells[d].insert(static_cast<int>(p[d] * 64));
    }
    for (const auto& c : cells) EXPECT_EQ(c.size(), 64u);  // a (0, m, 1)-net in each dimension, also scrambled
  }
  EXPECT_EQ(sobol.point(6, 5, 1), Sobol().point(6, 5, 1));
  EXPECT_NE(sobol.point(6, 5, 1), sobol.point(6, 5, 2));
}

}  // namespace
}  // namespace deepseek::tune
