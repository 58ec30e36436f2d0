// The order of updates, and what they must wait for.
#include "passes/schedule.h"

#include <gtest/gtest.h>

#include "ops/registry.h"
#include "tests/passes/graphs.h"

namespace deepseek::passes {
namespace {

using namespace graph;

// Two layers, backwards: exp and sin stand for gradients, sub for updates. `first` is read by cos after its gradient.
TEST(Schedule, UpdatesComeEarlyButAfterReadersOfTheirState) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[64]
    state %1 "first" : f32[64]
    state %2 "second" : f32[64]
    %3 = exp(%0) : f32[64]
    %4 = cos(%1) : f32[64]
    %5 = sin(%4) : f32[64]
    %6 = tanh(%5) : f32[64]
    %7 = sub(%1,%3) : f32[64]
    %8 = sub(%2,%5) : f32[64]
    output "y" %6
    update "first" %7
    update "second" %8
  })");
  const Result<Graph> result = schedule(graph);
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  // exp, which only an update needs, comes first; its update waits for cos, which reads the old state.
  EXPECT_EQ(ops_of(*result), (std::vector<std::string>{"exp", "cos", "sub", "sin", "sub", "tanh"}));
  EXPECT_EQ(result->inputs()[1].name, "first");
  EXPECT_LT(peak_bytes(*result), peak_bytes(graph));
  const Result<Graph> again = schedule(*result);
  EXPECT_TRUE(again.ok() && again->same_as(*result));
}

// Each update reads the other's old state: neither can come first, so the order stays and one state is copied.
TEST(Schedule, UpdatesThatWaitForEachOtherStay) {
  const Graph graph = parsed(R"(graph {
    state %0 "a" : f32[8]
    state %1 "b" : f32[8]
    %2 = sub(%0,%1) : f32[8]
    %3 = add(%1,%0) : f32[8]
    output "n" %3
    update "a" %2
    update "b" %3
  })");
  const Result<Graph> result = schedule(graph);
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_EQ(ops_of(*result).size(), 2u);
}

TEST(Schedule, AnOrderAsGoodStays) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[8]
    %1 = exp(%0) : f32[8]
    %2 = sin(%1) : f32[8]
    output "y" %2
  })");
  const Result<Graph> result = schedule(graph);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->same_as(graph));
  EXPECT_EQ(peak_bytes(graph), 32);
}

}  // namespace
}  // namespace deepseek::passes
