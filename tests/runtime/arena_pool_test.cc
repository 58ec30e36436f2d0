#include "runtime/arena_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace deepseek::runtime {
namespace {

TEST(ArenaPool, LendsAnArenaAgain) {
  ArenaPool pool;
  pool.add_user(1000000);
  void* first = nullptr;
  {
    const ArenaPool::Arena a = *pool.take(1000000);
    first = a.data();
    EXPECT_EQ(pool.in_use(), 1000000u);
    EXPECT_EQ(pool.idle(), 0u);
    const ArenaPool::Arena b = *pool.take(1000000);
    EXPECT_NE(b.data(), first);
  }
  EXPECT_EQ(pool.in_use(), 0u);
  EXPECT_EQ(pool.idle(), 2000000u);
  EXPECT_EQ(pool.peak(), 2000000u);
  // A smaller run takes the same, a far smaller one would waste it.
  EXPECT_EQ(pool.take(600000)->data(), first);
  const ArenaPool::Arena small = *pool.take(100);
  EXPECT_EQ(pool.in_use(), 100u);
}

TEST(ArenaPool, GivesBackWhatNobodyAliveNeeds) {
  ArenaPool pool;
  pool.add_user(100000);
  pool.add_user(5000);
  (void)*pool.take(100000);
  (void)*pool.take(5000);
  EXPECT_EQ(pool.idle(), 105000u);
  pool.remove_user(100000);
  EXPECT_EQ(pool.idle(), 5000u);
  pool.remove_user(5000);
  EXPECT_EQ(pool.idle(), 0u);
}

TEST(ArenaPool, KeepsToItsLimit) {
  ArenaPool pool;
  pool.set_limit(3000000);
  pool.add_user(2000000);
  EXPECT_EQ(pool.take(3000001).status().message(),
            "a run needs 2.86 MiB for intermediate values, the process may hold 2.86 MiB (memory.limit); use smaller "
            "batches, or raise the limit");
  (void)*pool.take(2000000);  // idle now
  {
    const ArenaPool::Arena other = *pool.take(90000);  // too small for the idle one, which may stay
    EXPECT_EQ(pool.idle(), 2000000u);
  }
  pool.add_user(2500000);
  const ArenaPool::Arena large = *pool.take(2500000);  // the idle one has to go
  EXPECT_LE(pool.idle() + pool.in_use(), 3000000u);
  EXPECT_EQ(pool.in_use(), 2500000u);
}

// Eight threads that want 40 in all of 30: never more than the limit, and all get their turn.
TEST(ArenaPool, RunsWaitForEachOther) {
  ArenaPool pool;
  pool.set_limit(30000);
  pool.add_user(10000);
  std::atomic<int> done{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        Result<ArenaPool::Arena> arena = pool.take(static_cast<size_t>(5000 + 1000 * (t % 6)));
        if (!arena.ok()) {
          ++wrong;
          continue;
        }
        std::memset(arena->data(), t, 5000);
        if (pool.held() > 30000) ++wrong;
        if (static_cast<char*>(arena->data())[4999] != t) ++wrong;
        ++done;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 1600);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace deepseek::runtime
