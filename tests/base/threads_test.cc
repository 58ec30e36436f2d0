#include "base/threads.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <latch>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

namespace deepseek {
namespace {

// Sets the thread count for a test and puts the old one back.
class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { EXPECT_TRUE(set_num_threads(n).ok()); }
  ~Threads() { EXPECT_TRUE(set_num_threads(before_).ok()); }

 private:
  int before_;
};

std::vector<std::pair<int64_t, int64_t>> ranges_of(int64_t n, int64_t grain) {
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

TEST(ParallelFor, EveryIndexExactlyOnce) {
  for (const int threads : {1, 2, 3, 5, 8})
    for (const int64_t n : {0, 1, 2, 3, 7, 64, 1001})
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        SCOPED_TRACE(testing::Message() << threads << " threads, n " << n << ", grain " << grain);
        const Threads set(threads);
        std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
        parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& hit : hits) ASSERT_EQ(hit, 1);
      }
}

TEST(ParallelFor, RangesKeepToGrainAndThreadCount) {
  const Threads set(4);
  EXPECT_TRUE(ranges_of(0, 1).empty());
  EXPECT_TRUE(ranges_of(-3, 1).empty());
  EXPECT_EQ(ranges_of(100, 1000).size(), 1u);
  EXPECT_LE(ranges_of(100, 40).size(), 2u);
  for (const auto& [begin, end] : ranges_of(100, 40)) EXPECT_GE(end - begin, 40);
  EXPECT_LE(ranges_of(1000, 1).size(), 4u);
}

TEST(ParallelFor, TheSplitIsTheSameEachTime) {
  const Threads set(3);
  const auto first = ranges_of(1001, 7);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ranges_of(1001, 7), first);
}

TEST(ParallelFor, NestedLoopsRunWholeInsideTheirRange) {
  const Threads set(4);
  std::vector<std::atomic<int>> hits(17 * 13);
  parallel_for(17, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      parallel_for(13, 1, [&](int64_t from, int64_t to) {
        for (int64_t j = from; j < to; ++j) ++hits[static_cast<size_t>(i * 13 + j)];
      });
  });
  for (const std::atomic<int>& hit : hits) EXPECT_EQ(hit, 1);
}

TEST(ParallelFor, MayBeCalledFromSeveralThreadsAtOnce) {
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4);
  for (int64_t& sum : sums)
    callers.emplace_back([&sum] {
      std::atomic<int64_t> total{0};
      parallel_for(1000, 10, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) total += i;
      });
      sum = total;
    });
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 999 * 1000 / 2);
}

TEST(ParallelFor, WhatABodyThrowsReachesTheCaller) {
  const Threads set(4);
  std::atomic<int64_t> done{0};
  EXPECT_THROW(parallel_for(1000, 1,
                            [&](int64_t begin, int64_t end) {
                              if (begin == 0) throw std::bad_alloc();
                              done += end - begin;
                            }),
               std::bad_alloc);
  EXPECT_EQ(done, 750);  // the others' ranges are whole
  parallel_for(1000, 1, [&](int64_t begin, int64_t end) { done += end - begin; });
  EXPECT_EQ(done, 1750);
}

TEST(Threads, NumbersThatAreNoneAreErrors) {
  const Threads set(2);
  for (const int64_t n : {int64_t{0}, int64_t{-1}, int64_t{100000}, INT64_MAX}) {
    const Status status = set_num_threads(n);
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << n;
    EXPECT_EQ(status.message(), fmt::format("threads: expected 1 to 4096, got {}", n));
  }
  EXPECT_EQ(num_threads(), 2);
}

// OpenMP's own number is each thread's; that of a thread that runs already must follow.
TEST(Threads, WhatIsSetHoldsInOtherThreads) {
  const Threads set(3);
  std::latch changed(1), begun(1);
  int before = 0, after = 0, of_openmp = 0;
  std::thread other([&] {
    before = num_threads();
    begun.count_down();
    changed.wait();
    after = num_threads();
    of_openmp = omp_get_max_threads();
  });
  begun.wait();
  ASSERT_TRUE(set_num_threads(5).ok());
  changed.count_down();
  other.join();
  EXPECT_EQ(before, 3);
  EXPECT_EQ(after, 5);
  EXPECT_EQ(of_openmp, 5);
  std::thread([&] { of_openmp = num_threads(); }).join();
  EXPECT_EQ(of_openmp, 5);
}

}  // namespace
}  // namespace deepseek
