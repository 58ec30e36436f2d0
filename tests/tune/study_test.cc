#include "tune/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "tune/pareto.h"

namespace deepseek::tune {
namespace {

using testing::HasSubstr;

StudyOptions options_of(const char* space) {
  StudyOptions o;
  o.space = std::move(Space::parse(space)).value();
  o.grace = 0;
  return o;
}
std::unique_ptr<Study> study_of(StudyOptions o, std::shared_ptr<Store> store = nullptr) {
  if (!store) store = make_memory_store(o.to_json());
  Result<std::unique_ptr<Study>> study = Study::create(std::move(o), std::move(store));
  EXPECT_TRUE(study.ok()) << study.status().to_string();
  return std::move(study).value();
}
const char* kLine = R"({"x": {"low": 0.0, "high": 1.0}})";

TEST(Study, OptionsRoundTrip) {
  StudyOptions o = options_of(kLine);
  o.directions = {Direction::kMaximize, Direction::kMinimize};
  o.seed = 12345678901234567ull;
  o.max_seconds = 2.5;
  EXPECT_EQ(std::move(StudyOptions::parse(o.to_json())).value().to_json(), o.to_json());
  EXPECT_FALSE(StudyOptions::parse("{}").ok());
}

TEST(Study, AsksUntilItsTrialsAreMade) {
  StudyOptions o = options_of(kLine);
  o.max_trials = 5;
  const auto study = study_of(o);
  for (int64_t n = 0; n < 5; ++n) {
    const auto trial = study->ask();
    ASSERT_TRUE(trial.ok() && trial->has_value());
    EXPECT_EQ((*trial)->number, n);
    EXPECT_TRUE(*study->tell(n, TrialState::kComplete, {static_cast<double>((n + 3) % 5)}));
  }
  EXPECT_FALSE(study->ask()->has_value());
  EXPECT_THAT(study->over(), HasSubstr("all 5 trials"));
  EXPECT_EQ(best_trials(study->setting(), *study->trials()), std::vector<size_t>{2});
}

TEST(Study, StopsWithoutProgressAndAfterItsTime) {
  StudyOptions o = options_of(kLine);
  o.patience = 3;
  const auto study = study_of(o);
  int64_t n = 0;
  for (; study->ask()->has_value(); ++n) ASSERT_TRUE(study->tell(n, TrialState::kComplete, {n == 2 ? 0.0 : 1.0}).ok());
  EXPECT_EQ(n, 6);  // the best is the third, three more bring nothing
  o.patience = 0;
  o.max_seconds = 0.05;
  const auto timed = study_of(o);
  ASSERT_TRUE(timed->ask()->has_value());
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_FALSE(timed->ask()->has_value());
  EXPECT_THAT(timed->over(), HasSubstr("seconds"));
}

TEST(Study, BudgetsHoldForWhatWaits) {
  StudyOptions o = options_of(kLine);
  o.max_seconds = 0.05;
  const auto study = study_of(o);
  Trial old;  // that others ended long ago says nothing of this search's time
  old.state = TrialState::kComplete;
  old.point = {0.5};
  old.values = {1};
  old.started = old.ended = 1;
  ASSERT_TRUE(study->add(old).ok());
  for (int k = 0; k < 2; ++k) ASSERT_TRUE(study->enqueue({0.25}).ok());
  ASSERT_TRUE(study->ask()->has_value());
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_FALSE(study->ask()->has_value());
}

TEST(Study, PatienceIsForWhatKeepsTheConstraintsAndForFronts) {
  StudyOptions o = options_of(kLine);
  o.patience = 3;
  const auto study = study_of(o);
  for (int64_t n = 0; n < 8; ++n) {  // the first has the least value, but is not allowed; the others fall
    ASSERT_TRUE(study->ask()->has_value());
    ASSERT_TRUE(
        study->tell(n, TrialState::kComplete, {n == 0 ? -1.0 : 9.0 - static_cast<double>(n)}, {n == 0 ? 1.0 : 0.0})
            .ok());
  }
  o.directions = {Direction::kMinimize, Direction::kMaximize};
  const auto two = study_of(o);
  int64_t n = 0;
  for (; two->ask()->has_value(); ++n) {  // four on the front, then what they dominate or equal
    const double at = static_cast<double>(std::min<int64_t>(n, 3));
    ASSERT_TRUE(two->tell(n, TrialState::kComplete, {at, at}).ok());
  }
  EXPECT_EQ(n, 7);
}

TEST(Study, CompletesWhatIsEnqueuedWithoutRepeating) {
  const auto study = study_of(options_of(R"({"a": ["p", "q"], "b": ["r", "s", "t"]})"));
  for (int k = 0; k < 4; ++k) ASSERT_TRUE(study->enqueue({0, std::nan("")}).ok());
  std::set<Point> points;
  for (int k = 0; k < 6; ++k) {
    const auto trial = study->ask();
    ASSERT_TRUE(trial.ok() && trial->has_value());
    points.insert((*trial)->point);
  }
  EXPECT_EQ(points.size(), 6u);
  EXPECT_FALSE(study->ask()->has_value());
  const std::vector<Trial> trials = *study->trials();
  EXPECT_EQ(trials[3].state, TrialState::kFailed);  // of a == p there are but three
  EXPECT_THAT(trials[3].error, HasSubstr("has been tried"));
}

TEST(Study, EndsOnceAndSaysWhatIsWrong) {
  const auto study = study_of(options_of(kLine));
  ASSERT_TRUE(study->ask().ok());
  EXPECT_THAT(study->tell(7, TrialState::kComplete, {1}).status().message(), HasSubstr("the study has 1 trials"));
  EXPECT_THAT(study->tell(0, TrialState::kComplete, {1, 2}).status().message(), HasSubstr("expected 1 value, got 2"));
  EXPECT_TRUE(*study->tell(0, TrialState::kComplete, {1}));
  EXPECT_FALSE(*study->tell(0, TrialState::kComplete, {2}));
  EXPECT_EQ((*study->trials())[0].values[0], 1);
  ASSERT_TRUE(study->ask().ok());
  EXPECT_TRUE(*study->tell(1, TrialState::kComplete, {std::nan("")}));
  EXPECT_EQ((*study->trials())[1].state, TrialState::kFailed);
  EXPECT_THAT(study->report(0, 1, 2).status().message(), HasSubstr("it is complete"));
}

TEST(Study, EnqueuedPointsComeFirst) {
  const auto study = study_of(options_of(R"({"x": {"low": 0.0, "high": 1.0}, "c": ["a", "b"]})"));
  ASSERT_TRUE(study->enqueue({0.25, 1}).ok());
  ASSERT_TRUE(study->enqueue({std::nan(""), 1}).ok());
  EXPECT_EQ((*study->ask())->point, (Point{0.25, 1}));
  const Point partly = (*study->ask())->point;
  EXPECT_EQ(partly[1], 1);
  EXPECT_TRUE(study->options().space.check(partly).ok());
  EXPECT_EQ((*study->ask())->number, 2);
  EXPECT_THAT(study->enqueue({7, 1}).message(), HasSubstr("'x': expected a value from 0 to 1, got 7"));
}

// Two studies of one store, as two processes have: the first one's worker dies with a trial.
TEST(Study, TakesOverFromTheDead) {
  StudyOptions o = options_of(kLine);
  o.max_trials = 1;
  o.grace = 0.2;
  o.max_attempts = 2;
  const auto store = make_memory_store(o.to_json());
  auto dead = study_of(o, store);
  const Trial lost = **dead->ask();
  const auto alive = study_of(o, store);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(alive->ask()->has_value());  // its heart beats still
  dead.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto again = alive->ask();
  ASSERT_TRUE(again.ok() && again->has_value());
  EXPECT_EQ((*again)->number, lost.number);
  EXPECT_EQ((*again)->point, lost.point);
  EXPECT_EQ((*again)->attempts, 1);
  EXPECT_TRUE(*alive->tell(0, TrialState::kComplete, {1}));
}

// A store to which its worker's beats don't come, as those of a process that is stopped.
class Unheard : public Store {
 public:
  explicit Unheard(std::shared_ptr<Store> store) : store_(std::move(store)) {}
  Status transact(const std::function<Status(Transaction&)>& body) override { return store_->transact(body); }
  Status beat(const std::vector<int64_t>&) override { return {}; }
  const std::string& config() const override { return store_->config(); }
  Result<std::shared_ptr<Store>> again() override { return std::shared_ptr<Store>(std::make_shared<Unheard>(store_)); }

