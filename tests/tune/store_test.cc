// What every store keeps: in memory, in SQLite and in PostgreSQL.
#include "tune/stores/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <thread>

#include "tests/tune/stores.h"
#include "tune/stores/database.h"

namespace deepseek::tune {
namespace {

using ::testing::HasSubstr;

class StoreTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "postgresql" && !PostgresServer::shared().missing().empty())
      GTEST_SKIP() << PostgresServer::shared().missing();
    url_ = GetParam() == "sqlite" ? folder_ / "study.db" : PostgresServer::shared().url();
    if (GetParam() == "postgresql") clear_postgres(url_);
  }
  bool sql() const { return GetParam() != "memory"; }
  Result<std::shared_ptr<Store>> open(const std::string& name, const std::string& config = kConfig) {
    if (sql()) return open_sql_store(url_, name, config, 20);
    std::shared_ptr<Store>& store = memory_[name];
    if (!store) store = make_memory_store(config);
    return store;
  }

  TempFolder folder_;
  std::string url_;
  std::map<std::string, std::shared_ptr<Store>> memory_;
};

using SqlStoreTest = StoreTest;
INSTANTIATE_TEST_SUITE_P(All, StoreTest, ::testing::Values("memory", "sqlite", "postgresql"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(All, SqlStoreTest, ::testing::Values("sqlite", "postgresql"),
                         [](const auto& info) { return info.param; });

TEST_P(StoreTest, GivesBackWhatItWasGiven) {
  std::vector<Trial> given;
  Trial t;
  t.state = TrialState::kWaiting;
  given.push_back(t);
  t.point = {0.1, kNan, kNan, kNan};  // a part: x alone, what depends on the choice is open
  given.push_back(t);
  t.state = TrialState::kComplete;
  t.point = {1.0 / 3, 7, 1, kNan};
  t.values = {5e-324, 1.7976931348623157e308, -0.0, 1.2345678901234568e17, 1e22};
  t.constraints = {kInf, -kInf, kNan, 0.1 + 0.2};
  t.reports = {{0, 1.5}, {9007199254740993, kNan}, {std::numeric_limits<int64_t>::max(), -kInf}};
  t.error = "a\n\"b\" \\ ' $1 %s ü 漢 🙂";
  t.worker = "host:1:ab";
  t.note = R"({"ünïcode": [1, null]})";
  t.attempts = 2;
  t.started = 1700000000.123456, t.ended = 1800000000.654321;
  given.push_back(t);
  for (const TrialState s : {TrialState::kRunning, TrialState::kPaused, TrialState::kPruned, TrialState::kFailed}) {
    Trial other;
    other.state = s;
    other.point = {-1, 100, 0, 0.5};
    given.push_back(other);
  }
  const auto store = open("study");
  ASSERT_OK(store);
  for (size_t i = 0; i < given.size(); ++i) {
    given[i].number = static_cast<int64_t>(i);
    ASSERT_OK(put(**store, given[i]));
  }
  const auto reopened = open("study");
  ASSERT_OK(reopened);
  for (const auto& s : {*store, *reopened}) {
    const std::vector<Trial> trials = trials_of(*s);
    ASSERT_EQ(trials.size(), given.size());
    for (size_t i = 0; i < given.size(); ++i) EXPECT_EQ(text_of_trial(trials[i]), text_of_trial(given[i]));
    EXPECT_TRUE(std::signbit(trials[2].values[2]));
  }
  EXPECT_EQ((*reopened)->config(), kConfig);
}

TEST_P(StoreTest, AnErrorOfTheBodyChangesNothing) {
  const auto store = open("study");
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "first")));
  const Status status = (*store)->transact([](Transaction& t) -> Status {
    DS_TRY(t.put(trial(0, "second")));
    DS_TRY(t.put(trial(1, "third")));
    EXPECT_EQ(t.trials().size(), 1u) << "what is put isn't there before the end";
    return invalid("no");
  });
  EXPECT_EQ(status.message(), "no");
  EXPECT_THROW((void)(*store)->transact([](Transaction& t) -> Status {
    EXPECT_OK(t.put(trial(0, "second")));
    throw std::runtime_error("no");
  }),
               std::runtime_error);
  ASSERT_EQ(trials_of(**store).size(), 1u);
  EXPECT_EQ(trials_of(**store)[0].worker, "first");
  ASSERT_OK(put(**store, trial(1, "next")));
  const auto reopened = open("study");
  ASSERT_OK(reopened);
  ASSERT_EQ(trials_of(**reopened).size(), 2u);
  EXPECT_EQ(trials_of(**reopened)[0].worker, "first");
}

