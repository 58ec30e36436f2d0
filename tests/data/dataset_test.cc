// Normalisation by hand arithmetic, views, and each fault of a data set with its message.
#include "data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/png.h"

namespace deepseek::data {
namespace {

using graph::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Field input(std::string name, Normalisation n = {}) {
  Field f;
  f.name = std::move(name);
  f.normalisation = std::move(n);
  return f;
}
Field target(std::string name, std::vector<std::string> classes = {}, std::optional<int64_t> ignored = {}) {
  Field f;
  f.name = std::move(name);
  f.role = Role::kTarget;
  f.class_names = std::move(classes);
  f.ignored = ignored;
  return f;
}
Tensor tensor(DType dtype, graph::Dims dims, const std::vector<double>& values) {
  return Tensor::from<double>(dtype, std::move(dims), values);
}
std::vector<double> values(const Tensor& t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.num_elements(); ++i) out.push_back(t.at(i));
  return out;
}

// Pixels 0, 30, ..., 210 in two images of two channels.
Batch two_images() {
  return {{"x", tensor(DType::kU8, {2, 2, 1, 2}, {0, 30, 60, 90, 120, 150, 180, 210})},
          {"y", tensor(DType::kI64, {2}, {1, 0})}};
}
const Normalisation kOfImages = {1.0 / 255.0, {0.25, 0.5}, {0.5, 2.0}};

DatasetPtr images(Normalisation n = kOfImages) {
  return ArrayDataset::create({input("x", std::move(n)), target("y", {"a", "b"})}, two_images()).value();
}

// Three samples: a picture-like u8, a vector and a token of each; a label and a number.
Batch several() {
  return {{"image", tensor(DType::kU8, {3, 2}, {0, 10, 20, 30, 40, 50})},
          {"vector", tensor(DType::kF32, {3, 2}, {1, 2, 3, 4, 5, 6})},
          {"token", tensor(DType::kI64, {3}, {7, 8, 9})},
          {"kind", tensor(DType::kI64, {3}, {0, 1, -1})},
          {"size", tensor(DType::kF32, {3, 1}, {0.5, 1.5, 2.5})}};
}
DatasetPtr of_several() {
  return ArrayDataset::create({input("image", {0.1, {1}, {2}}), input("vector"), input("token"),
                               target("kind", {"a", "b"}, -1), target("size")},
                              several())
      .value();
}

TEST(Dataset, ReadsNormalisedRowsInTheOrderAsked) {
  const DatasetPtr d = images();
  ASSERT_TRUE(d->validate().ok()) << d->validate().to_string();
  const int64_t order[] = {1, 0, 1};
  const Batch b = d->read(order).value();
  EXPECT_EQ(b.at("x").type(), (graph::TensorType{DType::kF32, {3, 2, 1, 2}}));
  EXPECT_NEAR(b.at("x").at(0), (120 / 255.0 - 0.25) / 0.5, 1e-6);
  EXPECT_NEAR(b.at("x").at(3), (210 / 255.0 - 0.5) / 2.0, 1e-6);
  EXPECT_NEAR(b.at("x").at(4), (0 - 0.25) / 0.5, 1e-6);
  EXPECT_THAT(values(b.at("y")), ElementsAre(0, 1, 0));
  const Batch raw = d->read_raw(order).value();
  EXPECT_EQ(raw.at("x").type(), (graph::TensorType{DType::kU8, {3, 2, 1, 2}}));
  EXPECT_THAT(values(raw.at("x")), ElementsAre(120, 150, 180, 210, 0, 30, 60, 90, 120, 150, 180, 210));
}

TEST(Dataset, SeveralInputsAndTargets) {
  const DatasetPtr d = of_several();
  ASSERT_TRUE(d->validate().ok()) << d->validate().to_string();
  EXPECT_EQ(d->inputs().size(), 3u);
  EXPECT_EQ(d->targets()[1]->name, "size");
  EXPECT_EQ(d->find("none"), nullptr);
  const int64_t order[] = {2, 0};
  const Batch b = d->read(order).value();
  const std::vector<double> image = values(b.at("image"));  // (raw * 0.1 - 1) / 2
  const std::vector<double> expected = {1.5, 2, -0.5, 0};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(image[i], expected[i], 1e-6);
  EXPECT_THAT(values(b.at("vector")), ElementsAre(5, 6, 1, 2));
  EXPECT_THAT(values(b.at("token")), ElementsAre(9, 7));
  EXPECT_THAT(values(b.at("kind")), ElementsAre(-1, 0));
  EXPECT_THAT(values(b.at("size")), ElementsAre(2.5, 0.5));
  const BatchType type = d->type_of(b).value();
  EXPECT_EQ(to_string(type), "image f32[2,2], vector f32[2,2], token i64[2] -> kind i64[2], size f32[2,1]");
  for (const Field& f : d->fields()) EXPECT_EQ(f.batch_type(2), b.at(f.name).type()) << f.name;
  EXPECT_EQ(d->counted(b), 1);
  const Batch labels = d->read_targets(order).value();
  EXPECT_EQ(labels.size(), 2u);
  EXPECT_THAT(values(labels.at("kind")), ElementsAre(-1, 0));
}

TEST(Dataset, NormalisesPartsOfABatch) {
  const DatasetPtr d = of_several();
  const Batch b = d->normalise({{"image", tensor(DType::kU8, {1, 2}, {10, 30})}}).value();
  EXPECT_EQ(b.size(), 1u);
  EXPECT_THAT(values(b.at("image")), ElementsAre(0, 1));
  EXPECT_THAT(d->normalise({{"imgae", Tensor()}}).status().message(), HasSubstr("has no field 'imgae'"));
  EXPECT_THAT(d->normalise({{"image", tensor(DType::kF32, {1, 2}, {1, 2})}}).status().message(),
              HasSubstr("'image' is f32[1,2], expected raw samples, u8[2] each"));
  EXPECT_THAT(d->type_of(b).status().message(), HasSubstr("the batch lacks 'vector'"));
}

TEST(Dataset, CountsSamplesWhereThereAreNotLabelsOfOneField) {
  const auto count = [](std::vector<Field> fields, const Batch& b) {
    return ArrayDataset::create(std::move(fields), b).value()->counted(b);
  };
  const Tensor x = tensor(DType::kF32, {2, 1}, {0, 0}), pixels = tensor(DType::kI64, {2, 2}, {0, 9, 1, 9});
  EXPECT_EQ(count({input("x")}, {{"x", x}}), 2);
  EXPECT_EQ(count({input("x"), target("y", {"a", "b"}, 9)}, {{"x", x}, {"y", pixels}}), 2);
  EXPECT_EQ(count({input("x"), target("y", {"a", "b"})}, {{"x", x}, {"y", pixels}}), 4);
  EXPECT_EQ(count({input("x"), target("y", {"a", "b"}, 9), target("z", {"a", "b"}, 9)},
                  {{"x", x}, {"y", pixels}, {"z", pixels}}),
            2);
}

TEST(Dataset, IndexOutOfRangeIsNamed) {
  const int64_t order[] = {0, 2};
  EXPECT_THAT(images()->read(order).status().message(), HasSubstr("sample index 2 is out of range"));
  EXPECT_THAT(DatasetView::subset(images(), order).status().message(), HasSubstr("sample index 2 is out of range"));
}

std::string fault(std::vector<Field> fields, Batch tensors) {
  const auto d = ArrayDataset::create(std::move(fields), std::move(tensors));
  return d.ok() ? (*d)->validate().message() : d.status().message();
}

TEST(Dataset, FaultsAreNamedWithTheirFieldAndSample) {
  const Field x = input("x"), y = target("y", {"a", "b"});
  const Batch good = two_images();
  const auto with = [&](const std::string& name, Tensor t) {
    Batch b = good;
    b[name] = std::move(t);
    return b;
  };
  EXPECT_EQ(fault({x, y}, good), "");
  EXPECT_EQ(fault({x}, {{"x", good.at("x")}}), "");
  EXPECT_THAT(fault({x, y}, with("y", tensor(DType::kI64, {2}, {0, 2}))),
              HasSubstr("'y': label of sample 1 is 2, expected 0 to 1 (2 classes)"));
  EXPECT_THAT(fault({x, target("y", {"a", "b"}, 255)}, with("y", tensor(DType::kI64, {2}, {255, -1}))),
              HasSubstr("label of sample 1 is -1, expected 0 to 1 (2 classes) or 255, which is ignored"));
  EXPECT_THAT(fault({x, y}, with("x", tensor(DType::kF32, {2, 3}, {0, 0, 0, 0, NAN, 0}))),
              HasSubstr("'x' of sample 1 holds nan at position 1, expected finite numbers"));
  EXPECT_THAT(fault({x, target("y")}, with("y", tensor(DType::kF32, {2}, {INFINITY, 0}))),
              HasSubstr("'y' of sample 0 holds inf at position 0"));
  EXPECT_THAT(fault({x, y}, with("y", tensor(DType::kI64, {3}, {0, 0, 0}))),
              HasSubstr("'x' has 2 samples but 'y' 3; the files do not belong together"));
  EXPECT_THAT(fault({x}, {{"x", Tensor(DType::kU8, {0, 1, 2, 2})}}),
              HasSubstr("the data set is empty; check the path and the split"));
  EXPECT_THAT(fault({x}, {{"x", Tensor(DType::kU8, {2, 0})}}), HasSubstr("samples of 'x' have no elements"));
  EXPECT_THAT(fault({x}, {{"x", Tensor::scalar(DType::kF32, 1)}}), HasSubstr("expected a first axis of samples"));
  EXPECT_THAT(fault({x, y}, {{"x", good.at("x")}}), HasSubstr("the field 'y' has no tensor"));
  EXPECT_THAT(fault({x}, good), HasSubstr("the tensor 'y' has no field"));
  EXPECT_THAT(fault({}, {}), HasSubstr("lacks inputs"));
  EXPECT_THAT(fault({y}, {{"y", good.at("y")}}), HasSubstr("lacks inputs"));
  EXPECT_THAT(fault({x, x}, {{"x", good.at("x")}}), HasSubstr("two fields are named 'x'"));
  for (const char* name : {"", "a/b", "<a", "a>"})
    EXPECT_THAT(fault({input(name)}, {{name, good.at("x")}}), HasSubstr("without '/', '<' and '>'"));
  EXPECT_THAT(fault({x, target("y")}, good), HasSubstr("the class labels 'y' need class_names"));
  EXPECT_THAT(fault({x}, {{"x", Tensor::zeros(DType::kF64, {2, 2})}}), HasSubstr("expected inputs of u8, f32 or i64"));
  EXPECT_THAT(fault({x, y}, with("y", Tensor::zeros(DType::kU8, {2}))), HasSubstr("expected targets of i64"));
  const auto normalised = [&](Normalisation n) { return fault({input("x", std::move(n)), y}, good); };
  EXPECT_THAT(normalised({1, {}, {0.0}}), HasSubstr("stddev[0] of 'x' is 0"));
  EXPECT_THAT(normalised({1, {}, {1, 1, 1}}), HasSubstr("stddev of 'x' has 3 values"));
  EXPECT_THAT(normalised({1, {NAN}, {}}), HasSubstr("mean[0] of 'x' is nan"));
  EXPECT_THAT(normalised({0, {}, {}}), HasSubstr("scale of 'x' is 0"));
}

TEST(Dataset, FittedNormalisationGivesZeroMeanUnitDeviation) {
  const DatasetPtr d = fit_normalisation(images({1 / 255.0, {7}, {7}})).value();
  // Channel 0: 0, 30, 120, 150; channel 1 is 60 more. Mean 75, deviation sqrt((75² + 45² + 45² + 75²) / 4).
  const Normalisation& n = d->find("x")->normalisation;
  EXPECT_NEAR(n.mean[0], 75 / 255.0, 1e-12);
  EXPECT_NEAR(n.mean[1], 135 / 255.0, 1e-12);
  EXPECT_NEAR(n.stddev[0], std::sqrt((75.0 * 75 + 45 * 45) / 2) / 255, 1e-12);
  EXPECT_NEAR(n.stddev[1], n.stddev[0], 1e-12);
  const Tensor x = d->read(all_rows(2)).value().at("x");
  for (int64_t c = 0; c < 2; ++c) {
    double sum = 0, squares = 0;
    for (int64_t i : {c * 2, c * 2 + 1, 4 + c * 2, 4 + c * 2 + 1}) sum += x.at(i), squares += x.at(i) * x.at(i);
    EXPECT_NEAR(sum, 0, 1e-5);
    EXPECT_NEAR(squares / 4, 1, 1e-5);
  }
}

TEST(Dataset, FitsEachInputAndSeesAllParts) {
  // 40,000 rows of 2 KiB are read in several parts: the mean of 0, ..., n - 1 is (n - 1) / 2, its variance (n² - 1) / 12.
  const int64_t n = 40000;
  Tensor wide(DType::kF32, {n, 512}), token(DType::kI64, {n});
  for (int64_t i = 0; i < n; ++i) {
    std::fill_n(wide.as<float>() + i * 512, 512, static_cast<float>(i));
    token.as<int64_t>()[i] = i;
  }
  const DatasetPtr d =
      ArrayDataset::create({input("wide"), input("token")}, {{"wide", wide}, {"token", token}}).value();
  const DatasetPtr fitted = fit_normalisation(d).value();
  const Normalisation& of = fitted->find("wide")->normalisation;
  ASSERT_EQ(of.mean.size(), 512u);
  EXPECT_DOUBLE_EQ(of.mean[511], (n - 1) / 2.0);
  EXPECT_NEAR(of.stddev[0], std::sqrt((static_cast<double>(n) * n - 1) / 12), 1e-6);
  EXPECT_EQ(fitted->find("token")->normalisation, Normalisation());
  wide.as<float>()[(n - 1) * 512 + 3] = NAN;  // views look at the last part too, and name their own sample
  const std::vector<int64_t> some = {5, n - 1};
  EXPECT_THAT(DatasetView::subset(d, some).value()->validate().message(),
              HasSubstr("'wide' of sample 1 holds nan at position 3"));
  EXPECT_THAT(fit_normalisation(d).status().message(), HasSubstr("'wide' of sample 39999 holds nan at position 3"));
  // Nothing to fit: the same data set.
  const DatasetPtr tokens = ArrayDataset::create({input("token")}, {{"token", token}}).value();
  EXPECT_EQ(fit_normalisation(tokens).value(), tokens);
}

TEST(DatasetView, ViewsOfViewsAreFlatAndReadTheirOwnRows) {
  const DatasetPtr base = of_several();
  const int64_t backwards[] = {2, 1, 0}, last_two[] = {2, 1, 2};
  const DatasetPtr outer =
      DatasetView::subset(DatasetView::subset(base, backwards).value(), last_two).value();  // 0, 1, 0 of the base
  EXPECT_EQ(outer->size(), 3);
  EXPECT_EQ(dynamic_cast<const DatasetView&>(*outer).base(), base);
  EXPECT_THAT(*dynamic_cast<const DatasetView&>(*outer).indices(), ElementsAre(0, 1, 0));
  const int64_t order[] = {1, 2};
  EXPECT_THAT(values(outer->read_raw(order).value().at("token")), ElementsAre(8, 7));
  EXPECT_THAT(values(outer->read_targets(order).value().at("size")), ElementsAre(1.5, 0.5));
  // Other fields on top: fewer, another normalisation, other ignored labels.
  Field image = *base->find("image"), kind = *base->find("kind");
  image.normalisation = {1, {}, {10}};
  kind.ignored = std::nullopt;
  const DatasetPtr fewer = DatasetView::with_fields(outer, {kind, image}).value();
  EXPECT_EQ(fewer->size(), 3);
  EXPECT_TRUE(fewer->validate().ok()) << fewer->validate().to_string();  // the label of -1 isn't among its samples
  const Batch b = fewer->read(order).value();
  EXPECT_EQ(b.size(), 2u);
  EXPECT_THAT(values(b.at("image")), ElementsAre(2, 3, 0, 1));
  EXPECT_EQ(to_string(fewer->type_of(b).value()), "image f32[2,2] -> kind i64[2]");
  EXPECT_THAT(DatasetView::with_fields(base, {image, kind}).value()->validate().message(),
              HasSubstr("'kind': label of sample 2 is -1"));
  EXPECT_EQ(DatasetView::all(fewer)->fields().size(), 2u);
  EXPECT_EQ(DatasetView::all(fewer)->size(), 3);
  EXPECT_THAT(DatasetView::with_fields(base, {input("imge")}).status().message(),
              HasSubstr("no field 'imge'; did you mean 'image'?"));
  image.sample.dims = {3};
  EXPECT_THAT(DatasetView::with_fields(base, {image}).status().message(),
              HasSubstr("'image' cannot become u8[3] per sample, the data set has u8[2]"));
}

TEST(DatasetView, ChecksumsTellSamplesApart) {
  const DatasetPtr base = of_several();
  const int64_t some[] = {0, 1}, others[] = {1, 0};
  const auto of = [&](std::span<const int64_t> rows) {
    return DatasetView::subset(base, rows).value()->checksum().value();
  };
  EXPECT_EQ(of(some), of(some));
  EXPECT_NE(of(some), of(others));
  EXPECT_EQ(of(all_rows(3)), base->checksum().value());
  EXPECT_NE(images()->checksum().value(), base->checksum().value());
}

// What others implement: rows computed as they are asked for.
class Squares final : public Dataset {
 public:
  explicit Squares(std::vector<Field> fields) : Dataset(std::move(fields)) {}
  int64_t size() const override { return 10; }
  mutable int reads = 0;

