#include "base/progress.h"

#include <gtest/gtest.h>

#include <cmath>

namespace deepseek {
namespace {

TEST(ProgressTest, DurationsReadAsClocks) {
  EXPECT_EQ(duration_text(0), "0:00");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(3723), "1:02:03");
  EXPECT_EQ(duration_text(-1), "?");
}

TEST(ProgressTest, RatesAreTotalOverTotalSinceTheStartOfThisCall) {
  // Resumed at step 20; 10 steps of 64 samples took 5 s, 70 are left: 35 s.
  EXPECT_EQ(progress_line(30, 20, 100, 640, 5, "samples", "loss 1"),
            "[#######.................] 30/100  128.0 samples/s  0:35 left  loss 1");
  EXPECT_EQ(progress_line(0, 0, 100, 0, 0, "samples", ""), "[........................] 0/100  0.0 samples/s  ? left  ");
}

TEST(ProgressTest, DrawsTheLastLineAndAsksForTextOnlyThen) {
  std::string out;
  int asked = 0;
  ProgressBar bar("samples", true, [&](const std::string& text) { out += text; });
  for (int i = 1; i <= 1000; ++i) bar.update(i, 0, 1000, i, [&] { return ++asked, std::string("t"); });
  EXPECT_LT(asked, 100);
  EXPECT_NE(out.find("1000/1000"), std::string::npos);
  bar.clear();
  EXPECT_EQ(out.back(), '\n');
}

TEST(Progress, MomentsOfAnyNumber) {
  EXPECT_EQ(moment_text(0), "1970-01-01 00:00 UTC");
  EXPECT_EQ(moment_text(1709208000.9), "2024-02-29 12:00 UTC");
  EXPECT_EQ(moment_text(-62135596800), "0001-01-01 00:00 UTC");
  for (const double none : {1e18, -1e18, 1e300, std::nan(""), HUGE_VAL, -HUGE_VAL}) EXPECT_EQ(moment_text(none), "-");
}

}  // namespace
}  // namespace deepseek