TEST_P(StoreTest, TwoSeeEachOthersChanges) {
  const auto a = open("study"), b = open("study"), other = open("other");
  ASSERT_OK(a);
  ASSERT_OK(b);
  ASSERT_OK(other);
  ASSERT_OK(put(**a, trial(0, "a")));
  ASSERT_OK(put(**b, trial(1, "b")));
  ASSERT_OK(put(**a, trial(2, "a")));
  ASSERT_OK(put(**b, trial(0, "b")));
  ASSERT_OK(put(**other, trial(0, "other")));
  for (const auto& s : {*a, *b}) {
    const std::vector<Trial> trials = trials_of(*s);
    ASSERT_EQ(trials.size(), 3u);
    EXPECT_EQ(trials[0].worker + trials[1].worker + trials[2].worker, "bba");
  }
  EXPECT_EQ(trials_of(**other)[0].worker, "other");
}

TEST_P(StoreTest, RefusesNumbersThatLeaveGaps) {
  const auto store = open("study");
  ASSERT_OK(store);
  EXPECT_EQ(put(**store, trial(1, "w")).code(), ErrorCode::kInternal);
  EXPECT_EQ(put(**store, trial(-1, "w")).code(), ErrorCode::kInternal);
  EXPECT_TRUE(trials_of(**store).empty());
}

TEST_P(StoreTest, HearsOfWorkers) {
  const auto store = open("study");
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "w")));
  ASSERT_OK(put(**store, trial(1, "w", TrialState::kPaused)));
  const auto heard = [&](int64_t number) {
    double at = 0;
    EXPECT_OK((*store)->transact([&](Transaction& t) -> Status {
      DS_ASSIGN(at, t.last_beat(number));
      EXPECT_GE(t.now() + 1e-3, at);
      EXPECT_LT(t.now() - at, 5);
      return {};
    }));
    return at;
  };
  const double first = heard(0), paused = heard(1);
  EXPECT_NEAR(first, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(), 5);
  const auto again = (*store)->again();
  ASSERT_OK(again);
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_OK((*again)->beat({0}));
  EXPECT_GT(heard(0), first + 5e-3);
  EXPECT_EQ(heard(1), paused);
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const double second = heard(0);
  EXPECT_OK(put(**store, trial(0, "w")));
  EXPECT_GT(heard(0), second + 5e-3);
}

// Workers that each add so many trials, named by themselves.
Status add_trials(Store& store, const std::string& worker, int count) {
  for (int i = 0; i < count; ++i)
    DS_TRY(store.transact([&](Transaction& t) {
      return t.put(trial(static_cast<int64_t>(t.trials().size()), fmt::format("{}/{}", worker, i)));
    }));
  return {};
}

TEST_P(StoreTest, GivesANumberToOneOfManyOnly) {
  constexpr int kWorkers = 4, kEach = 60;
  if (sql()) {
    std::vector<pid_t> children;
    for (int w = 0; w < kWorkers; ++w)
      children.push_back(in_child([&] {
        const auto store = open("study");
        return store.ok() && add_trials(**store, fmt::format("{}", w), kEach).ok();
      }));
    for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  } else {
    const auto store = open("study");
    std::vector<std::thread> threads;
    for (int w = 0; w < kWorkers; ++w)
      threads.emplace_back([&, w] { EXPECT_OK(add_trials(**store, fmt::format("{}", w), kEach)); });
    for (std::thread& t : threads) t.join();
  }
  const auto store = open("study");
  ASSERT_OK(store);
  std::set<std::string> workers;
  for (const Trial& t : trials_of(**store)) workers.insert(t.worker);
  EXPECT_EQ(workers.size(), static_cast<size_t>(kWorkers * kEach));
  EXPECT_EQ(trials_of(**store).size(), workers.size());
}

TEST_P(SqlStoreTest, AKilledWriterLeavesWholeTransactions) {
  size_t most = 0;
  for (int round = 0; round < 15; ++round) {
    // Each transaction ends one trial, with all that belongs to it, and begins the next.
    const pid_t child = in_child([&] {
      const auto store = open("study");
      if (!store.ok()) return false;
      for (;;) {
        const Status status = (*store)->transact([](Transaction& t) -> Status {
          const auto n = static_cast<int64_t>(t.trials().size());
          if (n > 0) DS_TRY(t.put(finished(n - 1)));
          return t.put(trial(n, "w"));
        });
        if (!status.ok()) return false;
      }
    });
    ::usleep(static_cast<useconds_t>(3000 + 1789 * round));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(wait_for(child), 128 + SIGKILL) << "it ended by itself";
    const auto store = open("study");
    ASSERT_OK(store);
    const std::vector<Trial> trials = trials_of(**store);
    ASSERT_GE(trials.size(), most);
    most = trials.size();
    for (size_t i = 0; i < trials.size(); ++i) {
      const auto n = static_cast<int64_t>(i);
      ASSERT_EQ(text_of_trial(trials[i]), text_of_trial(i + 1 < trials.size() ? finished(n) : trial(n, "w")));
    }
  }
  EXPECT_GT(most, 5u);
}

