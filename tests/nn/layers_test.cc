// Layers: names, shapes, initial values, output shapes, refused arguments. Values against PyTorch are in
// tests/python/test_nn_layers.py.
#include "nn/layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/attention.h"
#include "nn/recurrent.h"
#include "ops/interpreter.h"
#include "ops/registry.h"

namespace deepseek::nn {
namespace {

using graph::TensorType;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> state(const Module& module) {
  std::vector<std::string> out;
  for (const State& s : module.named_state()) out.push_back(s.name + " " + graph::to_string(s.value.dims()));
  return out;
}

// Shapes of the outputs, or the error.
std::string run(Module& module, const std::vector<TensorType>& inputs, bool training = true) {
  Builder builder(ops::registry());
  Trace trace(builder, module, training);
  std::vector<Expr> args;
  for (const TensorType& type : inputs) args.push_back(builder.input("x" + std::to_string(args.size()), type));
  const std::vector<Expr> out = module.call(trace, args);
  if (!builder.status().ok()) return builder.status().to_string();
  trace.finish();
  std::string text;
  for (Expr e : out) text += graph::to_string(e.type());
  return text;
}
// The output's elements by the reference kernels; the random state is (seed 3, step 0).
std::vector<double> evaluate(Module& module, Dims dims, std::vector<double> x, bool training = true) {
  Builder builder(ops::registry());
  Trace trace(builder, module, training);
  builder.output("y", module(trace, builder.input("x", {DType::kF32, dims})));
  trace.finish();
  const Result<graph::Graph> graph = builder.finish();
  if (!graph.ok()) return {};
  std::vector<graph::RefTensor> inputs;
  for (const graph::Input& input : graph->inputs()) {
    graph::RefTensor value(graph->type(input.value));
    if (input.name == kRandomCounter) value.data = {3, 0};
    if (input.name == "x") value.data = x;
    for (const State& s : module.own_state())
      if (s.name == input.name) {
        for (int64_t i = 0; i < s.value.num_elements(); ++i) value.data[static_cast<size_t>(i)] = s.value.at(i);
      }
    inputs.push_back(value);
  }
  const Result<std::vector<graph::RefTensor>> out = ops::evaluate_reference(*graph, inputs);
  return out.ok() ? (*out)[0].data : std::vector<double>();
}
std::string run(Module& module, Dims dims) { return run(module, {{DType::kF32, std::move(dims)}}); }

double largest(const Tensor& t) {
  double m = 0;
  for (int64_t i = 0; i < t.num_elements(); ++i) m = std::max(m, std::abs(t.at(i)));
  return m;
}

// Uniform values reach near the bound, and never beyond it.
void expect_bound(const Module& module, const std::string& name, double bound) {
  for (const State& s : module.named_state())
    if (s.name == name) {
      EXPECT_LE(largest(s.value), bound) << name;
      EXPECT_GE(largest(s.value), 0.8 * bound) << name;
      return;
    }
  ADD_FAILURE() << "no tensor " << name;
}

TEST(Layers, Convolutions) {
  Conv conv(6, 10, {3, 5}, {.stride = {2}, .padding = {1, 2}, .groups = 2});
  EXPECT_THAT(state(conv), ElementsAre("weight [10,3,3,5]", "bias [10]"));
  EXPECT_EQ(run(conv, {2, 6, 9, 9}), "f32[2,10,5,5]");
  expect_bound(conv, "weight", 1 / std::sqrt(3 * 15.0));

  ConvTranspose up(6, 10, {3, 3}, {.stride = {2}, .padding = {1}, .groups = 2, .bias = false, .output_padding = {1}});
  EXPECT_THAT(state(up), ElementsAre("weight [6,5,3,3]"));
  EXPECT_EQ(run(up, {2, 6, 4, 5}), "f32[2,10,8,10]");
  expect_bound(up, "weight", 1 / std::sqrt(5 * 9.0));
}

TEST(Layers, SamePaddingGivesTheSizeOverTheStride) {
  const auto shape = [](int64_t kernel, int64_t stride, int64_t dilation, Dims x) {
    Conv conv(3, 6, {kernel, kernel},
              {.stride = {stride}, .padding = {9}, .dilation = {dilation}, .groups = 3, .same_padding = true});
    x.insert(x.begin(), {2, 3});
    return run(conv, x);
  };
  EXPECT_EQ(shape(3, 1, 1, {7, 8}), "f32[2,6,7,8]");
  EXPECT_EQ(shape(3, 2, 1, {7, 8}), "f32[2,6,4,4]");
  EXPECT_EQ(shape(5, 2, 2, {9, 1}), "f32[2,6,5,1]");
  EXPECT_EQ(shape(1, 3, 1, {9, 10}), "f32[2,6,3,4]");  // windows that leave out elements need no zeros
  EXPECT_THAT(shape(3, 1, 1, {7}), HasSubstr("conv"));
  EXPECT_THAT(shape(3, 0, 1, {7, 8}), HasSubstr("stride"));

  // Of an odd number of zeros the larger half stands at the end: 3 elements, window 2, so that one zero follows.
  Conv one(1, 1, {2}, {.bias = false, .same_padding = true});
  one.register_parameter("weight", Tensor::full(DType::kF32, {1, 1, 2}, 1));
  EXPECT_THAT(evaluate(one, {1, 1, 3}, {1, 2, 3}), ElementsAre(3, 5, 3));
}

TEST(Layers, StochasticDepthDropsWholeSamples) {
  StochasticDepth layer(0.5);
  const int64_t samples = 400;
  const std::vector<double> x(samples * 6, 3), y = evaluate(layer, {samples, 2, 3}, x);
  int64_t kept = 0;
  for (size_t i = 0; i < y.size(); i += 6) {
    for (size_t j = 1; j < 6; ++j) EXPECT_EQ(y[i], y[i + j]);
    EXPECT_TRUE(y[i] == 0 || y[i] == 6) << y[i];
    kept += y[i] == 6;
  }
  EXPECT_NEAR(static_cast<double>(kept), 0.5 * samples, 35);  // 3.5 standard deviations
  EXPECT_EQ(evaluate(layer, {samples, 2, 3}, x, false), x);
  StochasticDepth never(0);
  EXPECT_EQ(evaluate(never, {samples, 2, 3}, x), x);
}

TEST(Layers, PoolsAndResizing) {
  EXPECT_EQ(run(*max_pool({2, 2}), {1, 3, 8, 6}), "f32[1,3,4,3]");
  EXPECT_EQ(run(*avg_pool({3}, {1}, {1}), {1, 3, 8}), "f32[1,3,8]");
  EXPECT_EQ(run(*adaptive_avg_pool({2, 3}), {1, 3, 8, 7}), "f32[1,3,2,3]");
  EXPECT_EQ(run(*global_average_pool(), {2, 3, 8, 7}), "f32[2,3]");
  EXPECT_EQ(run(*upsample({2, 3}, "linear"), {1, 3, 4, 5}), "f32[1,3,8,15]");
  EXPECT_EQ(run(*flatten(), {2, 3, 4}), "f32[2,12]");
}

TEST(Layers, Norms) {
  EXPECT_THAT(state(BatchNorm(3)),
              ElementsAre("weight [3]", "bias [3]", "running_mean [3]", "running_var [3]", "num_batches_tracked []"));
  EXPECT_THAT(state(BatchNorm(3, {.affine = false, .track = false})), ElementsAre());
  EXPECT_THAT(state(InstanceNorm(3)), ElementsAre());
  EXPECT_THAT(state(LayerNorm({2, 3}, 1e-5, true, false)), ElementsAre("weight [2,3]"));
  EXPECT_THAT(state(GroupNorm(2, 4)), ElementsAre("weight [4]", "bias [4]"));
  EXPECT_THAT(state(RMSNorm({4}, 1e-6)), ElementsAre("weight [4]"));
}

TEST(Layers, Embedding) {
  Embedding layer(300, 40, -1);
  EXPECT_THAT(state(layer), ElementsAre("weight [300,40]"));
  EXPECT_EQ(run(layer, {{DType::kI64, {2, 5}}}), "f32[2,5,40]");
  const Tensor weight = layer.named_state()[0].value;
  EXPECT_EQ(largest(weight.rows(299, 300)), 0);
  double sum = 0, squares = 0;
  const int64_t n = 299 * 40;
  for (int64_t i = 0; i < n; ++i) {
    sum += weight.at(i);
    squares += weight.at(i) * weight.at(i);
  }
  EXPECT_NEAR(sum / n, 0, 0.05);
  EXPECT_NEAR(squares / n, 1, 0.07);
}

TEST(Layers, Recurrent) {
  LSTM lstm(5, 8, {.layers = 2, .bidirectional = true});
  EXPECT_THAT(state(lstm),
              ElementsAre("weight_ih_l0 [32,5]", "weight_hh_l0 [32,8]", "bias_ih_l0 [32]", "bias_hh_l0 [32]",
                          "weight_ih_l0_reverse [32,5]", "weight_hh_l0_reverse [32,8]", "bias_ih_l0_reverse [32]",
                          "bias_hh_l0_reverse [32]", "weight_ih_l1 [32,16]", "weight_hh_l1 [32,8]", "bias_ih_l1 [32]",
                          "bias_hh_l1 [32]", "weight_ih_l1_reverse [32,16]", "weight_hh_l1_reverse [32,8]",
                          "bias_ih_l1_reverse [32]", "bias_hh_l1_reverse [32]"));
  EXPECT_EQ(run(lstm, {7, 3, 5}), "f32[7,3,16]f32[4,3,8]f32[4,3,8]");
  expect_bound(lstm, "weight_hh_l1", 1 / std::sqrt(8.0));
  GRU gru(5, 8, {.bias = false, .batch_first = true});
  EXPECT_THAT(state(gru), ElementsAre("weight_ih_l0 [24,5]", "weight_hh_l0 [24,8]"));
  EXPECT_EQ(run(gru, {3, 7, 5}), "f32[3,7,8]f32[1,3,8]");
  EXPECT_THAT(run(gru, {{DType::kF32, {3, 7, 5}}, {DType::kF32, {3, 8}}}),
              HasSubstr("gru: expected 1 initial state(s) [1,3,8], got 1 of f32[3,8]"));
}

TEST(Layers, Attention) {
  MultiheadAttention attention(8, 2, {.batch_first = true});
  EXPECT_THAT(state(attention),
              ElementsAre("in_proj_weight [24,8]", "in_proj_bias [24]", "out_proj.weight [8,8]", "out_proj.bias [8]"));
  expect_bound(attention, "in_proj_weight", std::sqrt(6.0 / 32));
  EXPECT_EQ(largest(attention.named_state()[1].value) + largest(attention.named_state()[3].value), 0);
  EXPECT_EQ(run(attention, {3, 5, 8}), "f32[3,5,8]");
  EXPECT_THAT(
      state(MultiheadAttention(8, 2, {.bias = false, .key_width = 3})),
      ElementsAre("q_proj_weight [8,8]", "k_proj_weight [8,3]", "v_proj_weight [8,8]", "out_proj.weight [8,8]"));

  auto layer = std::make_shared<TransformerEncoderLayer>(8, 2, EncoderOptions{.feedforward = 16});
  TransformerEncoder encoder({layer, layer->clone()}, std::make_shared<LayerNorm>(Dims{8}));
  EXPECT_EQ(encoder.named_state().size(), 2u * 12 + 2);
  EXPECT_EQ(encoder.named_state()[0].name, "layers.0.self_attn.in_proj_weight");
  EXPECT_EQ(encoder.named_state()[12].value.at(7), encoder.named_state()[0].value.at(7));
  EXPECT_NE(encoder.named_state()[12].value.data(), encoder.named_state()[0].value.data());
  EXPECT_EQ(run(encoder, {5, 3, 8}), "f32[5,3,8]");
}

TEST(Layers, TheSeedDecidesTheWeights) {
  const auto first = [] { return Linear(20, 20).named_state()[0].value; };
  manual_seed(5);
  const Tensor a = first(), b = first();
  manual_seed(5);
  const Tensor c = first();
  manual_seed(6);
  const Tensor d = first();
  for (int64_t i = 0; i < a.num_elements(); ++i) ASSERT_EQ(a.at(i), c.at(i));
  EXPECT_NE(a.at(0), b.at(0));
  EXPECT_NE(a.at(0), d.at(0));
}

TEST(Layers, BadArgumentsFailTheTrace) {
  const auto error = [](Module&& module) { return run(module, {2, 3, 4}); };
  EXPECT_EQ(error(Linear(-3, 4)),
            "Linear: expected in_features and out_features >= 1, got -3 and 4\n"
            "  note: in module ''");
  EXPECT_THAT(error(Conv(3, 4, {})), HasSubstr("Conv: expected channels and kernel sizes >= 1"));
  EXPECT_THAT(error(ConvTranspose(3, 4, {2}, {.groups = 3})),
              HasSubstr("ConvTranspose: expected groups to divide in_channels 3 and out_channels 4, got 3"));
  EXPECT_THAT(error(BatchNorm(0)), HasSubstr("BatchNorm: expected channels >= 1, got 0"));
  EXPECT_THAT(error(LayerNorm({})), HasSubstr("LayerNorm: expected a shape of sizes >= 1, got []"));
  EXPECT_THAT(error(Dropout(1)), HasSubstr("Dropout: expected a probability in [0, 1), got 1"));
  EXPECT_THAT(error(StochasticDepth(-1)), HasSubstr("StochasticDepth: expected a probability in [0, 1), got -1"));
  EXPECT_THAT(error(LSTM(3, 4, {.dropout = -1})), HasSubstr("lstm: expected dropout in [0, 1), got -1"));
  EXPECT_THAT(error(MultiheadAttention(4, 3)), HasSubstr("got embed_dim 4 and num_heads 3"));
  EXPECT_THAT(error(TransformerEncoderLayer(4, 2, {.feedforward = 0})), HasSubstr("dim_feedforward 0"));
  EXPECT_THAT(error(GroupNorm(2, 3)), HasSubstr("GroupNorm: expected groups to divide the channels"));
  Sequential nested({std::make_shared<Sequential>(std::vector<ModulePtr>{std::make_shared<Linear>(3, 0)})});
  EXPECT_THAT(run(nested, {2, 3}), HasSubstr("note: in module '0.0'"));
}

}  // namespace
}  // namespace deepseek::nn