 protected:
  Result<Batch> rows(std::span<const int64_t> indices) const override {
    ++reads;
    Tensor x(DType::kF32, {static_cast<int64_t>(indices.size()), 1 + indices[0]});
    for (int64_t i = 0; i < x.num_elements(); ++i) x.set(i, static_cast<double>(indices[0] * indices[0]));
    return Batch{{"x", x}, {"more", x}};
  }
};

TEST(Dataset, OthersImplementRowsAlone) {
  Field x = input("x");
  x.sample = {DType::kF32, {-1}};
  const auto d = std::make_shared<Squares>(std::vector<Field>{x});
  ASSERT_TRUE(d->validate().ok()) << d->validate().to_string();
  EXPECT_EQ(d->reads, 1);
  ASSERT_TRUE(d->validate().ok());
  EXPECT_EQ(d->reads, 1) << "what has been read once isn't read again to be checked";
  const int64_t order[] = {3};
  const Batch b = d->read(order).value();
  EXPECT_EQ(b.size(), 1u);
  EXPECT_THAT(values(b.at("x")), ElementsAre(9, 9, 9, 9));
  EXPECT_EQ(d->input_spec(), "");
  EXPECT_THAT(fit_normalisation(d).status().message(), HasSubstr("no fixed number of channels"));
  x.sample.dims = {4, -1};
  EXPECT_THAT(std::make_shared<Squares>(std::vector<Field>{x})->read(order).status().message(),
              HasSubstr("'x' of 1 samples is f32[1,4], expected f32[1,4,-1]"));
  x.name = "y";
  EXPECT_THAT(std::make_shared<Squares>(std::vector<Field>{x})->read(order).status().message(),
              HasSubstr("a batch lacks 'y'"));
}

class Pictures : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "pictures-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    for (int i = 0; i < 3; ++i) {
      files_.push_back(folder_ / (std::to_string(i) + ".png"));
      ASSERT_TRUE(io::save_png(files_.back(), Tensor::full(DType::kU8, {1, 2, 3}, 50 * i)).ok());
    }
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
  std::vector<std::string> files_;
};