TEST_P(SqlStoreTest, AStudyKeepsTheSettingsItWasMadeWith) {
  ASSERT_OK(put(**open("study"), trial(0, "first")));
  const auto again = open("study", R"({"space": {"other": {"type": "int", "low": 1, "high": 2}}})");
  ASSERT_OK(again);
  EXPECT_EQ((*again)->config(), kConfig);
  EXPECT_EQ(trials_of(**again).size(), 1u);
  const auto without = open("study", "");
  ASSERT_OK(without);
  EXPECT_EQ((*without)->config(), kConfig);
}

TEST_P(SqlStoreTest, AnUnknownStudyNamesThoseThatAre) {
  ASSERT_OK(open("digits"));
  const Status first = open("digit", "").status();
  EXPECT_EQ(first.code(), ErrorCode::kNotFound);
  EXPECT_THAT(first.message(), HasSubstr("no study 'digit'; did you mean 'digits'?; it has digits"));
  ASSERT_OK(open("houses"));
  EXPECT_THAT(open("wine", "").status().message(), HasSubstr("it has digits, houses"));
  EXPECT_THAT(delete_study(url_, "house").message(), HasSubstr("did you mean 'houses'?"));
  for (int i = 0; i < 25; ++i) ASSERT_OK(open(fmt::format("many-{:02}", i)));
  EXPECT_THAT(open("wine", "").status().message(), HasSubstr("many-17 and 7 more"));
}

TEST_P(SqlStoreTest, ListsAndDeletes) {
  EXPECT_THAT(delete_study(url_, "a").message(),
              HasSubstr(GetParam() == "sqlite" ? "No such file" : "it has none at all"));
  auto a = open("a"), b = open("b");
  ASSERT_OK(a);
  ASSERT_OK(b);
  for (int64_t i = 0; i < 3; ++i) ASSERT_OK(put(**a, i < 2 ? finished(i) : trial(i, "w")));
  ASSERT_OK(put(**b, trial(0, "w", TrialState::kFailed)));
  auto listed = list_studies(url_);
  ASSERT_OK(listed);
  ASSERT_EQ(listed->size(), 2u);
  EXPECT_EQ((*listed)[0].name + (*listed)[1].name, "ab");
  EXPECT_EQ((*listed)[0].config, kConfig);
  EXPECT_EQ((*listed)[0].trials, 3);
  EXPECT_EQ((*listed)[0].finished, 2);
  EXPECT_EQ((*listed)[1].finished, 1);
  EXPECT_NEAR((*listed)[0].created,
              std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(), 20);

  ASSERT_OK(delete_study(url_, "a"));
  const auto anew = open("a");
  ASSERT_OK(anew);
  EXPECT_TRUE(trials_of(**anew).empty());
  const Status gone = put(**a, trial(3, "w"));
  EXPECT_EQ(gone.code(), ErrorCode::kNotFound);
  EXPECT_THAT(gone.message(), HasSubstr("study 'a' was deleted while it was open here"));
  EXPECT_OK((*a)->beat({0}));
  EXPECT_TRUE(trials_of(**anew).empty());
  EXPECT_EQ(trials_of(**b).size(), 1u);
}

TEST_P(SqlStoreTest, ChecksNamesSettingsAndPoints) {
  EXPECT_THAT(open("").status().message(), HasSubstr("expected 1 to 500 bytes"));
  EXPECT_THAT(open(std::string(501, 'a')).status().message(), HasSubstr("expected 1 to 500 bytes"));
  EXPECT_THAT(open("\xff").status().message(), HasSubstr("UTF-8"));
  EXPECT_THAT(open("a", "oops").status().message(), HasSubstr("expected a JSON object with a \"space\", got 'oops'"));
  EXPECT_THAT(open("a", R"({"space": {"x": []}})").status().message(), HasSubstr("at least one choice"));
  const auto store = open("ein 'Näme\"; DROP TABLE trials; 漢");
  ASSERT_OK(store);
  Trial t = trial(0, "w");
  t.point = {0.5};
  EXPECT_THAT(put(**store, t).message(), HasSubstr("expected a point of 4 values, got 1"));
  t.point = {0.5, 5, 2, kNan};
  EXPECT_THAT(put(**store, t).message(), HasSubstr("parameter 'choice': expected a value from 0 to 1, got 2"));
  // Text that is no UTF-8 must not lose a trial.
  t.point = {0.5, 5, 1, kNan};
  t.error = std::string("a\xff\0b\xc3", 5);
  ASSERT_OK(put(**store, t));
  const auto again = open("ein 'Näme\"; DROP TABLE trials; 漢", "");
  ASSERT_OK(again);
  EXPECT_EQ(trials_of(**again)[0].error, "a\uFFFD\uFFFDb\uFFFD");
  EXPECT_EQ(trials_of(**store)[0].error, "a\uFFFD\uFFFDb\uFFFD");
}

