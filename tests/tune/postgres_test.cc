// What can happen to a server.
#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/tune/stores.h"

namespace deepseek::tune {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Postgres : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!server_.missing().empty()) GTEST_SKIP() << server_.missing();
    clear_postgres(server_.url());
  }
  Result<std::shared_ptr<Store>> open(double patience = 20) {
    return open_sql_store(server_.url(), "study", kConfig, patience);
  }

  PostgresServer& server_ = PostgresServer::shared();
};

// Adds the trial of this name, unless an earlier run of the body had, as Study does.
Status add_once(Store& store, const std::string& worker) {
  return store.transact([&](Transaction& t) -> Status {
    for (const Trial& other : t.trials())
      if (other.worker == worker) return {};
    return t.put(trial(static_cast<int64_t>(t.trials().size()), worker));
  });
}

TEST_F(Postgres, WorkersWaitWhileItRestartsOrCrashes) {
  constexpr int kWorkers = 3, kEach = 30;
  TempFolder folder;
  std::vector<pid_t> children;
  for (int w = 0; w < kWorkers; ++w)
    children.push_back(in_child([&] {
      if (!std::freopen((folder / std::to_string(w)).c_str(), "w", stderr)) return false;
      const auto store = open();
      bool good = store.ok();
      for (int i = 0; i < kEach && good; ++i) {
        const Status status = add_once(**store, fmt::format("{}/{}", w, i));
        if (!status.ok()) fmt::print(stderr, "{}\n", status.to_string());
        good = status.ok();
        ::usleep(10'000);
      }
      std::fflush(stderr);
      return good;
    }));
  for (const int signal : {SIGINT, SIGQUIT}) {
    ::usleep(100'000);
    server_.stop(signal);
    ::usleep(300'000);
    server_.start();
  }
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  const auto store = open();
  ASSERT_OK(store);
  std::set<std::string> workers;
  for (const Trial& t : trials_of(**store)) workers.insert(t.worker);
  EXPECT_EQ(workers.size(), static_cast<size_t>(kWorkers * kEach));
  EXPECT_EQ(trials_of(**store).size(), workers.size());
  for (int w = 0; w < kWorkers; ++w) {
    std::stringstream said;
    said << std::ifstream(folder / std::to_string(w)).rdbuf();
    EXPECT_THAT(said.str(), AllOf(HasSubstr("waiting up to 20 s"), HasSubstr("connected again after")));
  }
}

TEST_F(Postgres, ABodyRunsAgainWhereTheConnectionWasLost) {
  const auto store = open();
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "before")));
  int runs = 0;
  ASSERT_OK((*store)->transact([&](Transaction& t) -> Status {
    if (++runs == 1) {
      EXPECT_OK(
          query(server_.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in%'"));
    }
    EXPECT_EQ(t.trials().size(), 1u);
    return t.put(trial(1, fmt::format("run {}", runs)));
  }));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(trials_of(**store).at(1).worker, "run 2");
  // Between transactions too; and beats, which don't wait, connect once more.
  ASSERT_OK(query(server_.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle'"));
  EXPECT_OK((*store)->beat({0, 1}));
  ASSERT_OK(query(server_.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle'"));
  EXPECT_EQ(trials_of(**store).size(), 2u);
}

TEST_F(Postgres, NoServerIsWaitedForAndGivenUpInTime) {
  auto store = open(0.5);
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "w")));
  server_.stop(SIGINT);
  ::testing::internal::CaptureStderr();
  const Status gone = put(**store, trial(1, "w")), beat = (*store)->beat({0}), first = open(0.3).status();
  bool cancel = true;
  const Status cancelled = open_sql_store(server_.url(), "study", kConfig, 20, [&] { return cancel; }).status();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(gone.code(), ErrorCode::kIo);
  EXPECT_THAT(gone.message(), AllOf(HasSubstr("given up after 0.5 s"), HasSubstr("check that the server runs")));
  EXPECT_EQ(beat.code(), ErrorCode::kIo);
  EXPECT_THAT(first.message(), AllOf(HasSubstr("given up after"), HasSubstr("cannot connect")));
  EXPECT_EQ(cancelled.code(), ErrorCode::kInterrupted);
  EXPECT_THAT(said, AllOf(HasSubstr("waiting up to 0 s"), Not(HasSubstr("connected again"))));

  // The first connection may come before the server.
  const double down = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  ::testing::internal::CaptureStderr();
  Result<std::shared_ptr<Store>> waiting = Status(ErrorCode::kInternal, "not run");
  std::thread opener([&] { waiting = open(20); });
  ::usleep(200'000);
  server_.start();
  opener.join();
  (void)::testing::internal::GetCapturedStderr();
  ASSERT_OK(waiting);
  // Nobody was heard while it was down, so nobody is dead.
  ASSERT_OK((*waiting)->transact([&](Transaction& t) -> Status {
    DS_ASSIGN(const double heard, t.last_beat(0));
    EXPECT_GT(heard, down);
    EXPECT_LE(heard, t.now());
    return {};
  }));
  ASSERT_OK(put(**store, trial(1, "w")));
}

TEST_F(Postgres, WhatWaitingWontHelpIsSaidAtOnce) {
  const auto error = [](const std::string& url) {
    const auto from = std::chrono::steady_clock::now();
    const Status status = open_sql_store(url, "study", kConfig, 30).status();
    EXPECT_LT(std::chrono::steady_clock::now() - from, std::chrono::seconds(5));
    return status;
  };
  std::string url = server_.url();
  const Status no_database = error(std::string(url).replace(url.find("/postgres?"), 10, "/nowhere?"));
  EXPECT_EQ(no_database.code(), ErrorCode::kIo);
  EXPECT_THAT(no_database.message(), AllOf(HasSubstr("3D000"), HasSubstr("\"nowhere\" does not exist")));
  EXPECT_THAT(error(std::string(url).replace(url.find("tester"), 6, "nobody:secret")).message(),
              AllOf(HasSubstr("28000"), Not(HasSubstr("secret"))));
  const Status wrong = error("postgresql://me:secret@host:port/x");
  EXPECT_THAT(wrong.message(), AllOf(HasSubstr("\"port\""), Not(HasSubstr("secret"))));
  const Status not_a_url = error("postgresql://me:secret@[host/x");
  EXPECT_EQ(not_a_url.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(not_a_url.message(), Not(HasSubstr("secret")));
}

TEST_F(Postgres, AChildOfAForkConnectsForItself) {
  const auto store = open();
  ASSERT_OK(store);
  ASSERT_OK(put(**store, trial(0, "parent")));
  const auto sessions = [&] {
    std::set<int64_t> numbers;
    const auto rows = query(server_.url(), "SELECT pid FROM pg_stat_activity WHERE state = 'idle'");
    EXPECT_OK(rows);
    for (const Row& row : *rows) numbers.insert(integer_of(row[0]));
    return numbers;
  };
  // Those of other tests end a moment after they were closed.
  std::set<int64_t> before = sessions();
  for (int tries = 0; before.size() != 1 && tries < 100; ++tries, before = sessions()) ::usleep(10'000);
  ASSERT_EQ(before.size(), 1u);
  EXPECT_EQ(wait_for(in_child([&] { return put(**store, trial(1, "child")).ok(); })), 0);
  ASSERT_OK(put(**store, trial(2, "parent")));
  EXPECT_TRUE(sessions().contains(*before.begin())) << "the child has ended its parent's session";
  EXPECT_EQ(trials_of(**store).at(1).worker, "child");
}

TEST_F(Postgres, BeatsAndTransactionsDontDisturbEachOther) {
  const auto store = open();
  ASSERT_OK(store);
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < 8; ++i) {
    ASSERT_OK(put(**store, trial(i, "w")));
    numbers.insert(numbers.begin(), i);
  }
  const auto again = (*store)->again();
  ASSERT_OK(again);
  std::atomic<bool> stop = false;
  std::thread heart([&] {
    while (!stop) EXPECT_OK((*again)->beat(numbers));
  });
  for (int round = 0; round < 100; ++round)
    EXPECT_OK((*store)->transact([&](Transaction& t) -> Status {
      for (const int64_t n : numbers) DS_TRY(t.put(trial(n, fmt::format("{}", round))));
      return {};
    }));
  stop = true;
  heart.join();
  for (const Trial& t : trials_of(**store)) EXPECT_EQ(t.worker, "99");
}

}  // namespace
}  // namespace deepseek::tune
