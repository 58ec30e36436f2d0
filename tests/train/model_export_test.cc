// A trained module as a model file: what it holds, and that a session gives the trainer's own bits.
#include "train/model_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/version.h"
#include "infer/session.h"
#include "nn/layers.h"
#include "nn/norm.h"
#include "ops/dsl.h"
#include "train/trainer.h"

namespace deepseek::train {
namespace {

using graph::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

data::DatasetPtr points() {
  Tensor x(DType::kF32, {20, 3}), y(DType::kI64, {20});
  for (int64_t i = 0; i < 60; ++i) x.set(i, static_cast<double>(i * 7 % 11) / 11 - 0.5);
  for (int64_t i = 0; i < 20; ++i) y.set(i, static_cast<double>(i % 2));
  return *data::ArrayDataset::create(
      {{.name = "x"}, {.name = "y", .role = data::Role::kTarget, .class_names = {"no", "yes"}}}, {{"x", x}, {"y", y}},
      R"({"source": "somewhere"})");
}

nn::ModulePtr network() {
  nn::manual_seed(2);
  return std::make_shared<nn::Sequential>(
      std::vector<nn::ModulePtr>{std::make_shared<nn::Linear>(3, 8), std::make_shared<nn::BatchNorm>(8),
                                 std::make_shared<nn::Dropout>(0.3), std::make_shared<nn::Linear>(8, 2)});
}

TEST(ModelExport, ASessionGivesTheTrainersBits) {
  TrainerOptions options;
  options.train.output = "";
  options.train.epochs = 3;
  options.train.batch_size = 5;
  Trainer trainer(network(), options);
  const std::string path = testing::TempDir() + "/export.dsk";
  EXPECT_THAT(trainer.save(path).message(), HasSubstr("call fit() before it is saved"));
  const data::DatasetPtr data = points();
  ASSERT_TRUE(trainer.fit(data, nullptr, false, {}).ok());
  ASSERT_TRUE(trainer.save(path).ok()) << trainer.save(path).to_string();
  const auto session = *infer::Session::open(path);
  ASSERT_EQ(session->signature().inputs.size(), 1U);
  EXPECT_EQ(infer::to_string(session->signature().inputs[0]), "f32[?,3]");
  EXPECT_EQ(infer::to_string(session->signature().outputs[0]), "f32[?,2]");
  EXPECT_THAT(session->class_names("output"), ElementsAre("no", "yes"));
  EXPECT_EQ(session->outputs().at("output").task, "classification");
  EXPECT_THAT(session->preprocessing(), HasSubstr("\"source\":\"somewhere\""));
  EXPECT_EQ(session->provenance().at("framework_version"), version());
  EXPECT_THAT(session->provenance().at("data_fingerprint"), HasSubstr("20 samples x f32[3] -> y i64[]"));
  const data::Batch batch = *data->read(data::all_rows(20));
  const data::Batch expected = *trainer.predict({{"x", batch.at("x")}});
  const auto actual = *session->run({{"x", batch.at("x")}});
  ASSERT_EQ(actual.at("output").type(), expected.at("output").type());
  EXPECT_EQ(0,
            std::memcmp(actual.at("output").data(), expected.at("output").data(), expected.at("output").num_bytes()));
}

// What looks at the batch's size has no graph for other sizes.
class Sized : public nn::Module {
 public:
  std::vector<nn::Expr> forward(nn::Trace& trace, const std::vector<nn::Expr>& inputs) override {
    return {inputs[0] * trace.builder().scalar(DType::kF32, inputs[0].dim(0))};
  }
  std::vector<std::string> output_names() const override { return {"same"}; }
};

TEST(ModelExport, AModelThatLooksAtTheBatchsSizeTakesOneSample) {
  Sized model;
  const infer::ModelFile file = *export_model(model, *summarise(*points()), {}, {}, {{"config", "none"}});
  EXPECT_EQ(infer::to_string(file.signature.inputs[0]), "f32[1,3]");
  EXPECT_EQ(file.signature.outputs[0].name, "same");
  EXPECT_EQ(file.provenance.at("config"), "none");
  EXPECT_TRUE(infer::check_model(file).ok());
}

class Noisy : public nn::Module {
 public:
  std::vector<nn::Expr> forward(nn::Trace& trace, const std::vector<nn::Expr>& inputs) override {
    return {trace.builder().op("dropout", {inputs[0], trace.random_state()}, {{"rate", 0.5}})};
  }
};

TEST(ModelExport, RandomNumbersAreRefused) {
  Noisy model;
  const auto file = export_model(model, *summarise(*points()), {}, {}, {});
  EXPECT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), ErrorCode::kUnsupported) << file.status().to_string();
}

}  // namespace
}  // namespace deepseek::train
