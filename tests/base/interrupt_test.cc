#include "base/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace deepseek {
namespace {

TEST(InterruptTest, SignalsSetTheFlagAndHandlersComeBack) {
  struct sigaction before, after;
  sigaction(SIGTERM, nullptr, &before);
  {
    const InterruptGuard guard;
    EXPECT_FALSE(guard.requested());
    raise(SIGTERM);
    EXPECT_TRUE(guard.requested());
  }
  sigaction(SIGTERM, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
  const InterruptGuard again;
  EXPECT_FALSE(again.requested());
}

TEST(InterruptTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        raise(SIGINT);
        raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace deepseek
