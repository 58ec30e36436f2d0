#include "passes/block_channels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/interpreter.h"
#include "ops/registry.h"
#include "passes/autodiff.h"

namespace deepseek::passes {
namespace {

using namespace graph;

Expr conv(Builder& b, Expr x, Expr w, int64_t stride = 1) {
  const int64_t pad = w.dim(-1) / 2;
  return b.op("conv", {x, w},
              {{"stride", Dims{stride, stride}}, {"padding_low", Dims{pad, pad}}, {"padding_high", Dims{pad, pad}}});
}

// A small residual network from [2, 3, 9, 9]: stem, batch norm, max pool, a block with a shortcut, global mean, loss.
Result<Graph> network() {
  Builder b(ops::registry());
  const auto state = [&](const char* name, Dims dims) { return b.state(name, {DType::kF32, std::move(dims)}); };
  Expr x = b.input("x", {DType::kF32, {2, 3, 9, 9}});
  Expr h = conv(b, x, state("stem", {8, 3, 3, 3}));
  h = conv(b, h, state("w0", {8, 8, 3, 3}));
  const auto norm = [&](Expr v, const std::string& name, int64_t c) {
    Expr mean = b.state(name + ".mean", {DType::kF32, {c}}), var = b.state(name + ".var", {DType::kF32, {c}});
    std::vector<Expr> y = b.emit("batch_norm", {v, b.state(name + ".scale", {DType::kF32, {c}}),
                                                b.state(name + ".bias", {DType::kF32, {c}}), mean, var});
    b.update(mean, y[3]);
    b.update(var, y[4]);
    return y[0];
  };
  h = ops::relu(norm(h, "n0", 8));
  h = b.op("max_pool", {h},
           {{"kernel", Dims{3, 3}}, {"stride", Dims{2, 2}}, {"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}});
  Expr shortcut = conv(b, h, state("short", {16, 8, 1, 1}), 2);
  h = ops::relu(norm(conv(b, h, state("w1", {16, 8, 3, 3}), 2), "n1", 16) + shortcut);
  h = h * ops::reshape(state("gain", {16}), {16, 1, 1});
  h = b.op("avg_pool", {h}, {{"kernel", Dims{2, 2}}, {"stride", Dims{1, 1}}});
  h = ops::mean(h, {2, 3});
  b.output("features", h);
  b.output("loss", ops::mean(ops::square(h)));
  return b.finish();
}

class FourTarget : public Target {
 public:
  ChannelBlocks channel_blocks(const Graph& graph, const Node& node) const override {
    for (const Value v : {node.inputs[0], node.inputs[1], node.output()})
      for (size_t axis : {size_t{0}, size_t{1}})
        if (graph.type(v).dims[axis] == 3) return {};
    return {4, 4};
  }
};
const FourTarget kFour;
const PassContext choose_four{kFour};

std::vector<RefTensor> random_inputs(const Graph& graph) {
  std::mt19937 engine(7);
  std::normal_distribution<double> normal;
  std::vector<RefTensor> inputs;
  for (const Input& input : graph.inputs()) {
    RefTensor t(graph.type(input.value));
    for (double& v : t.data) v = input.name.ends_with(".var") ? std::abs(normal(engine)) + 0.5 : normal(engine);
    inputs.push_back(std::move(t));
  }
  return inputs;
}

// Outputs, with the updates as further outputs.
Graph with_updates_returned(const Graph& graph) {
  Builder b(ops::registry());
  std::vector<Expr> inputs;
  for (const Input& i : graph.inputs()) inputs.push_back(b.input(i.name, graph.type(i.value), i.kind));
  const std::vector<Expr> values = b.inline_values(graph, inputs);
  for (const Output& o : graph.outputs()) b.output(o.name, values[o.value.id]);
  for (const Update& u : graph.updates()) b.output("update:" + graph.inputs()[u.input].name, values[u.value.id]);
  return *b.finish();
}

void expect_same_results(const Graph& a, const Graph& b) {
  const std::vector<RefTensor> inputs = random_inputs(a);
  auto expected = ops::evaluate_reference(a, inputs), got = ops::evaluate_reference(b, inputs);
  ASSERT_TRUE(expected.ok()) << expected.status().to_string();
  ASSERT_TRUE(got.ok()) << got.status().to_string();
  ASSERT_EQ(expected->size(), got->size());
  for (size_t o = 0; o < expected->size(); ++o) {
    EXPECT_EQ((*expected)[o].dims, (*got)[o].dims);
    for (size_t i = 0; i < (*expected)[o].data.size(); ++i)
      ASSERT_NEAR((*expected)[o].data[i], (*got)[o].data[i], 1e-9 * std::max(1.0, std::abs((*expected)[o].data[i])))
          << a.outputs()[o].name << "[" << i << "]";
  }
}

int count(const Graph& graph, std::string_view op, int64_t rank = 0) {
  int n = 0;
  for (const Node& node : graph.nodes())
    n += node.op_name() == op && (rank == 0 || graph.type(node.output()).rank() == rank);
  return n;
}

TEST(BlockChannels, ATrainingStepOfAResidualNetworkMeansTheSame) {
  auto graph = network();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  auto step = autodiff(*graph, "loss", {"stem", "w0", "short", "w1", "gain", "n0.scale", "n1.bias"});
  ASSERT_TRUE(step.ok()) << step.status().to_string();
  const Graph before = with_updates_returned(*step);
  auto after = block_channels(before, choose_four);
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  EXPECT_EQ(count(*after, "conv") + count(*after, "conv_input_grad") + count(*after, "conv_weight_grad"), 2);  // stem
  EXPECT_EQ(count(*after, "blocked_conv"), 3);
  EXPECT_EQ(count(*after, "blocked_conv_weight_grad"), 3);
  // Only the stem's output and its gradient change their layout; the rest of the transpositions are weights'.
  EXPECT_EQ(count(*after, "transpose", 5), 2) << print(*after);
  expect_same_results(before, *after);
}

TEST(BlockChannels, IndicesOfAPoolThatIsReturnedAreThoseOfThePlane) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {1, 8, 6, 6}});
  Expr h = conv(b, x, b.input("w", {DType::kF32, {8, 8, 3, 3}}));
  std::vector<Expr> pooled = b.emit("max_pool", {h}, {{"kernel", Dims{2, 3}}, {"dilation", Dims{2, 1}}});
  b.output("y", pooled[0]);
  b.output("indices", pooled[1]);
  b.output("rows", ops::max(h, {1}));
  b.output("columns", ops::sum(h, {0, 1, 2}, true));
  auto graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  auto after = block_channels(*graph, choose_four);
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  EXPECT_EQ(count(*after, "max_pool", 5), 1);
  expect_same_results(*graph, *after);
}

TEST(BlockChannels, BroadcastsAndOtherBlocksMeetTheBlockedOperand) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {2, 8, 3, 4}});
  Expr h = conv(b, x, b.input("w", {DType::kF32, {8, 8, 1, 1}}));
  Expr per_sample = b.input("s", {DType::kF32, {2, 1, 1, 1}}), map = b.input("m", {DType::kF32, {3, 4}}),
       channels = b.input("c", {DType::kF32, {1, 8, 1, 1}}), full = b.input("f", {DType::kF32, {2, 8, 3, 4}});
  h = (h + per_sample) * map - ops::broadcast_to(channels, {2, 8, 3, 4}) * full;
  b.output("y", h);
  b.output("transposed", ops::transpose(h, {0, 2, 3, 1}));
  auto graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  auto after = block_channels(*graph, choose_four);
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  EXPECT_EQ(count(*after, "blocked_conv"), 1);
  expect_same_results(*graph, *after);
}

TEST(BlockChannels, WithoutAChoiceTheGraphStaysAsItIs) {
  auto graph = network();
  ASSERT_TRUE(graph.ok());
  auto after = block_channels(*graph, PassContext{});
  ASSERT_TRUE(after.ok());
  EXPECT_TRUE(after->same_as(*graph));
}

}  // namespace
}  // namespace deepseek::passes
