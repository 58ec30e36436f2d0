// Predictions as tables: columns by hand, of models whose outputs are their inputs.
#include "predict/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "graph/builder.h"
#include "ops/registry.h"
#include "predict/print.h"

namespace deepseek::predict {
namespace {

using graph::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// x [N, 2] is taken from numbers in memory, whatever the path says.
void register_numbers(std::vector<float> numbers) {
  data::register_source(
      {.name = "numbers",
       .doc = "for tests",
       .keys = {},
       .example = "",
       .open = [](const data::Params&) -> Result<data::Splits> { return invalid("none"); },
       .open_input = [numbers](const std::string&, const std::string&) -> Result<data::Input> {
         const auto rows = static_cast<int64_t>(numbers.size() / 2);
         data::Input input;
         DS_ASSIGN(input.data, data::ArrayDataset::create(
                                   {{.name = "x"}}, {{"x", Tensor::from<float>(DType::kF32, {rows, 2}, numbers)}}));
         for (int64_t i = 0; i < rows; ++i) input.labels.push_back(std::to_string(i));
         return input;
       }});
}

std::shared_ptr<infer::Session> session(const std::map<std::string, infer::OutputInfo>& outputs) {
  infer::ModelFile file;
  for (const int64_t n : {3, 5}) {
    graph::Builder builder(ops::registry());
    const graph::Expr x = builder.input("x", {DType::kF32, {n, 2}});
    for (const auto& [name, info] : outputs) builder.output(name, builder.op("neg", {builder.op("neg", {x})}));
    file.graphs.push_back(*builder.finish());
  }
  file.signature = *infer::signature_of(file.graphs);
  file.outputs = outputs;
  file.preprocessing = R"({"source": "numbers", "fields": {"x": {"scale": 1, "mean": [], "stddev": []}}})";
  return *infer::Session::open(std::move(file));
}

template <class T>
std::vector<T> column(const data::TablePart& part, const std::string& name) {
  for (const data::TableColumn& c : part)
    if (c.name == name) return std::get<std::vector<T>>(c.values);
  ADD_FAILURE() << "there is no column " << name;
  return {};
}

std::vector<data::TablePart> parts_of(Predictor& predictor, const std::vector<std::string>& paths) {
  std::vector<data::TablePart> parts;
  const Status status = predictor.predict(paths, [&](const data::TablePart& part) -> Status {
    parts.push_back(part);
    return {};
  });
  EXPECT_TRUE(status.ok()) << status.to_string();
  return parts;
}

TEST(Predictor, ClassesInParts) {
  register_numbers({0, 0, std::log(3.0f), 0, 0, std::log(4.0f)});
  Predictor predictor(session({{"output", {{"no", "yes"}, "classification"}}}), {.batch_size = 2});
  const auto parts = parts_of(predictor, {"anything"});
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_THAT(column<int64_t>(parts[0], "row"), ElementsAre(0, 1));
  EXPECT_THAT(column<int64_t>(parts[1], "row"), ElementsAre(2));
  EXPECT_THAT(column<std::string>(parts[1], "prediction"), ElementsAre("yes"));
  EXPECT_NEAR(column<double>(parts[0], "probability_no")[1], 0.75, 1e-6);
  EXPECT_NEAR(column<double>(parts[1], "probability")[0], 0.8, 1e-6);
  EXPECT_EQ(part_text(parts[1]), "2: yes (80.0 %)\n");
}

TEST(Predictor, SeveralOutputsAndFiles) {
  register_numbers({1, 2});
  Predictor predictor(session({{"kind", {{"a", "b"}, "classification"}}, {"value", {{}, "regression"}}}));
  const auto parts = parts_of(predictor, {"one", "two"});
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_THAT(column<std::string>(parts[1], "input"), ElementsAre("two"));
  EXPECT_THAT(column<std::string>(parts[1], "kind_prediction"), ElementsAre("b"));
  EXPECT_THAT(column<float>(parts[0], "value_prediction_0"), ElementsAre(1));
  EXPECT_THAT(column<float>(parts[0], "value_prediction_1"), ElementsAre(2));
}

TEST(Predictor, StopsWhereProgressSaysSo) {
  register_numbers({1, 2, 3, 4});
  Predictor predictor(session({{"value", {}}}), {.batch_size = 1});
  const Status status = predictor.predict(
      {"x"}, [](const data::TablePart&) { return Status(); }, [](int64_t done, int64_t) { return done < 1; });
  EXPECT_EQ(status.code(), ErrorCode::kInterrupted);
}

TEST(Probabilities, OfOneLogitAndOfLargeOnes) {
  EXPECT_THAT(probabilities(Tensor::full(DType::kF32, {2, 1}, 0), 1, 2), ElementsAre(0.5, 0.5));
  EXPECT_THAT(probabilities(Tensor::full(DType::kF32, {1, 2}, 1e30), 0, 2), ElementsAre(0.5, 0.5));
}

TEST(WriteTable, JsonLines) {
  const std::string path = testing::TempDir() + "/part.jsonl";
  ASSERT_TRUE(data::write_table(path, [](const data::WritePart& write) {
                return write({{"a \"b\"", std::vector<std::string>{"x\n"}},
                              {"n", std::vector<float>{0.1f}},
                              {"none", std::vector<double>{NAN}},
                              {"i", std::vector<int64_t>{-7}}});
              }).ok());
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, R"({"a \"b\"": "x\n", "n": 0.1, "none": null, "i": -7})");
}

TEST(ModelPath, TellsWhatAFolderLacks) {
  const std::string folder = testing::TempDir() + "/empty_run";
  std::filesystem::create_directories(folder);
  EXPECT_THAT(model_path(folder).status().message(), HasSubstr("expected the folder of a run"));
  EXPECT_EQ(*model_path("some.dsk"), "some.dsk");
}

}  // namespace
}  // namespace deepseek::predict