 private:
  std::shared_ptr<Store> store_;
};

// Stopped for so long that another has its trial, a worker goes on: whatever it tells, the trial is the other's.
TEST(Study, WhatAStoppedWorkerTellsIsNotTheOthersEnd) {
  StudyOptions o = options_of(kLine);
  o.grace = 0.05;
  o.max_attempts = 9;
  for (const TrialState told : {TrialState::kWaiting, TrialState::kPaused, TrialState::kPruned, TrialState::kFailed}) {
    const auto store = make_memory_store(o.to_json());
    const auto stopped = study_of(o, std::make_shared<Unheard>(store)), other = study_of(o, store);
    ASSERT_EQ((**stopped->ask()).number, 0);
    EXPECT_FALSE(*stopped->report(0, 1, 0.5));
    std::this_thread::sleep_for(std::chrono::milliseconds(80));
    ASSERT_EQ((**other->ask()).number, 0);
    EXPECT_TRUE(*stopped->report(0, 2, 0.25));  // it is to stop, and its value isn't the other's
    EXPECT_FALSE(*stopped->tell(0, told, {}, {}, "stopped"));
    const Trial trial = *other->trial(0);
    EXPECT_EQ(trial.state, TrialState::kRunning);
    EXPECT_EQ(trial.reports.size(), 1u);
    EXPECT_FALSE(*other->report(0, 2, 0.75));
    EXPECT_TRUE(*other->tell(0, TrialState::kComplete, {0.75}));
    EXPECT_EQ((*other->trial(0)).state, TrialState::kComplete);
  }
}

TEST(Study, GivesUpATrialThatKillsItsWorkers) {
  StudyOptions o = options_of(kLine);
  o.max_trials = 1;
  o.grace = 0.05;
  o.max_attempts = 2;
  const auto store = make_memory_store(o.to_json());
  for (int k = 0; k < 2; ++k) {
    ASSERT_TRUE(study_of(o, store)->ask()->has_value());
    std::this_thread::sleep_for(std::chrono::milliseconds(80));
  }
  const auto study = study_of(o, store);
  EXPECT_FALSE(study->ask()->has_value());
  const Trial trial = (*study->trials())[0];
  EXPECT_EQ(trial.state, TrialState::kFailed);
  EXPECT_THAT(trial.error, HasSubstr("2 times"));
}

TEST(Study, HalvingPausesAndTakesUpAgain) {
  StudyOptions o = options_of(kLine);
  o.sampler = "random";
  o.pruner = "asha(min_step=1, factor=2)";
  o.max_trials = 8;
  const auto study = study_of(o);
  std::vector<int64_t> order;
  std::vector<int64_t> steps(8, 0);
  for (;;) {
    const auto trial = study->ask();
    ASSERT_TRUE(trial.ok());
    if (!trial->has_value()) break;
    const int64_t n = (*trial)->number;
    order.push_back(n);
    bool stops = false;
    // Later trials are better; a trial is whole after 4 steps.
    while (steps[static_cast<size_t>(n)] < 4 && !stops)
      stops = *study->report(n, ++steps[static_cast<size_t>(n)], 10.0 - static_cast<double>(n));
    ASSERT_TRUE(study
                    ->tell(n, stops ? TrialState::kPaused : TrialState::kComplete,
                           stops ? std::vector<double>() : std::vector<double>{10.0 - static_cast<double>(n)})
                    .ok());
    ASSERT_LT(order.size(), 40u);
  }
  // At the first rung half of the eight went on, of those half at the second; the best one is whole.
  EXPECT_EQ(steps[7], 4);
  const std::vector<Trial> trials = *study->trials();
  EXPECT_EQ(trials[7].state, TrialState::kComplete);
}

TEST(Pareto, FrontAndVolume) {
  const std::vector<std::vector<double>> losses = {{1, 4}, {2, 2}, {4, 1}, {3, 3}, {2, 2}, {5, 5}};
  EXPECT_EQ(pareto_front(losses), (std::vector<size_t>{0, 1, 2, 4}));
  EXPECT_DOUBLE_EQ(hypervolume(losses, {5, 5}), 4 * 1 + 3 * 2 + 1 * 1);
  EXPECT_DOUBLE_EQ(hypervolume({{6, 1}}, {5, 5}), 0);
  EXPECT_DOUBLE_EQ(hypervolume({{0, 0, 0}}, {1, 2, 3}), 6);
  EXPECT_DOUBLE_EQ(hypervolume({{0, 0, 1}, {0, 1, 0}, {1, 0, 0}}, {2, 2, 2}), 4 + 4 + 4 - 2 - 2 - 2 + 1);
}

}  // namespace
}  // namespace deepseek::tune
