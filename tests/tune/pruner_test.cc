#include "tune/pruner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace deepseek::tune {
namespace {

using testing::HasSubstr;

Trial trial_of(int64_t number, TrialState state, std::vector<double> values) {
  Trial t;
  t.number = number;
  t.state = state;
  for (size_t k = 0; k < values.size(); ++k) t.reports.push_back({static_cast<int64_t>(k) + 1, values[k]});
  return t;
}
std::shared_ptr<Pruner> pruner(const char* text) { return std::move(make_pruner(text)).value(); }

TEST(Pruner, Median) {
  std::vector<Trial> trials;
  for (int k = 0; k < 5; ++k) trials.push_back(trial_of(k, TrialState::kComplete, {1.0 * k, 2.0 * k}));
  const auto median = pruner("median(startup_trials=5)");
  EXPECT_FALSE(median->stops(trial_of(5, TrialState::kRunning, {2.0}), trials, Direction::kMinimize));
  EXPECT_TRUE(median->stops(trial_of(5, TrialState::kRunning, {2.1}), trials, Direction::kMinimize));
  EXPECT_TRUE(median->stops(trial_of(5, TrialState::kRunning, {1.9}), trials, Direction::kMaximize));
  // Its best so far counts, against what others had at this step.
  EXPECT_FALSE(median->stops(trial_of(5, TrialState::kRunning, {2.1, 9}), trials, Direction::kMinimize));
  EXPECT_TRUE(median->stops(trial_of(5, TrialState::kRunning, {std::nan("")}), trials, Direction::kMinimize));
  EXPECT_FALSE(
      pruner("median(startup_trials=6)")->stops(trial_of(5, TrialState::kRunning, {99}), trials, Direction::kMinimize));
  EXPECT_FALSE(
      pruner("median(warmup_steps=2)")->stops(trial_of(5, TrialState::kRunning, {99}), trials, Direction::kMinimize));
  EXPECT_TRUE(pruner("percentile(percentile=25)")
                  ->stops(trial_of(5, TrialState::kRunning, {1.5}), trials, Direction::kMinimize));
}

TEST(Pruner, SuccessiveHalving) {
  const auto asha = pruner("asha(min_step=2, factor=3)");
  std::vector<Trial> trials;
  for (int k = 0; k < 5; ++k) trials.push_back(trial_of(k, TrialState::kPaused, {9, 1.0 * k}));
  EXPECT_FALSE(asha->stops(trial_of(5, TrialState::kRunning, {99}), trials, Direction::kMinimize));  // no rung
  EXPECT_FALSE(asha->stops(trial_of(5, TrialState::kRunning, {99, 0.5}), trials, Direction::kMinimize));
  EXPECT_TRUE(asha->stops(trial_of(5, TrialState::kRunning, {99, 1.5}), trials, Direction::kMinimize));
  EXPECT_TRUE(asha->stops(trial_of(5, TrialState::kRunning, {0, std::nan("")}), trials, Direction::kMinimize));
  // Of five paused ones the best third, one, may go on.
  EXPECT_EQ(asha->resumes(trials, Direction::kMinimize), 0);
  EXPECT_EQ(asha->resumes(trials, Direction::kMaximize), 4);
  trials[0].state = TrialState::kRunning;
  EXPECT_EQ(asha->resumes(trials, Direction::kMinimize), std::nullopt);
}

TEST(Pruner, PatienceAndThreshold) {
  const auto patience = pruner("patience(steps=2)");
  EXPECT_FALSE(patience->stops(trial_of(0, TrialState::kRunning, {3, 2, 2.5}), {}, Direction::kMinimize));
  EXPECT_TRUE(patience->stops(trial_of(0, TrialState::kRunning, {3, 2, 2.5, 2}), {}, Direction::kMinimize));
  const auto threshold = pruner("threshold(high=5)");
  EXPECT_FALSE(threshold->stops(trial_of(0, TrialState::kRunning, {5}), {}, Direction::kMinimize));
  EXPECT_TRUE(threshold->stops(trial_of(0, TrialState::kRunning, {5.1}), {}, Direction::kMinimize));
  EXPECT_TRUE(threshold->stops(trial_of(0, TrialState::kRunning, {std::nan("")}), {}, Direction::kMinimize));
}

TEST(Pruner, MistakesAreNamed) {
  EXPECT_THAT(make_pruner("medain").status().message(), HasSubstr("did you mean 'median'?"));
  EXPECT_THAT(make_pruner("asha(min_stepp=1)").status().message(), HasSubstr("did you mean 'min_step'?"));
  EXPECT_THAT(make_pruner("asha(factor=x)").status().message(), HasSubstr("expected a number"));
  EXPECT_THAT(make_pruner("asha(factor=1)").status().message(), HasSubstr("factor above 1"));
  EXPECT_THAT(make_pruner("asha(factor=3").status().message(), HasSubstr("closing parenthesis"));
}

}  // namespace
}  // namespace deepseek::tune
