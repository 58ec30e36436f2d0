// What tests of stores share.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/io/temp_folder.h"
#include "tests/tune/postgres_server.h"
#include "tune/stores/database.h"
#include "tune/stores/sql_store.h"
#include "tune/stores/store.h"
#include "tune/stores/trial_json.h"

namespace deepseek::tune {

inline const Status& status_of(const Status& status) { return status; }
template <class T>
const Status& status_of(const Result<T>& result) {
  return result.status();
}

inline ::testing::AssertionResult succeeded(const Status& status) {
  return status.ok() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << status.to_string();
}

#define EXPECT_OK(expr) EXPECT_TRUE(succeeded(status_of(expr)))
#define ASSERT_OK(expr) ASSERT_TRUE(succeeded(status_of(expr)))

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// x, n, choice, and y where the choice is "a".
inline const std::string kConfig =
    R"({"space": {"x": {"type": "float", "low": -1, "high": 1}, "n": {"type": "int", "low": 1, "high": 100}, )"
    R"("choice": {"type": "choice", "choices": ["a", "b"]}, )"
    R"("y": {"type": "float", "low": 0, "high": 1, "when": {"choice": "a"}}}, "seed": 1})";

inline Trial trial(int64_t number, std::string worker, TrialState state = TrialState::kRunning) {
  Trial t;
  t.number = number;
  t.state = state;
  t.point = {0.25, 7, 1, kNan};
  t.worker = std::move(worker);
  return t;
}

inline Trial finished(int64_t number) {
  Trial t = trial(number, "w", TrialState::kComplete);
  t.values = {0.5};
  t.reports = {{0, 1}, {1, 0.5}};
  t.ended = static_cast<double>(number);
  return t;
}

// All of it, with values to the last bit.
inline std::string text_of_trial(const Trial& t) {
  return fmt::format("{} {} {} {} {} {} '{}' '{}' '{}' {} {} {}", t.number, to_string(t.state), numbers_text(t.point),
                     numbers_text(t.values), numbers_text(t.constraints), reports_text(t.reports), t.error, t.worker,
                     t.note, t.attempts, t.started, t.ended);
}

inline Status put(Store& store, const Trial& trial) {
  return store.transact([&](Transaction& t) { return t.put(trial); });
}

inline std::vector<Trial> trials_of(Store& store) {
  std::vector<Trial> trials;
  EXPECT_OK(store.transact([&](Transaction& t) {
    trials = t.trials();
    return Status();
  }));
  return trials;
}

inline Result<std::vector<Row>> query(const std::string& url, const std::string& sql) {
  DS_ASSIGN(const auto database, make_database(url, true, Patience{5, {}}));
  DS_TRY(database->connect());
  return database->execute(sql);
}

inline void clear_postgres(const std::string& url) {
  const Patience patience{20, {}};  // it may be starting
  const auto database = make_database(url, false, patience);
  ASSERT_OK(database);
  ASSERT_OK(persist(**database, patience, [&]() -> Status {
    for (const char* table : {"studies", "trials", "deepseek_schema"})
      DS_TRY((*database)->execute(fmt::format("DROP TABLE IF EXISTS {}", table)).status());
    return {};
  }));
}

// Nothing of the test's own ends in a child: no destructors, no exit handlers.
inline pid_t in_child(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work() ? 0 : 1);
  return child;
}

// Its exit status; 128 and the signal where one ended it.
inline int wait_for(pid_t child) {
  int state = 0;
  if (child <= 0 || ::waitpid(child, &state, 0) != child) return -1;
  return WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}

}  // namespace deepseek::tune
