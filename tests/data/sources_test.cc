// Fashion-MNIST as Debian ships it, checked against the numbers its authors and others publish; small IDX files and
// pictures written here; the registry.
#include "data/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "io/png.h"

namespace deepseek::data {
namespace {

using graph::Tensor;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

bool has_fashion() { return fs::exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"); }

std::vector<int64_t> labels_of(const DatasetPtr& part) {
  const Tensor y = part->read_targets(all_rows(part->size())).value().at("y");
  return {y.as<int64_t>(), y.as<int64_t>() + y.num_elements()};
}
std::vector<double> values(const Tensor& t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.num_elements(); ++i) out.push_back(t.at(i));
  return out;
}

TEST(Sources, FashionMnist) {
  if (!has_fashion()) GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  const auto splits = open_dataset("fashion-mnist", {});
  ASSERT_TRUE(splits.ok()) << splits.status().to_string();
  EXPECT_EQ(splits->train->size(), 54000);
  EXPECT_EQ(splits->validation->size(), 6000);
  EXPECT_EQ(splits->test->size(), 10000);
  const Field& x = *splits->train->find("x");
  EXPECT_EQ(x.sample, (graph::TensorType{DType::kU8, {1, 28, 28}}));
  EXPECT_EQ(splits->test->find("y")->num_classes(), 10);
  // 1000 of each class in test, 6000 in train and validation together; the well-known mean and deviation.
  std::vector<int> test(10), rest(10);
  for (const int64_t label : labels_of(splits->test)) ++test[static_cast<size_t>(label)];
  for (const DatasetPtr& part : {splits->train, splits->validation})
    for (const int64_t label : labels_of(part)) ++rest[static_cast<size_t>(label)];
  EXPECT_EQ(test, std::vector<int>(10, 1000));
  EXPECT_EQ(rest, std::vector<int>(10, 6000));
  EXPECT_NEAR(x.normalisation.mean[0], 0.2860, 1e-3);
  EXPECT_NEAR(x.normalisation.stddev[0], 0.3530, 1e-3);
  EXPECT_EQ(splits->validation->find("x")->normalisation, x.normalisation);
  EXPECT_EQ(splits->test->find("x")->normalisation, x.normalisation);
  EXPECT_EQ(labels_of(splits->test)[0], 9);  // the first test image is an ankle boot
}

TEST(Sources, WrongRequestsAreExplained) {
  EXPECT_THAT(open_dataset("fashion-mnits", {}).status().message(),
              HasSubstr("unknown data set 'fashion-mnits'; did you mean 'fashion-mnist'?; there are: "));
  EXPECT_THAT(
      open_dataset("fashion-mnist", {{"foldr", "x"}}).status().message(),
      HasSubstr("has no parameter 'foldr'; did you mean 'folder'?; it takes: folder, validation_fraction, seed"));
  const Status missing = open_dataset("fashion-mnist", {{"folder", "/no/such"}}).status();
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_THAT(missing.to_string(), HasSubstr("apt install dataset-fashion-mnist"));
  EXPECT_THAT(open_dataset("idx", {}).status().message(), HasSubstr("needs the parameter 'train_images': a path"));
}

TEST(Sources, EachIsDescribed) {
  const std::vector<Source> all = sources();
  std::vector<std::string> names;
  for (const Source& s : all) {
    names.push_back(s.name);
    EXPECT_FALSE(s.doc.empty()) << s.name;
    EXPECT_THAT(s.example, HasSubstr("name: " + s.name));
    for (const Key& k : s.keys) EXPECT_FALSE(k.doc.empty()) << s.name << ": " << k.name;
  }
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_THAT(names, ::testing::IsSupersetOf({"fashion-mnist", "idx", "image-folder"}));
  // Tables are there where their library is.
  const Result<Source> table = find_source("table");
  if (!table.ok()) {
    EXPECT_EQ(table.status().code(), ErrorCode::kUnsupported);
    EXPECT_THAT(table.status().message(), HasSubstr("pip install \"deepseek[data]\""));
  }
}

// "a, b" as two samples; x is i64.
Result<Splits> open_numbers(const Params& params) {
  DS_ASSIGN(const int64_t first, number<int64_t>(params, "first", 10));
  const std::vector<std::string> items = list(params, "items");
  Tensor x(DType::kI64, {static_cast<int64_t>(items.size())});
  for (int64_t i = 0; i < x.num_elements(); ++i) x.set(i, static_cast<double>(first + i));
  Field f;
  f.name = "x";
  DS_ASSIGN(const DatasetPtr all, ArrayDataset::create({f}, {{"x", x}}));
  return split(all, nullptr, params);
}
Source numbers() {
  Source s{"test-numbers", "whole numbers", {{"first", "the first one", "10"}, {"items", "one each", "", true}}};
  for (Key& k : split_keys()) s.keys.push_back(k);
  s.open = open_numbers;
  return s;
}

TEST(Registry, ASourceIsRegisteredByName) {
  register_source(numbers());
  const Splits s =
      open_dataset("test-numbers", {{"items", "a, b ,c,d"}, {"first", "5"}, {"validation_fraction", "0.25"}}).value();
  ASSERT_EQ(s.train->size(), 3);
  ASSERT_EQ(s.validation->size(), 1);
  EXPECT_EQ(s.test, nullptr);
  std::vector<double> all = values(s.train->read(all_rows(3))->at("x"));
  all.push_back(s.validation->read(all_rows(1))->at("x").at(0));
  EXPECT_THAT(all, ::testing::UnorderedElementsAre(5, 6, 7, 8));
  EXPECT_EQ(open_dataset("test-numbers", {{"items", "a"}, {"validation_fraction", "0"}})->validation, nullptr);
  EXPECT_THAT(open_dataset("test-numbers", {}).status().message(), HasSubstr("needs the parameter 'items'"));
  EXPECT_THAT(open_dataset("test-numbers", {{"items", " "}}).status().message(), HasSubstr("is empty"));
  EXPECT_THAT(open_dataset("test-numbers", {{"items", "a"}, {"first", "1.5"}}).status().message(),
              HasSubstr("'first' is '1.5', expected a whole number"));
  EXPECT_THAT(open_dataset("test-numbers", {{"items", "a"}, {"seed", "-1"}}).status().message(),
              HasSubstr("'seed' is '-1', expected a whole, non-negative number"));
  EXPECT_THAT(open_dataset("test-numbers", {{"items", "a"}, {"validation_fraction", "1"}}).status().message(),
              HasSubstr("validation_fraction is 1, expected a value in [0, 1)"));
  EXPECT_THAT(open_dataset("test-number", {}).status().message(), HasSubstr("did you mean 'test-numbers'?"));
  // A second one takes its place; what it throws is an error.
  Source other = numbers();
  other.open = [](const Params&) -> Result<Splits> { throw std::runtime_error("out of numbers"); };
  register_source(other);
  EXPECT_THAT(open_dataset("test-numbers", {{"items", "a"}}).status().to_string(), HasSubstr("out of numbers"));
}

TEST(Registry, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> found{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        Source s = numbers();
        s.name += std::to_string(t);
        register_source(s);
        found += find_source(s.name).ok() && find_source("idx").ok();
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, 80);
}

TEST(Sources, SplitDependsOnTheSeedOnly) {
  register_source(numbers());
  const auto validation = [](const char* seed) {
    std::string items = "0";
    for (int i = 1; i < 100; ++i) items += "," + std::to_string(i);
    const Splits s = open_dataset("test-numbers", {{"items", items}, {"seed", seed}}).value();
    EXPECT_EQ(s.validation->size(), 10);
    return values(s.validation->read(all_rows(10))->at("x"));
  };
  const auto first = validation("7");
  EXPECT_TRUE(std::is_sorted(first.begin(), first.end()));
  EXPECT_EQ(first, validation("7"));
  EXPECT_NE(first, validation("8"));
}

TEST(Sources, TestSamplesThatDifferFromTrainingSamplesAreNamed) {
  const auto of = [](const std::string& name, const graph::Dims& dims, std::vector<std::string> classes) {
    Field x, y;
    x.name = name;
    y.name = "y";
    y.role = Role::kTarget;
    y.class_names = std::move(classes);
    return ArrayDataset::create({x, y},
                                {{name, Tensor::zeros(DType::kF32, dims)}, {"y", Tensor::zeros(DType::kI64, {2})}})
        .value();
  };
  const auto message = [&](const DatasetPtr& test) {
    return split(of("x", {2, 3}, {"a", "b"}), test, {}).status().message();
  };
  EXPECT_EQ(message(of("x", {2, 3}, {"a", "b"})), "");
  EXPECT_THAT(message(of("x", {2, 4}, {"a", "b"})),
              HasSubstr("'x' of training samples is f32[3], of test samples f32[4]"));
  EXPECT_THAT(message(of("z", {2, 3}, {"a", "b"})), HasSubstr("test samples have 'z', training samples not"));
  EXPECT_THAT(message(of("x", {2, 3}, {"a", "c"})), HasSubstr("the classes a, b, of test samples a, c"));
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "sources-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string picture(const std::string& name, const graph::Dims& dims, double value) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    EXPECT_TRUE(io::save_png(path, Tensor::full(DType::kU8, dims, value)).ok());
    return path;
  }
  // Elements of u8, the format of MNIST's files.
  std::string idx(const std::string& name, const std::vector<unsigned char>& dims,
                  const std::vector<unsigned char>& bytes) {
    std::ofstream out(folder_ / name, std::ios::binary);
    for (const char c : {'\0', '\0', '\b', static_cast<char>(dims.size())}) out.put(c);
    for (const unsigned char size : dims) out.write("\0\0\0", 3).put(static_cast<char>(size));
    for (const unsigned char byte : bytes) out.put(static_cast<char>(byte));
    return folder_ / name;
  }
  fs::path folder_;
};

TEST_F(Files, IdxAndItsKindOfInput) {
  const Params params = {{"train_images", idx("a", {4, 1, 2}, {0, 51, 102, 153, 0, 51, 102, 153})},
                         {"train_labels", idx("b", {4}, {0, 2, 9, 1})},
                         {"test_images", idx("c", {1, 1, 2}, {255, 0})},
                         {"test_labels", idx("d", {1}, {1})},
                         {"class_names", "hat, coat,shoe"},
                         {"ignore_index", "9"},
                         {"validation_fraction", "0"}};
  const auto splits = open_dataset("idx", params);
  ASSERT_TRUE(splits.ok()) << splits.status().to_string();
  const Field& y = *splits->train->find("y");
  EXPECT_THAT(y.class_names, ElementsAre("hat", "coat", "shoe"));
  EXPECT_EQ(y.ignored, 9);
  // Pixels 0, 0.2, 0.4, 0.6 twice: mean 0.3, deviation sqrt(0.05).
  const auto expected = [](double raw) { return (raw / 255 - 0.3) / std::sqrt(0.05); };
  EXPECT_NEAR(splits->test->read(all_rows(1))->at("x").at(0), expected(255), 1e-5);
  Params unnamed = params;
  unnamed.erase("class_names");
  EXPECT_THAT(open_dataset("idx", unnamed)->train->find("y")->class_names, ElementsAre("0", "1", "2"));

  const std::string spec = splits->train->input_spec();
  const auto read = [&](const Input& in) { return in.data->read(all_rows(in.data->size())).value().at("x"); };
  const auto of_idx = open_input(spec, idx("e", {2, 1, 2}, {0, 51, 102, 153}));
  ASSERT_TRUE(of_idx.ok()) << of_idx.status().to_string();
  EXPECT_THAT(of_idx->labels, ElementsAre("0", "1"));
  EXPECT_EQ(of_idx->label_name, "row");
  EXPECT_NEAR(read(*of_idx).at(3), expected(153), 1e-5);
  EXPECT_TRUE(of_idx->data->targets().empty());
  const std::string file = picture("f/p.png", {1, 1, 2}, 51);
  for (const std::string& path : {file, (folder_ / "f").string()}) {
    const auto of_picture = open_input(spec, path);
    ASSERT_TRUE(of_picture.ok()) << of_picture.status().to_string();
    EXPECT_THAT(of_picture->labels, ElementsAre(file));
    EXPECT_EQ(of_picture->label_name, "file");
    EXPECT_NEAR(read(*of_picture).at(1), expected(51), 1e-5);
  }
  EXPECT_THAT(
      open_input(spec, picture("q.png", {1, 2, 2}, 0)).status().message(),
      HasSubstr("q.png': expected a picture of [channels,height,width] [1,1,2], got [1,2,2]; resize or convert"));
  EXPECT_THAT(open_input(spec, idx("g", {1, 2, 2}, {0, 0, 0, 0})).status().message(),
              HasSubstr("expected images of [channels,height,width] [1,1,2], got [1,2,2]"));
  EXPECT_THAT(open_input(spec, idx("h", {1}, {0})).status().message(), HasSubstr("expected u8 images"));
  std::ofstream(folder_ / "text.txt") << "no picture";
  EXPECT_THAT(open_input(spec, folder_ / "text.txt").status().message(),
              HasSubstr("neither a JPEG nor a PNG nor a WebP"));
  EXPECT_EQ(open_input(spec, folder_ / "none").status().code(), ErrorCode::kNotFound);
}

TEST_F(Files, ImageFolderAndItsKindOfInput) {
  for (int i = 0; i < 4; ++i) {
    picture("train/cat/" + std::to_string(i) + ".png", {1, 4, 6}, 51);
    picture("train/dog/" + std::to_string(i) + ".png", {1, 4, 4}, 153);
  }
  picture("test/cat/a.png", {1, 4, 4}, 255);
  picture("test/dog/a.png", {1, 4, 4}, 0);
  const auto splits = open_dataset("image-folder", {{"folder", folder_}, {"size", "4"}, {"validation_fraction", "0"}});
  ASSERT_TRUE(splits.ok()) << splits.status().to_string();
  EXPECT_THAT(splits->train->find("y")->class_names, ElementsAre("cat", "dog"));
  EXPECT_THAT(labels_of(splits->train), ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_EQ(splits->test->files().size(), 2u);
  // Half of the pixels 0.2, half of them 0.6: mean 0.4, deviation 0.2.
  EXPECT_THAT(values(splits->test->read(std::vector<int64_t>{0})->at("x")), Each(::testing::DoubleNear(3, 1e-5)));

  const std::string spec = splits->train->input_spec();
  const std::string a = picture("new/a.png", {3, 8, 4}, 102), b = picture("new/more/b.png", {1, 4, 4}, 153);
  picture("new/.hidden/c.png", {1, 4, 4}, 0);
  std::ofstream(folder_ / "new/notes.txt") << "none";
  const auto input = open_input(spec, folder_ / "new");
  ASSERT_TRUE(input.ok()) << input.status().to_string();
  EXPECT_THAT(input->labels, ElementsAre(a, b));
  EXPECT_EQ(input->label_name, "file");
  const Tensor x = input->data->read(all_rows(2)).value().at("x");
  EXPECT_EQ(x.dims(), (graph::Dims{2, 3, 4, 4}));
  EXPECT_NEAR(x.at(0), 0, 1e-5);
  EXPECT_NEAR(x.at(48), 1, 1e-5);
  EXPECT_THAT(open_input(spec, b)->labels, ElementsAre(b));
  fs::create_directory(folder_ / "empty");
  EXPECT_THAT(open_input(spec, folder_ / "empty").status().message(),
              HasSubstr("has no .jpg, .jpeg, .png or .webp files"));
  EXPECT_EQ(open_input(spec, folder_ / "none").status().code(), ErrorCode::kNotFound);
  // Without a part for tests, some of all; classes must be the same ones.
  const auto some = open_dataset("image-folder", {{"folder", folder_ / "train"}, {"test_fraction", "0.25"}});
  ASSERT_TRUE(some.ok()) << some.status().to_string();
  EXPECT_EQ(some->test->size(), 2);
  EXPECT_EQ(some->train->size(), 6);
  EXPECT_EQ(some->validation, nullptr) << "a tenth of six is less than one";
  fs::rename(folder_ / "test/dog", folder_ / "test/fox");
  EXPECT_THAT(open_dataset("image-folder", {{"folder", folder_}}).status().message(),
              HasSubstr("has the classes cat, fox, the training folder cat, dog"));
}

TEST_F(Files, SpecsOfInputsAreCheckedBeforeTheyAreBelieved) {
  const std::string file = picture("p.png", {1, 2, 2}, 10);
  const auto message = [&](const std::string& spec) { return open_input(spec, file).status().to_string(); };
  const std::string good = R"("source": "image-folder", "size": 2, "width": 2, "channels": 1, "field": "x")";
  EXPECT_TRUE(open_input("{" + good + "}", file).ok());
  const auto once = open_input("{" + good + R"(, "fields": {"x": {"scale": 2, "mean": [1], "stddev": [0.5]}}})", file);
  ASSERT_TRUE(once.ok()) << once.status().to_string();
  EXPECT_THAT(values(once->data->read(all_rows(1))->at("x")), Each(38));
  EXPECT_THAT(message(""), HasSubstr("learnt from arrays"));
  EXPECT_THAT(message("{"), HasSubstr("no JSON object"));
  EXPECT_THAT(message("[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(message("{}"), HasSubstr("\"source\" of an input spec is missing, expected a text"));
  EXPECT_THAT(message(R"({"source": "image-folde"})"), HasSubstr("did you mean 'image-folder'?"));
  EXPECT_THAT(message(R"({"source": "image-folder", "field": "x", "size": 2, "width": 2, "channels": 1e9})"),
              HasSubstr("\"channels\" of an input spec is 1000000000.0, expected a number from 1 to 16384"));
  EXPECT_THAT(message("{" + good + R"(, "fields": [1]})"), HasSubstr("\"fields\" of an input spec is no object"));
  EXPECT_THAT(message("{" + good + R"(, "fields": {"z": {}}})"), HasSubstr("input 'z' isn't among the inputs"));
  EXPECT_THAT(message("{" + good + R"(, "fields": {"x": 1}})"), HasSubstr("'x' of an input spec lacks a scale"));
  EXPECT_THAT(message("{" + good + R"(, "fields": {"x": {"scale": 1, "mean": ["a"]}}})"), HasSubstr("mean"));
  EXPECT_THAT(message("{" + good + R"(, "fields": {"x": {"scale": 1, "stddev": [0]}}})"),
              HasSubstr("stddev[0] of 'x' is 0"));
  register_source(numbers());
  EXPECT_THAT(message(R"({"source": "test-numbers"})"), HasSubstr("data of 'test-numbers' come as arrays only"));
}

}  // namespace
}  // namespace deepseek::data