TEST_F(Pictures, AreDecodedWhenTheyAreRead) {
  const DatasetPtr d = PictureDataset::create(input("x", {0.1, {}, {}}), files_, {1, 2, 2}, {target("y", {"a", "b"})},
                                              {{"y", tensor(DType::kI64, {3}, {0, 1, 1})}})
                           .value();
  ASSERT_TRUE(d->validate().ok()) << d->validate().to_string();
  const int64_t order[] = {2, 1};
  const Batch b = d->read(order).value();
  EXPECT_THAT(values(b.at("x")), ElementsAre(10, 10, 10, 10, 5, 5, 5, 5));
  EXPECT_THAT(values(b.at("y")), ElementsAre(1, 1));
  const DatasetPtr part = DatasetView::subset(d, order).value();
  EXPECT_THAT(part->files(), ElementsAre(files_[2], files_[1]));
  EXPECT_NE(part->checksum().value(), d->checksum().value());
  EXPECT_NEAR(fit_normalisation(part).value()->find("x")->normalisation.mean[0], 7.5, 1e-12);
  // What is not decoded does not fail; what is, is named.
  std::filesystem::resize_file(files_[2], 20);
  EXPECT_TRUE(d->validate().ok());
  EXPECT_THAT(values(d->read_targets(order).value().at("y")), ElementsAre(1, 1));
  EXPECT_THAT(d->read(order).status().message(), HasSubstr(files_[2]));
}

