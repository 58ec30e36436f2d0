// What is computed again, where, and what must stay.
#include "passes/recompute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/interpreter.h"
#include "ops/registry.h"
#include "passes/schedule.h"
#include "tests/passes/graphs.h"

namespace deepseek::passes {
namespace {

using namespace graph;

Recomputed recomputed(const Graph& graph, int64_t limit) {
  const auto cost = [](const Graph&, const Node& node) { return node.op_name() == "matmul" ? 1e9 : 1.0; };
  Result<Recomputed> result = recompute(graph, limit, cost);
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  return result.ok() ? *result : Recomputed{graph};
}
// The first output of both on the same data.
void expect_same(const Graph& a, const Graph& b) {
  std::vector<RefTensor> inputs;
  for (const Input& input : a.inputs()) {
    RefTensor t(a.type(input.value));
    for (size_t i = 0; i < t.data.size(); ++i) t.data[i] = std::sin(static_cast<double>(i + 3 * inputs.size()));
    inputs.push_back(t);
  }
  const auto x = ops::evaluate_reference(a, inputs), y = ops::evaluate_reference(b, inputs);
  ASSERT_TRUE(x.ok() && y.ok());
  for (size_t i = 0; i < (*x)[0].data.size(); ++i) EXPECT_NEAR((*x)[0].data[i], (*y)[0].data[i], 1e-9);
}

// A chain forwards and backwards, as training makes it: exp is read again at the end.
const char* const kChain = R"(graph {
  input %0 "x" : f32[16,16]
  %1 = matmul(%0,%0) {transpose_a=false, transpose_b=false} : f32[16,16]
  %2 = exp(%1) : f32[16,16]
  %3 = matmul(%2,%2) {transpose_a=false, transpose_b=false} : f32[16,16]
  %4 = exp(%3) : f32[16,16]
  %5 = matmul(%4,%4) {transpose_a=false, transpose_b=false} : f32[16,16]
  %6 = mul(%5,%4) : f32[16,16]
  %7 = mul(%6,%3) : f32[16,16]
  %8 = mul(%7,%2) : f32[16,16]
  %9 = mul(%8,%1) : f32[16,16]
  output "y" %9
})";

TEST(Recompute, NothingWhereTheLimitHolds) {
  const Graph graph = parsed(kChain);
  const Recomputed result = recomputed(graph, peak_bytes(graph));
  EXPECT_TRUE(result.graph.same_as(graph));
  EXPECT_EQ(result.values, 0);
  EXPECT_EQ(result.peak, peak_bytes(graph));
}

TEST(Recompute, TheCheapestValuesComeAgainBeforeTheirReader) {
  const Graph graph = parsed(kChain);
  const int64_t tensor = 16 * 16 * 4;
  ASSERT_EQ(peak_bytes(graph), 6 * tensor);
  const Recomputed result = recomputed(graph, 5 * tensor);
  // exp(%1) rather than the product, whose operand stays; just before it is read.
  EXPECT_EQ(ops_of(result.graph),
            (std::vector<std::string>{"matmul", "exp", "matmul", "exp", "matmul", "mul", "mul", "exp", "mul", "mul"}));
  EXPECT_EQ(result.values, 1);
  EXPECT_EQ(result.peak, 5 * tensor);
  EXPECT_EQ(result.peak, peak_bytes(result.graph));
  expect_same(graph, result.graph);
}

// Below that, whole segments: the product comes again from the input.
TEST(Recompute, SegmentsWhereThatDoesNotDo) {
  const Graph graph = parsed(kChain);
  const Recomputed result = recomputed(graph, 4 * 16 * 16 * 4);
  EXPECT_LE(peak_bytes(result.graph), 4 * 16 * 16 * 4);
  EXPECT_GT(result.cost, 1e9);
  expect_same(graph, result.graph);
}

// Of a fused norm the loop alone, with the statistics that it has given; views of what comes again come again.
TEST(Recompute, NormsByTheirStatistics) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[4,2,3,16]
    input %1 "w" : f32[32]
    input %2 "g" : f32[4,96]
    %3,%4,%5,%6,%7 = fused(%0,%1) {body=graph {
      input %0 "0" : f32[4,2,3,16]
      input %1 "1" : f32[32]
      %2,%3,%4,%5,%6 = batch_norm(%0,%1,%1,%1,%1) {channel_block=16, epsilon=1e-05, momentum=0.1} : f32[4,2,3,16],f32[32],f32[32],f32[32],f32[32]
      %7 = relu(%2) : f32[4,2,3,16]
      output "0" %3
      output "1" %4
      output "2" %5
      output "3" %6
      output "4" %7
    }} : f32[32],f32[32],f32[32],f32[32],f32[4,2,3,16]
    %8 = reshape(%7) {dims=[4,96]} : f32[4,96]
    %9 = matmul(%8,%2) {transpose_a=false, transpose_b=true} : f32[4,4]
    %10 = matmul(%9,%2) {transpose_a=false, transpose_b=false} : f32[4,96]
    %11 = matmul(%9,%10) {transpose_a=false, transpose_b=false} : f32[4,96]
    %12 = add(%11,%2) : f32[4,96]
    %13 = mul(%12,%8) : f32[4,96]
    output "y" %13
    output "mean" %3
    output "rstd" %4
    output "running" %5
  })");
  const Recomputed result = recomputed(graph, peak_bytes(graph) - 1);
  EXPECT_EQ(result.values, 1);
  const std::vector<std::string> names = ops_of(result.graph);
  EXPECT_EQ(std::count(names.begin(), names.end(), "batch_norm"), 0);
  EXPECT_EQ(std::count(names.begin(), names.end(), "relu"), 1);
  EXPECT_EQ(std::count(names.begin(), names.end(), "fused"), 1);
  expect_same(graph, result.graph);
}

// A fused node leaves out the results that nobody reads any more.
TEST(Recompute, WhatNobodyReadsIsNotMade) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[64,64]
    %1,%2 = fused(%0) {body=graph {
      input %0 "0" : f32[64,64]
      %1 = sin(%0) : f32[64,64]
      %2 = exp(%1) : f32[64,64]
      output "0" %1
      output "1" %2
    }} : f32[64,64],f32[64,64]
    %3 = matmul(%2,%0) {transpose_a=false, transpose_b=false} : f32[64,64]
    %4 = matmul(%3,%3) {transpose_a=false, transpose_b=false} : f32[64,64]
    %5 = mul(%4,%1) : f32[64,64]
    output "y" %5
  })");
  const Recomputed result = recomputed(graph, 2 * 64 * 64 * 4);
  EXPECT_EQ(result.graph.nodes()[0].num_outputs, 1);
  EXPECT_EQ(result.peak, 2 * 64 * 64 * 4);
  expect_same(graph, result.graph);
}

}  // namespace
}  // namespace deepseek::passes
