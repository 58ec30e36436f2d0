// The zoo: parameter counts against the closed forms, output shapes, refused names and shapes.
#include "models/zoo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/registry.h"

namespace deepseek::models {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

int64_t count(const std::string& name, const ModelData& task, const Parameters& parameters) {
  const nn::UnsetWeights unset;
  Result<nn::ModulePtr> model = create(name, task, parameters);
  EXPECT_TRUE(model.ok()) << model.status().to_string();
  return model.ok() ? (*model)->num_parameters() : -1;
}

std::string error(const std::string& name, const ModelData& task, const Parameters& parameters) {
  return create(name, task, parameters).status().message();
}

// The type of the prediction for a batch.
std::string predict(const std::string& name, const ModelData& task, const Parameters& parameters,
                    DType dtype = DType::kF32) {
  Result<nn::ModulePtr> model = create(name, task, parameters);
  if (!model.ok()) return model.status().to_string();
  graph::Builder builder(ops::registry());
  nn::Trace trace(builder, **model, true);
  graph::Dims x = task.input;
  x.insert(x.begin(), 4);
  const graph::Expr y = (**model)(trace, builder.input("x", {dtype, x}));
  return builder.status().ok() ? graph::to_string(y.type()) : builder.status().to_string();
}

TEST(Zoo, ParameterCounts) {
  EXPECT_EQ(count("mlp", {{1, 5, 4}, 3}, {{"width", "7"}, {"layers", "2"}}), (20 + 1) * 7 + (7 + 1) * 7 + (7 + 1) * 3);
  // Stem, then per block two convolutions with norms, and a projection with norm where the shape changes.
  EXPECT_EQ(count("small_resnet", {{3, 8, 8}, 5}, {{"width", "4"}, {"blocks", "1"}}),
            9 * 3 * 4 + 8 + (2 * 9 * 4 * 4 + 16) + (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8 + 48) +
                (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16 + 96) + 17 * 5);
  EXPECT_EQ(count("mlp", {{28, 28}, 10}, {{"width", "256"}, {"layers", "3"}}), 785 * 256 + 2 * 257 * 256 + 257 * 10);
  EXPECT_EQ(count("lstm", {{28, 28}, 10}, {{"width", "512"}, {"layers", "2"}}),
            4 * 512 * (28 + 512 + 2) + 4 * 512 * (512 + 512 + 2) + 513 * 10);
  EXPECT_EQ(count("lstm", {{9, 6}, 5}, {{"width", "8"}, {"layers", "2"}}),
            4 * 8 * (6 + 8 + 2) + 4 * 8 * (8 + 8 + 2) + (8 + 1) * 5);
  EXPECT_EQ(count("lstm", {{9}, 5}, {{"width", "8"}, {"vocabulary", "30"}}),
            30 * 8 + 4 * 8 * (8 + 8 + 2) + (8 + 1) * 5);
  // Per layer: 4 w (w + 1) of attention, 8 w^2 + 5 w of the feed-forward net, 4 w of the norms.
  const int64_t w = 8, layer = 4 * w * (w + 1) + 8 * w * w + 5 * w + 4 * w;
  EXPECT_EQ(count("transformer", {{9, 6}, 5}, {{"width", "8"}, {"layers", "3"}, {"heads", "2"}}),
            7 * w + 9 * w + 3 * layer + 2 * w + (w + 1) * 5);
  EXPECT_EQ(count("transformer", {{9}, 5}, {{"width", "8"}, {"layers", "1"}, {"vocabulary", "30"}}),
            30 * w + 9 * w + layer + 2 * w + (w + 1) * 5);
}

// As published: torchvision's tables, and Hugging Face's BertModel (bert-base-uncased,
// bert-large-uncased).
TEST(Zoo, PublishedParameterCounts) {
  const ModelData imagenet{{3, 224, 224}, 1000};
  EXPECT_EQ(count("resnet18", imagenet, {}), 11689512);
  EXPECT_EQ(count("resnet34", imagenet, {}), 21797672);
  EXPECT_EQ(count("resnet50", imagenet, {}), 25557032);
  EXPECT_EQ(count("resnet101", imagenet, {}), 44549160);
  EXPECT_EQ(count("resnet152", imagenet, {}), 60192808);
  EXPECT_EQ(count("efficientnet_b0", imagenet, {}), 5288548);
  EXPECT_EQ(count("efficientnet_b1", imagenet, {}), 7794184);
  EXPECT_EQ(count("efficientnet_b2", imagenet, {}), 9109994);
  EXPECT_EQ(count("efficientnet_b3", imagenet, {}), 12233232);
  EXPECT_EQ(count("efficientnet_b4", imagenet, {}), 19341616);
  EXPECT_EQ(count("efficientnet_b5", imagenet, {}), 30389784);
  EXPECT_EQ(count("efficientnet_b6", imagenet, {}), 43040704);
  EXPECT_EQ(count("efficientnet_b7", imagenet, {}), 66347960);
  EXPECT_EQ(count("bert", {{128}}, {{"head", "pooler"}}), 109482240);
  EXPECT_EQ(count("bert_large", {{128}}, {{"head", "pooler"}}), 335141888);
}

// Per level two convolutions with norms; the way up also has a transposed convolution with a bias.
TEST(Zoo, Unet3dParameterCount) {
  const auto level = [](int64_t in, int64_t out) { return 27 * out * (in + out) + 4 * out; };
  const int64_t expected = level(1, 32) + level(32, 64) + level(64, 128) + (8 * 128 * 64 + 64) + level(128, 64) +
                           (8 * 64 * 32 + 32) + level(64, 32) + (32 + 1) * 5;
  EXPECT_EQ(count("unet3d", {{1, 16, 16, 16}, 5}, {}), expected);
  EXPECT_EQ(count("unet3d", {{1, 16, 16, 16}, 5}, {{"down", "stride"}, {"slope", "0.01"}}), expected);
}

// The heads' own parameters are the classifier's, and dense, norm and bias; the decoder is the word embeddings.
TEST(Zoo, BertHeads) {
  const Parameters tiny = {{"vocabulary", "30"}, {"width", "8"}, {"layers", "1"}, {"heads", "2"}, {"positions", "9"}};
  const auto with = [&](const std::string& head) {
    Parameters p = tiny;
    p["head"] = head;
    return p;
  };
  const int64_t base = count("bert", {{9}, 3}, with("none"));
  EXPECT_EQ(count("bert", {{9}, 3}, with("pooler")), base + 8 * 9);
  EXPECT_EQ(count("bert", {{9}, 3}, tiny), base + 8 * 9 + 3 * 9);
  EXPECT_EQ(count("bert", {{9}, 3}, with("mlm")), base + 8 * 9 + 2 * 8 + 30);
  EXPECT_EQ(predict("bert", {{9}, 3}, tiny, DType::kI64), "f32[4,3]");
  EXPECT_EQ(predict("bert", {{7}, 3}, with("none"), DType::kI64), "f32[4,7,8]");
  EXPECT_EQ(predict("bert", {{7}, 3}, with("pooler")), "f32[4,8]");
  EXPECT_EQ(predict("bert", {{7}, 3}, with("mlm"), DType::kI64), "f32[4,7,30]");
  EXPECT_EQ(predict("bert", {{7, 8}}, {{"width", "8"}, {"layers", "1"}, {"heads", "2"}, {"head", "none"}}),
            "f32[4,7,8]");
}

// 9 of B0's 16 blocks have a shortcut, and are left out at a rate that grows with their place.
TEST(Zoo, EfficientNetDropsDeeperBlocksMoreOften) {
  const nn::UnsetWeights unset;
  const Result<nn::ModulePtr> model = create("efficientnet_b0", {{3, 32, 32}, 10}, {});
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  for (const bool training : {true, false}) {
    graph::Builder builder(ops::registry());
    nn::Trace trace(builder, **model, training);
    builder.output("y", (**model)(trace, builder.input("x", {DType::kF32, {4, 3, 32, 32}})));
    trace.finish();
    const Result<graph::Graph> graph = builder.finish();
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    std::vector<double> rates;
    for (const graph::Node& node : graph->nodes())
      if (node.op->name.value == "dropout") rates.push_back(node.attrs.number("rate"));
    if (!training) {
      EXPECT_TRUE(rates.empty());
      continue;
    }
    ASSERT_EQ(rates.size(), 10u);  // the last is the classifier's
    EXPECT_DOUBLE_EQ(rates.front(), 0.2 * 2 / 16);
    EXPECT_DOUBLE_EQ(rates[8], 0.2 * 14 / 16);
    EXPECT_DOUBLE_EQ(rates.back(), 0.2);
    EXPECT_TRUE(std::is_sorted(rates.begin(), rates.end()));
  }
}

TEST(Zoo, Predictions) {
  EXPECT_THAT(names(), ElementsAre("mlp", "small_resnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
                                   "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
                                   "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "unet3d",
                                   "lstm", "transformer", "bert", "bert_large"));
  for (const std::string& name : names()) EXPECT_FALSE(summary(name).empty()) << name;
  EXPECT_EQ(predict("efficientnet_b0", {{1, 33, 50}, 3}, {{"width", "0.25"}, {"depth", "0.5"}}), "f32[4,3]");
  for (const char* name : {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"}) {
    EXPECT_EQ(predict(name, {{3, 64, 48}, 3}, {{"width", "4"}}), "f32[4,3]");
    EXPECT_EQ(predict(name, {{1, 8, 8}, 3}, {{"width", "4"}, {"blocks", "1"}, {"stem", "small"}}), "f32[4,3]");
  }
  EXPECT_EQ(predict("unet3d", {{2, 8, 12, 4}, 3}, {{"channels", "4,6,8"}}), "f32[4,3,8,12,4]");
  EXPECT_EQ(predict("unet3d", {{2, 8, 12, 6}, 3}, {{"channels", "4, 6"}, {"slope", "0.01"}, {"down", "stride"}}),
            "f32[4,3,8,12,6]");
  EXPECT_EQ(predict("unet3d", {{1, 3, 5, 7}, 2}, {{"channels", "4"}}), "f32[4,2,3,5,7]");
  EXPECT_EQ(predict("mlp", {{6}, 3}, {}), "f32[4,3]");
  EXPECT_EQ(predict("small_resnet", {{1, 8, 8}, 3}, {{"width", "2"}}), "f32[4,3]");
  for (const char* name : {"lstm", "transformer"}) {
    EXPECT_EQ(predict(name, {{7, 6}, 3}, {{"width", "8"}}), "f32[4,3]");
    EXPECT_EQ(predict(name, {{7}, 3}, {{"width", "8"}, {"vocabulary", "20"}}, DType::kI64), "f32[4,3]");
    EXPECT_EQ(predict(name, {{7}, 3}, {{"width", "8"}, {"vocabulary", "20"}}), "f32[4,3]");
  }
}

TEST(Zoo, Errors) {
  EXPECT_THAT(error("mpl", {{4}}, {}),
              HasSubstr("model.name: there is no model 'mpl'; the zoo has: mlp, small_resnet"));
  EXPECT_EQ(
      error("lstm", {{4, 3}}, {{"widht", "3"}}),
      "model.widht: model 'lstm' has no such parameter; it has: width, layers, vocabulary; did you mean 'width'?");
  EXPECT_EQ(error("lstm", {{4, 3}}, {{"width", "0"}}), "model.width: expected an integer in [1, 65536], got '0'");
  EXPECT_EQ(error("transformer", {{4, 3}}, {{"width", "10"}, {"heads", "4"}}),
            "model.heads: expected a divisor of model.width 10, got 4; change one of them");
  EXPECT_EQ(error("transformer", {{3, 8, 8}}, {}),
            "model 'transformer' takes sequences [T, F], or tokens [T] with model.vocabulary; the data has samples of "
            "shape [3,8,8]");
  EXPECT_EQ(error("lstm", {{4, 3}}, {{"vocabulary", "9"}}),
            "model 'lstm' with a vocabulary takes tokens [T], the data has samples of shape [4,3]");
  EXPECT_EQ(error("resnet50", {{4, 3}}, {}),
            "model 'resnet50' takes images [C, H, W], the data has samples of shape [4,3]");
  EXPECT_EQ(error("efficientnet_b3", {{4, 3}}, {}),
            "model 'efficientnet_b3' takes images [C, H, W], the data has samples of shape [4,3]");
  EXPECT_EQ(error("efficientnet_b3", {{3, 8, 8}}, {{"drop_connect", "1"}}),
            "model.drop_connect: expected a number in [0, 0.99], got '1'");
  EXPECT_EQ(error("unet3d", {{3, 8, 8}}, {}),
            "model 'unet3d' takes volumes [C, D, H, W], the data has samples of shape [3,8,8]");
  EXPECT_EQ(error("unet3d", {{3, 8, 6, 8}}, {}),
            "model 'unet3d' with 3 levels halves the sides 2 times: expected multiples of 4, got samples of [3,8,6,8]");
  EXPECT_EQ(error("unet3d", {{3, 4, 4, 4}}, {}),
            "model 'unet3d' with 3 levels leaves 1 voxel of samples [3,4,4,4], where instance norm needs 2; give fewer "
            "levels in model.channels");
  for (const char* bad : {"", "8,", "8,x", "8;9", "0", "8,,9", "8 9"})
    EXPECT_EQ(error("unet3d", {{3, 8, 8, 8}}, {{"channels", bad}}),
              "model.channels: expected integers in [1, 65536] separated by commas, got '" + std::string(bad) + "'");
  EXPECT_EQ(error("resnet18", {{3, 8, 8}}, {{"stem", "big"}}),
            "model.stem: expected one of imagenet, small; got 'big'");
  EXPECT_EQ(error("bert", {{9}}, {{"dropout", "1"}}), "model.dropout: expected a number in [0, 0.99], got '1'");
  EXPECT_EQ(error("bert", {{9}}, {{"heads", "7"}}),
            "model.heads: expected a divisor of model.width 768, got 7; change one of them");
  EXPECT_EQ(error("bert", {{600}}, {}), "model.positions: 600 tokens need as many positions, got 512");
  EXPECT_EQ(error("bert", {{9, 768}}, {}),
            "model 'bert' takes tokens [T], or vectors [T, 768] with model.head=none and no vocabulary; the data has "
            "samples of shape [9,768], the head is 'classifier'");
  EXPECT_THAT(error("small_resnet", {{4, 3}}, {}), HasSubstr("takes images [C, H, W]"));
}

TEST(Zoo, ImpossibleSizesAreErrors) {
  const std::string large = "expected sizes of at most 2147483647, got 2147483648";
  EXPECT_EQ(error("transformer", {{16}, 5}, {{"width", "8"}, {"vocabulary", "2147483648"}}), "Embedding: " + large);
  EXPECT_EQ(error("lstm", {{16}, 5}, {{"width", "8"}, {"vocabulary", "2147483648"}}), "Embedding: " + large);
  EXPECT_EQ(error("mlp", {{65536, 32768}, 5}, {{"width", "1"}}), "Linear: " + large);
  EXPECT_THAT(error("mlp", {{int64_t{1} << 40}, 5}, {}), HasSubstr("expected sizes in [0, 2147483647]"));
  EXPECT_EQ(error("mlp", {{4}, 0}, {}), "classes: expected 1 to 2147483647, got 0");
}

}  // namespace
}  // namespace deepseek::models