TEST_F(Pictures, SayHowFilesBecomeInputs) {
  const DatasetPtr d =
      PictureDataset::create(input("photo", {1 / 255.0, {0.1}, {0.3}}), files_, {3, 4, 5}, {}, {}).value();
  const auto spec = [](const Dataset& of) { return nlohmann::json::parse(of.input_spec()); };
  const nlohmann::json expected = {{"source", "image-folder"},
                                   {"size", 4},
                                   {"width", 5},
                                   {"channels", 3},
                                   {"field", "photo"},
                                   {"fields", {{"photo", {{"scale", 1 / 255.0}, {"mean", {0.1}}, {"stddev", {0.3}}}}}}};
  EXPECT_EQ(spec(*d), expected);
  // A view hands out its own normalisation, and that of its own inputs alone.
  Field photo = *d->find("photo");
  photo.normalisation.mean = {1.0 / 3, 2.0 / 7, 1e-300};
  const DatasetPtr view = DatasetView::with_fields(d, {photo}).value();
  EXPECT_EQ(spec(*view)["fields"]["photo"]["mean"].get<std::vector<double>>(), photo.normalisation.mean);
  const DatasetPtr arrays = ArrayDataset::create({input("a"), input("b", {2, {}, {}}), target("y")},
                                                 {{"a", tensor(DType::kI64, {1}, {1})},
                                                  {"b", tensor(DType::kF32, {1}, {1})},
                                                  {"y", tensor(DType::kF32, {1}, {1})}},
                                                 R"({"source": "s", "k": [1]})")
                                .value();
  EXPECT_EQ(arrays->input_spec(),
            R"({"source":"s","k":[1],"fields":{"a":{},"b":{"scale":2.0,"mean":[],"stddev":[]}}})");
  EXPECT_EQ(spec(*DatasetView::with_fields(arrays, {*arrays->find("a")}).value())["fields"].size(), 1u);
}

