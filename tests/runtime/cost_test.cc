// FLOPs and bytes of nodes against closed forms, and of every op's samples for sense.
#include "runtime/cost.h"

#include <gtest/gtest.h>

#include "graph/builder.h"
#include "ops/blocked_conv.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::runtime {
namespace {

using namespace graph;

// One node of `op` on f32 inputs, all of whose outputs are returned unless told.
Graph one_node(const std::string& op, const std::vector<Dims>& inputs, const Attrs& attrs = {}, size_t returned = 99) {
  Builder b(ops::registry());
  std::vector<Expr> in;
  for (size_t i = 0; i < inputs.size(); ++i) in.push_back(b.input("x" + std::to_string(i), {DType::kF32, inputs[i]}));
  const std::vector<Expr> out = b.emit(op, in, attrs);
  for (size_t i = 0; i < std::min(returned, out.size()); ++i) b.output("y" + std::to_string(i), out[i]);
  Result<Graph> graph = b.finish();
  EXPECT_TRUE(graph.ok()) << op << ": " << graph.status().to_string();
  return graph.ok() ? *graph : Graph(Graph::Data{});
}

Cost cost_of(const Graph& graph) {
  const Result<Cost> cost = graph_cost(graph);
  EXPECT_TRUE(cost.ok()) << cost.status().to_string();
  return cost.ok() ? *cost : Cost{};
}
double flops(const std::string& op, const std::vector<Dims>& inputs, const Attrs& attrs = {}) {
  return cost_of(one_node(op, inputs, attrs)).flops;
}

TEST(Cost, MatmulCountsTheBroadcastBatch) {
  EXPECT_EQ(flops("matmul", {{5, 7}, {7, 3}}), 2 * 5 * 7 * 3);
  EXPECT_EQ(flops("matmul", {{7, 5}, {3, 7}}, {{"transpose_a", true}, {"transpose_b", true}}), 2 * 5 * 7 * 3);
  EXPECT_EQ(flops("matmul", {{2, 1, 4, 5}, {3, 5, 2}}), 2 * (2 * 3) * 4 * 5 * 2);
  EXPECT_EQ(flops("matmul", {{2, 0}, {0, 3}}), 0);
}

// x [2,6,9,8], 9 filters of 3 x 2 in 3 groups, stride 2, padding 1: y [2,9,5,5].
TEST(Cost, AConvolutionAndItsGradientsCountTheSameProducts) {
  const Attrs window = {
      {"stride", Dims{2, 2}}, {"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}, {"groups", int64_t{3}}};
  const Dims x = {2, 6, 9, 8}, w = {9, 2, 3, 2}, y = {2, 9, 5, 5};
  const double expected = 2.0 * (2 * 9 * 5 * 5) * (2 * 3 * 2);
  Attrs input = window, weight = window;
  input.set("input_dims", x);
  weight.set("kernel", Dims{3, 2});
  EXPECT_EQ(flops("conv", {x, w}, window), expected);
  EXPECT_EQ(flops("conv_input_grad", {y, w}, input), expected);
  EXPECT_EQ(flops("conv_weight_grad", {x, y}, weight), expected);
  // Its input's 2 * 9 * 5 * 5 elements each meet 2 * 3 * 2 weights.
  EXPECT_EQ(flops("conv_transpose", {y, w}, window), expected);
}

TEST(Cost, BlockedConvolutionsCountAsPlainOnes) {
  const Attrs window = {{"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}};
  const Dims x = {2, 2, 7, 9, 16}, y = {2, 4, 7, 9, 8};  // 32 channels in, 32 out
  Attrs input = window, weight = window;
  input.set("input_dims", x);
  weight.set("kernel", Dims{3, 3});
  const double expected = 2.0 * (2 * 32 * 7 * 9) * (32 * 3 * 3);
  EXPECT_EQ(flops("blocked_conv", {x, {4, 2, 3, 3, 16, 8}}, window), expected);
  EXPECT_EQ(flops("blocked_conv_input_grad", {y, {2, 4, 3, 3, 8, 16}}, input), expected);
  EXPECT_EQ(flops("blocked_conv_weight_grad", {x, y}, weight), expected);
}

TEST(Cost, AttentionIsTwoProductsAScaleAndASoftmax) {
  constexpr int64_t kN = 2, kH = 3, kL = 4, kS = 6, kE = 8, kEv = 5;
  const int64_t scores = kN * kH * kL * kS;
  EXPECT_EQ(flops("softmax", {{kN, 7}}), 5 * kN * 7);  // largest, difference, exponential, sum, quotient
  EXPECT_EQ(flops("attention", {{kN, kH, kL, kE}, {kN, kH, kS, kE}, {kN, kH, kS, kEv}}),
            kN * kH * kL * kE + scores * (2 * kE + 5 + 2 * kEv));
}

TEST(Cost, RecurrencesCountEachStep) {
  constexpr int64_t kT = 5, kN = 3, kI = 4, kH = 6;
  // Gates of all steps at once; then per step a product, three sigmoids, two tanh, three products and a sum.
  EXPECT_EQ(flops("lstm", {{kT, kN, kI}, {kN, kH}, {kN, kH}, {4 * kH, kI}, {4 * kH, kH}, {4 * kH}}),
            kT * kN * 4 * kH * (2 * kI + 1) + kT * (kN * 4 * kH * (2 * kH + 1) + 9 * kN * kH));
  EXPECT_EQ(flops("gru", {{kT, kN, kI}, {kN, kH}, {3 * kH, kI}, {3 * kH, kH}, {3 * kH}, {3 * kH}}),
            kT * kN * 3 * kH * (2 * kI + 1) + kT * (kN * 3 * kH * (2 * kH + 1) + 11 * kN * kH));
  // The scan's own sample: h' = tanh(h W + x), y = h' * x with h [2,3] and 5 steps.
  const Sample& sample = ops::registry().find("scan")->samples.value[0];
  EXPECT_EQ(flops("scan", {{2, 3}, {5, 2, 3}, {3, 3}}, sample.attrs), 5 * (2 * 2 * 3 * 3 + 3 * 6));
}

TEST(Cost, AFusedNodeSumsItsBodyButMovesOnlyWhatEntersAndLeaves) {
  const Sample& sample = ops::registry().find("fused")->samples.value[0];  // relu(a + b), that * 2 - b
  const Cost cost = cost_of(one_node("fused", {{6, 33}, {33}}, sample.attrs));
  EXPECT_EQ(cost.flops, 4 * 6 * 33);
  EXPECT_EQ(cost.bytes, 4 * (6 * 33 + 33 + 2 * 6 * 33));
}

TEST(Cost, ElementwiseOpsCountWhatTheyWriteAndReductionsWhatTheyRead) {
  EXPECT_EQ(flops("add", {{5, 1}, {7}}), 5 * 7);
  EXPECT_EQ(flops("sum", {{5, 7}}, {{"axes", Dims{1}}}), 5 * 7);
  EXPECT_EQ(flops("transpose", {{5, 7}}, {{"permutation", Dims{1, 0}}}), 0);
  EXPECT_EQ(flops("broadcast_to", {{7}}, {{"dims", Dims{5, 7}}}), 0);
}

TEST(Cost, BytesAreOfDistinctInputsAndOfOutputsThatAreRead) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {10}});
  b.output("y", x * x);
  EXPECT_EQ(cost_of(*b.finish()).bytes, 2 * 4 * 10);
  const Attrs pool = {{"kernel", Dims{2, 2}}};
  const double values = 4 * (1 * 2 * 6 * 6 + 1 * 2 * 3 * 3), indices = 4 * 1 * 2 * 3 * 3;
  EXPECT_EQ(cost_of(one_node("max_pool", {{1, 2, 6, 6}}, pool)).bytes, values + indices);
  EXPECT_EQ(cost_of(one_node("max_pool", {{1, 2, 6, 6}}, pool, 1)).bytes, values);
  // What a slice leaves out is not moved, and a reshape moves nothing.
  EXPECT_EQ(cost_of(one_node("slice", {{100, 3}}, {{"stop", int64_t{4}}})).bytes, 2 * 4 * 4 * 3);
  EXPECT_EQ(cost_of(one_node("reshape", {{6}}, {{"dims", Dims{2, 3}}})).bytes, 0);
}

TEST(Cost, EverySampleOfEveryOpHasOne) {
  for (const auto& [name, def] : ops::registry().all())
    for (const Sample& sample : def.samples.value) {
      Builder b(ops::registry());
      std::vector<Expr> in;
      for (size_t i = 0; i < sample.inputs.size(); ++i)
        in.push_back(b.input("x" + std::to_string(i), sample.inputs[i].type));
      const std::vector<Expr> out = b.emit(name, in, sample.attrs);
      for (size_t i = 0; i < out.size(); ++i) b.output("y" + std::to_string(i), out[i]);
      const Result<Graph> graph = b.finish();
      ASSERT_TRUE(graph.ok()) << name << " " << sample.name;
      const Result<Cost> cost = graph_cost(*graph);
      ASSERT_TRUE(cost.ok()) << name << " " << sample.name << ": " << cost.status().to_string();
      EXPECT_GE(cost->flops, 0) << name << " " << sample.name;
      EXPECT_GE(cost->bytes, 0) << name << " " << sample.name;
      EXPECT_LT(cost->flops, 2e8) << name << " " << sample.name;
    }
}

}  // namespace
}  // namespace deepseek::runtime
