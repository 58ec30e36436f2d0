#include "base/fork.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "base/threads.h"

namespace deepseek {
namespace {

int64_t counted() {
  std::atomic<int64_t> sum = 0;
  parallel_for(1000, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  return sum;
}

// The status of a child that does `work`; -1 where it has to be killed.
template <class Work>
int in_child(const Work& work) {
  const pid_t child = fork();
  if (child == 0) _exit(work() ? 0 : 1);
  for (int i = 0; i < 200; ++i) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

TEST(Fork, TheChildRunsParallelLoops) {
  EXPECT_EQ(counted(), 1000);
  EXPECT_EQ(in_child([] { return counted() == 1000; }), 0);
  EXPECT_EQ(counted(), 1000);
  // From a thread that has loops of its own, and a child of a child.
  std::thread([] {
    counted();
    EXPECT_EQ(in_child([] { return counted() == 1000 && in_child([] { return counted() == 1000; }) == 0; }), 0);
    EXPECT_EQ(counted(), 1000);
  }).join();
}

}  // namespace
}  // namespace deepseek