TEST_F(Pictures, FaultsAreNamed) {
  const auto status = [&](graph::Dims image, std::vector<Field> fields, Batch tensors) {
    const auto d = PictureDataset::create(input("x"), files_, std::move(image), std::move(fields), std::move(tensors));
    return d.ok() ? (*d)->validate().message() : d.status().message();
  };
  EXPECT_THAT(status({2, 4, 4}, {}, {}), HasSubstr("pictures are to become [2,4,4], expected [1 or 3, height, width]"));
  EXPECT_THAT(status({1, 4, 4}, {target("y")}, {{"y", tensor(DType::kF32, {2}, {0, 0})}}),
              HasSubstr("there are 3 files but 2 samples of 'y'"));
  EXPECT_THAT(status({1, 4, 4}, {input("z")}, {{"z", tensor(DType::kF32, {3}, {0, 0, 0})}}),
              HasSubstr("'z' is an input beside pictures on disk"));
  EXPECT_THAT(status({1, 4, 4}, {target("y", {"a"})}, {{"y", tensor(DType::kI64, {3}, {0, 0, 1})}}),
              HasSubstr("label of sample 2 is 1"));
  files_.clear();
  EXPECT_THAT(status({1, 4, 4}, {}, {}), HasSubstr("is empty"));
}

}  // namespace
}  // namespace deepseek::data