TEST_P(SqlStoreTest, PeopleMayReadTheTables) {
  const auto store = open("study");
  ASSERT_OK(store);
  ASSERT_OK(put(**store, finished(0)));
  const auto rows = query(url_, "SELECT parameters, vals, reports, state FROM trials");
  ASSERT_OK(rows);
  const Row& row = rows->at(0);
  EXPECT_EQ(text_of(row[0]), R"({"x": 0.25, "n": 7, "choice": "b"})");
  EXPECT_EQ(text_of(row[1]) + text_of(row[2]) + text_of(row[3]), "[0.5][[0, 1], [1, 0.5]]complete");
}

TEST_P(SqlStoreTest, TrustsNoTable) {
  const auto store = open("study");
  ASSERT_OK(store);
  for (int64_t i = 0; i < 3; ++i) ASSERT_OK(put(**store, finished(i)));
  const auto error_after = [&](const std::string& change) {
    EXPECT_OK(query(url_, change));
    const auto opened = open("study", "");
    if (!opened.ok()) return opened.status();
    return (*opened)->transact([](Transaction&) { return Status(); });
  };
  const auto expect = [&](const std::string& column, const std::string& good, const std::string& bad,
                          const std::string& text) {
    const std::string set = "UPDATE trials SET " + column + " = '", where = "' WHERE number = 1";
    const Status status = error_after(set + bad + where);
    ASSERT_FALSE(status.ok()) << column;
    EXPECT_EQ(status.code(), ErrorCode::kDataCorrupt);
    EXPECT_THAT(status.message(), HasSubstr("study 'study', trial 1: "));
    EXPECT_THAT(status.message(), HasSubstr(text));
    EXPECT_OK(error_after(set + good + where));
  };
  expect("vals", "[0.5]", "oops", "expected a JSON list of numbers, got 'oops'");
  expect("vals", "[0.5]", "{}", "expected a JSON list of numbers");
  expect("vals", "[0.5]", "[\"NaN\"]", "expected a JSON list of numbers");
  expect("reports", "[[1, 2]]", "[[1.5, 2]]", "expected a JSON list of pairs of a step and a value");
  expect("reports", "[[1, 2]]", "[[1]]", "expected a JSON list of pairs of a step and a value");
  expect("state", "complete", "done", "unknown state of a trial: 'done'");
  expect("point", "[0.25, 7, 1, \"nan\"]", "[1, 2]", "expected a point of 4 values, got 2");
  expect("point", "[0.25, 7, 1, \"nan\"]", "[0.25, 7, 9, \"nan\"]", "expected a value from 0 to 1, got 9");
  EXPECT_THAT(error_after("DELETE FROM trials WHERE number = 0").message(), HasSubstr("expected trial 0 before it"));
  const Status other = error_after("UPDATE deepseek_schema SET version = 7");
  EXPECT_EQ(other.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(other.message(), HasSubstr("its tables are of version 7, this program knows version 1"));
  EXPECT_THAT(list_studies(url_).status().message(), HasSubstr("version 7"));
  EXPECT_THAT(delete_study(url_, "study").message(), HasSubstr("version 7"));
}

TEST_P(SqlStoreTest, LeavesOtherProgramsTablesAlone) {
  ASSERT_OK(query(url_, "CREATE TABLE trials (trial_id BIGINT)"));
  EXPECT_THAT(open("study").status().message(), HasSubstr("it has a table 'trials' of another program"));
  ASSERT_OK(query(url_, "INSERT INTO trials VALUES (1)"));
  EXPECT_TRUE(list_studies(url_)->empty());
}

TEST_P(SqlStoreTest, ManyMayMakeTheTablesAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i)
    children.push_back(in_child([&] {
      const auto store = open(i % 2 ? "odd" : "even");
      return store.ok() && add_trials(**store, fmt::format("{}", i), 3).ok();
    }));
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  EXPECT_EQ(list_studies(url_)->size(), 2u);
  EXPECT_EQ(trials_of(**open("odd", "")).size(), 9u);
}

}  // namespace
}  // namespace deepseek::tune
