// Module trees: names, scopes, state in and out, training flags.
#include "nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "nn/conv.h"
#include "nn/layers.h"
#include "ops/registry.h"

namespace deepseek::nn {
namespace {

using graph::TensorType;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names(const Module& module) {
  std::vector<std::string> out;
  for (const State& s : module.named_state()) out.push_back(s.name);
  return out;
}

Result<graph::Graph> trace(Module& module, const TensorType& x, bool training = true) {
  Builder builder(ops::registry());
  Trace t(builder, module, training);
  builder.output("y", module(t, builder.input("x", x)));
  DS_TRY(builder.status());
  t.finish();
  return builder.finish();
}

TensorType graph_type(Module& module, const TensorType& x) {
  const Result<graph::Graph> graph = trace(module, x);
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return graph->type(graph->outputs()[0].value);
}

std::shared_ptr<Sequential> small_model() {
  return std::make_shared<Sequential>(std::vector<ModulePtr>{
      std::make_shared<Linear>(3, 4), std::make_shared<BatchNorm>(4), activation("relu"),
      std::make_shared<Sequential>(std::vector<ModulePtr>{std::make_shared<Linear>(4, 2, false)})});
}

TEST(Module, NamesAreThePathsOfTheTree) {
  EXPECT_THAT(names(*small_model()), ElementsAre("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean",
                                                 "1.running_var", "1.num_batches_tracked", "3.0.weight"));
  EXPECT_EQ(small_model()->num_parameters(), 3 * 4 + 4 + 4 + 4 + 4 * 2);
}

TEST(Module, ASharedModuleIsOneSetOfWeights) {
  auto shared = std::make_shared<Linear>(3, 3);
  Sequential model({shared, activation("tanh"), shared});
  EXPECT_THAT(names(model), ElementsAre("0.weight", "0.bias"));
  const Result<graph::Graph> graph = trace(model, {DType::kF32, {2, 3}});
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_EQ(graph->inputs().size(), 3u);
}

TEST(Module, NodesCarryTheScope) {
  auto model = small_model();
  const Result<graph::Graph> graph = trace(*model, {DType::kF32, {5, 3}});
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_THAT(graph::print(*graph), HasSubstr("@\"3/0\""));
  EXPECT_THAT(trace(*model, {DType::kF32, {5, 7}}).status().message(), HasSubstr("[matmul] node '0'"));
}

TEST(Module, StateTakesValuesByNameAndListsAllThatDoNotFit) {
  auto from = small_model(), to = small_model();
  std::map<std::string, Tensor> values;
  for (const State& s : from->named_state()) values[s.name] = s.value;
  ASSERT_TRUE(to->load_state(values).ok());
  EXPECT_EQ(to->named_state()[0].value.at(5), from->named_state()[0].value.at(5));

  values["0.weight"] = Tensor::zeros(DType::kF32, {4, 5});
  values["extra"] = Tensor::zeros(DType::kF32, {1});
  values.erase("1.bias");
  const Status status = to->load_state(values);
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "state does not fit the model:\n  '0.weight': expected f32[4,3], got f32[4,5]\n  '1.bias' is missing\n"
            "  'extra' is not a tensor of the model");
  EXPECT_EQ(to->named_state()[0].value.at(5), from->named_state()[0].value.at(5)) << "a refused state changes nothing";
}

TEST(Module, ASecondValueOfANameReplacesTheFirst) {
  Sequential model;
  model.register_parameter("scale", Tensor::zeros(DType::kF32, {2}));
  model.register_buffer("scale", Tensor::zeros(DType::kF32, {3}));
  ASSERT_EQ(model.named_state().size(), 1u);
  EXPECT_EQ(model.named_state()[0].value.dims(), Dims{3});
  EXPECT_FALSE(model.named_state()[0].trainable);
}

TEST(Module, ABadNameFailsTheTrace) {
  Sequential model({activation("relu")});
  model.register_parameter("a.b", Tensor::zeros(DType::kF32, {2}));
  EXPECT_THAT(trace(model, {DType::kF32, {2}}).status().message(),
              HasSubstr("expected a name without dots and slashes for a parameter or buffer, got 'a.b'"));
}

TEST(Module, ATensorOfAModuleOutsideTheTreeIsAnError) {
  auto outside = std::make_shared<Linear>(3, 3);
  Lambda model([outside](Trace& t, Expr x) { return (*outside)(t, x); });
  EXPECT_THAT(trace(model, {DType::kF32, {2, 3}}).status().message(),
              HasSubstr("a module with the tensor 'weight' is not part of the traced model"));
}

TEST(Module, AFrozenModuleEvaluatesInTraining) {
  auto norm = std::make_shared<BatchNorm>(4);
  Sequential model({norm, std::make_shared<Dropout>(0.5)});
  const TensorType x{DType::kF32, {3, 4}};
  EXPECT_EQ(trace(model, x)->updates().size(), 4u);  // mean, variance, count, random
  norm->set_training(false);
  const Result<graph::Graph> frozen = trace(model, x);
  EXPECT_EQ(frozen->updates().size(), 1u);
  EXPECT_THAT(graph::print(*frozen), HasSubstr("batch_norm_inference"));
  EXPECT_EQ(trace(model, x, false)->updates().size(), 0u);
}

TEST(Module, UnsetWeightsDrawNothing) {
  const auto first = [] { return Linear(2, 2).own_state()[0].value.as<float>()[0]; };
  manual_seed(5);
  const float drawn = first();
  manual_seed(5);
  {
    const UnsetWeights outer;
    { const UnsetWeights inner; }
    EXPECT_EQ(graph::to_string(Linear(2, 3).own_state()[0].value.type()), "f32[3,2]");
  }
  EXPECT_EQ(first(), drawn);
}

TEST(Module, TheHandleExpiresWithTheModule) {
  auto module = std::make_unique<Linear>(2, 2);
  const std::weak_ptr<Module*> handle = module->handle();
  EXPECT_EQ(*handle.lock(), module.get());
  module.reset();
  EXPECT_TRUE(handle.expired());
}

TEST(Structure, ChangesWithEveryModuleOfTheTree) {
  const auto model = small_model();
  Structure structure;
  EXPECT_TRUE(structure.update(*model));
  EXPECT_FALSE(structure.update(*model));
  const std::string first = structure.key();
  const ModulePtr inner = model->children()[3].second;
  inner->set_training(false);
  EXPECT_TRUE(structure.update(*model));
  inner->set_training(true);
  EXPECT_TRUE(structure.update(*model));
  EXPECT_EQ(structure.key(), first);                  // as it was before
  const auto other = std::make_shared<Linear>(2, 2);  // another tree
  EXPECT_FALSE(structure.update(*model));
  inner->children()[0].second->changed();
  EXPECT_TRUE(structure.update(*model));
  inner->register_module("1", other);
  EXPECT_TRUE(structure.update(*model));
  EXPECT_TRUE(inner->unregister("1"));
  EXPECT_FALSE(inner->unregister("1"));
  EXPECT_TRUE(structure.update(*model));
  EXPECT_NE(structure.key(), first);
  Structure twin;
  twin.update(*small_model());
  EXPECT_NE(twin.key(), first);
}

TEST(Module, SettingsSayAllThatTheConstructorWasTold) {
  Conv conv(2, 4, {3, 3}, {.stride = {2}, .groups = 2});
  std::vector<std::string> found;
  for (const Setting& s : conv.settings()) found.push_back(s.name);
  EXPECT_THAT(found, ElementsAre("in_channels", "out_channels", "kernel_size", "stride", "padding", "padding_high",
                                 "same_padding", "dilation", "groups", "bias"));
  *std::get<Dims*>(conv.settings()[3].value) = {1};
  EXPECT_EQ(graph::to_string(graph_type(conv, {DType::kF32, {1, 2, 8, 8}})), "f32[1,4,6,6]");
}

// A tensor may be called what the trace calls its own.
TEST(Module, NamesOfInputsMeetNoTensors) {
  Sequential model({std::make_shared<Dropout>(0.5)});
  model.register_parameter("random", graph::Tensor::zeros(DType::kF32, {2}));
  model.register_parameter("x", graph::Tensor::zeros(DType::kF32, {2}));
  const Result<graph::Graph> graph = trace(model, {DType::kF32, {2}});
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_GE(graph->find_input(kRandomCounter), 0);
  EXPECT_EQ(input_name(model, "x"), "input/x");
  EXPECT_EQ(input_name(model, "y"), "y");
  EXPECT_EQ(data_name("input/x"), "x");
  EXPECT_EQ(data_name("y"), "y");
}

}  // namespace
}  // namespace deepseek::nn
