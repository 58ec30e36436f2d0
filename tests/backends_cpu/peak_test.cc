// The measured peak: bounds that hold on any machine, however busy.
#include "backends/cpu/peak.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {
namespace {

TEST(Peak, IsPositiveFiniteAndNamesTheDevice) {
  const runtime::Peak peak = measure_peak();
  // 8 GHz, two units of 16 lanes and a terabyte a second per thread are beyond any CPU: a loop that the compiler
  // removed would exceed them.
  const double threads = num_threads();
  EXPECT_GT(peak.flops, 0);
  EXPECT_LT(peak.flops, 8e9 * 2 * 16 * 2 * threads);
  EXPECT_GT(peak.bytes, 0);
  EXPECT_LT(peak.bytes, 1e12 * threads);
  EXPECT_EQ(peak.device, fmt::format("{}, {} threads", isa_name(), num_threads()));
}

TEST(Peak, MeasuresTheThreadsInUse) {
  const int before = num_threads();
  set_num_threads(1);
  const runtime::Peak one = CpuBackend().measure_peak();
  set_num_threads(before);
  EXPECT_THAT(one.device, ::testing::EndsWith(", 1 threads"));
  EXPECT_GT(one.flops, 0);
}

}  // namespace
}  // namespace deepseek::backends::cpu
