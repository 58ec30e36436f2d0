// Batches are a function of (options, epoch, index): shuffles are permutations, streams equal direct reads.
#include "data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "base/random.h"
#include "base/threads.h"

namespace deepseek::data {
namespace {

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

// Sample i is an 8x8 image of distinct pixels, its target i.
DatasetPtr numbered(int64_t n, Normalisation normalisation = {}) {
  graph::Tensor x(DType::kF32, {n, 1, 8, 8}), y(DType::kF32, {n});
  for (int64_t i = 0; i < n * 64; ++i) x.set(i, static_cast<double>(i + 1));
  for (int64_t i = 0; i < n; ++i) y.set(i, static_cast<double>(i));
  return ArrayDataset::create({input("x", std::move(normalisation)), target("y")}, {{"x", x}, {"y", y}}).value();
}
// The batch's tensors; empty ones where there is an error.
std::pair<graph::Tensor, graph::Tensor> xy(const Result<Batch>& batch) {
  EXPECT_TRUE(batch.ok()) << batch.status().to_string();
  if (!batch.ok()) return {};
  return {batch->at("x"), batch->at("y")};
}

bool same(const graph::Tensor& a, const graph::Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.data(), b.data(), a.num_bytes()) == 0;
}

TEST(Random, SplitMix64MatchesItsReferenceOutput) {
  EXPECT_EQ(splitmix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(splitmix64(0x9e3779b97f4a7c15ull), 0x6e789e6aa1b965f4ull);
}

TEST(Loader, EveryEpochIsAnotherPermutation) {
  const DatasetPtr d = numbered(23);
  const auto loader = DataLoader::create(d, {.batch_size = 5, .shuffle = true, .seed = 3});
  ASSERT_TRUE(loader.ok());
  EXPECT_EQ(loader->num_batches(), 5);
  std::vector<std::vector<double>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<double> seen;
    for (int64_t i = 0; i < 5; ++i) {
      const auto [x, y] = xy(loader->batch(epoch, i));
      ASSERT_EQ(y.num_elements(), i < 4 ? 5 : 3);
      for (int64_t k = 0; k < y.num_elements(); ++k) {
        seen.push_back(y.at(k));
        EXPECT_EQ(x.at(k * 64), y.at(k) * 64 + 1) << "inputs and targets parted";
      }
    }
    EXPECT_EQ(std::set<double>(seen.begin(), seen.end()).size(), 23u);
    epochs.push_back(seen);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

std::shared_ptr<const ImageAugmenter> changing(std::vector<std::string> methods, std::vector<double> probabilities) {
  return std::make_shared<const ImageAugmenter>(
      ImageAugmenter::create({.methods = std::move(methods), .probabilities = std::move(probabilities)}).value());
}

TEST(Loader, StreamEqualsDirectReadsForAnyThreadCount) {
  const DatasetPtr d = numbered(150);
  const LoaderOptions options{
      .batch_size = 40, .shuffle = true, .seed = 5, .augmenter = changing({"flip", "crop"}, {0.5, 1})};
  const auto loader = DataLoader::create(d, options), other = DataLoader::create(d, options);
  const int threads = num_threads();
  ASSERT_TRUE(set_num_threads(1).ok());
  ASSERT_TRUE(other->batch(9, 0).ok());  // history must not matter
  BatchStream stream(*loader, 2, 1);
  for (int64_t i = 1; i < 4; ++i) {
    const Result<std::optional<Batch>> more = stream.next();
    ASSERT_TRUE(more.ok() && *more);
    ASSERT_TRUE(set_num_threads(3).ok());
    const auto [x, y] = xy(other->batch(2, i));
    EXPECT_TRUE(same(x, (*more)->at("x")) && same(y, (*more)->at("y"))) << i;
  }
  ASSERT_TRUE(set_num_threads(threads).ok());
  EXPECT_FALSE(stream.next()->has_value());
  EXPECT_FALSE(stream.next()->has_value());
}

TEST(Loader, FlipMirrorsAboutHalfOfTheImages) {
  const DatasetPtr d = numbered(200);
  const auto loader = DataLoader::create(d, {.batch_size = 200, .augmenter = changing({"flip"}, {0.5})});
  const graph::Tensor x = loader->batch(0, 0)->at("x"), from = d->read(all_rows(200))->at("x");
  int flipped = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const bool mirrored = x.at(i * 64) != from.at(i * 64);
    flipped += mirrored;
    for (int64_t row = 0; row < 8; ++row) {
      for (int64_t c = 0; c < 8; ++c) {
        ASSERT_EQ(x.at(i * 64 + row * 8 + c), from.at(i * 64 + row * 8 + (mirrored ? 7 - c : c)));
      }
    }
  }
  EXPECT_GT(flipped, 70);
  EXPECT_LT(flipped, 130);
}

TEST(Loader, CropMovesAndFillsWithNormalisedZero) {
  const DatasetPtr d = numbered(100, {1, {2.0}, {4.0}});
  const auto loader = DataLoader::create(d, {.batch_size = 100, .augmenter = changing({"flip", "crop"}, {0.5, 1})});
  graph::Tensor x;
  std::set<int64_t> filled;
  for (int64_t k = 0; k < 2000; ++k) {  // in 1 of 81 nothing moves
    const int64_t i = k % 100;
    if (i == 0) x = xy(loader->batch(k / 100, 0)).first;
    int64_t n = 0;
    for (int64_t p = 0; p < 64; ++p) {
      const double raw = x.at(i * 64 + p) * 4.0 + 2.0;
      n += raw == 0.0;
      EXPECT_TRUE(raw == 0.0 || (raw >= static_cast<double>(i * 64 + 1) && raw <= static_cast<double>(i * 64 + 64)));
    }
    filled.insert(n);
  }
  EXPECT_EQ(*filled.begin(), 0);         // some stay where they are
  EXPECT_LE(*filled.rbegin(), 64 - 16);  // 4x4 pixels of the image always stay
  EXPECT_GT(filled.size(), 5u);
}

TEST(Loader, DropLastAndWrongOptions) {
  const DatasetPtr d = numbered(10);
  EXPECT_EQ(DataLoader::create(d, {.batch_size = 4, .drop_last = true})->num_batches(), 2);
  EXPECT_EQ(DataLoader::create(d, {.batch_size = INT64_MAX})->num_batches(), 1);
  EXPECT_THAT(DataLoader::create(d, {.batch_size = 0}).status().message(), HasSubstr("batch_size is 0"));
  EXPECT_THAT(DataLoader::create(d, {.batch_size = 11, .drop_last = true}).status().message(), HasSubstr("no batch"));
  EXPECT_THAT(DataLoader::create(d, {})->batch(0, 1).status().message(), HasSubstr("an epoch has 1 batches"));
  EXPECT_THAT(DataLoader::create(d, {})->batch(-1, 0).status().message(), HasSubstr("epoch is -1"));
  EXPECT_THAT(DataLoader::create(nullptr, {}).status().message(), HasSubstr("no data set"));
}

graph::Tensor pixels(int64_t n) {
  graph::Tensor x(DType::kU8, {n, 3, 8, 8});
  for (int64_t i = 0; i < n * 192; ++i) x.set(i, static_cast<double>((i * 37) % 256));
  return x;
}
graph::Tensor labels(int64_t n, int64_t classes) {
  graph::Tensor y(DType::kI64, {n});
  for (int64_t i = 0; i < n; ++i) y.set(i, static_cast<double>(i % classes));
  return y;
}

// Images of u8 in three classes.
DatasetPtr pictures(int64_t n) {
  return ArrayDataset::create({input("x", {1 / 255.0, {0.5}, {0.25}}), target("y", {"a", "b", "c"})},
                              {{"x", pixels(n)}, {"y", labels(n, 3)}})
      .value();
}

TEST(Loader, AugmentsRawImagesAndMixesLabelsWithinTheBatch) {
  const DatasetPtr d = pictures(20);
  const auto augmenter = std::make_shared<const ImageAugmenter>(
      ImageAugmenter::create({.methods = {"flip", "randaugment", "mixup"}, .probabilities = {0.5, 1, 1}, .seed = 7})
          .value());
  const auto loader = DataLoader::create(d, {.batch_size = 8, .shuffle = true, .augmenter = augmenter});
  ASSERT_TRUE(loader.ok()) << loader.status().to_string();
  for (int64_t b = 0; b < loader->num_batches(); ++b) {
    const auto [x, y] = xy(loader->batch(1, b));
    const int64_t n = x.dims()[0];
    EXPECT_EQ(y.type(), (graph::TensorType{DType::kF32, {n, 3}}));
    double mixed = 0;
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y.at(3 * i) + y.at(3 * i + 1) + y.at(3 * i + 2), 1, 1e-6);
      for (int64_t c = 0; c < 3; ++c) mixed += y.at(3 * i + c) > 0.01 && y.at(3 * i + c) < 0.99;
    }
    EXPECT_GT(mixed, 0);
    // Normalised after it was changed: u8 / 255 in units of the deviation.
    for (int64_t i = 0; i < x.num_elements(); ++i) ASSERT_LE(std::abs(x.at(i)), 2.0001);
    ASSERT_TRUE(set_num_threads(3).ok());
    const auto [again_x, again_y] = xy(loader->batch(1, b));
    ASSERT_TRUE(set_num_threads(2).ok());
    EXPECT_TRUE(same(x, again_x) && same(y, again_y));
    EXPECT_FALSE(same(x, xy(loader->batch(2, b)).first));
  }
}

TEST(Loader, MixesEveryFieldBySameWeights) {
  // Sample i of the vector is (i, 10 i), of the size i; of both kinds of labels, one for each of the eight samples.
  const int64_t n = 8;
  graph::Tensor vector(DType::kF32, {n, 2}), size(DType::kF32, {n, 1});
  for (int64_t i = 0; i < n; ++i) {
    vector.set(2 * i, static_cast<double>(i));
    vector.set(2 * i + 1, static_cast<double>(10 * i));
    size.set(i, static_cast<double>(i));
  }
  const std::vector<std::string> eight = {"0", "1", "2", "3", "4", "5", "6", "7"};
  const DatasetPtr d =
      ArrayDataset::create(
          {input("image", {1 / 255.0, {}, {}}), input("vector", {1, {1}, {2}}), target("kind", eight),
           target("parity", {"even", "odd"}), target("size")},
          {{"image", pixels(n)}, {"vector", vector}, {"kind", labels(n, n)}, {"parity", labels(n, 2)}, {"size", size}})
          .value();
  for (const char* method : {"mixup", "cutmix"}) {
    const auto loader =
        DataLoader::create(d, {.batch_size = n, .shuffle = true, .seed = 4, .augmenter = changing({method}, {1})});
    ASSERT_TRUE(loader.ok()) << loader.status().to_string();
    const Batch b = loader->batch(0, 0).value();
    EXPECT_EQ(to_string(d->type_of(b).value()),
              "image f32[8,3,8,8], vector f32[8,2] -> kind f32[8,8], parity f32[8,2], size f32[8,1]");
    EXPECT_EQ(d->counted(b), n);
    int mixed = 0;
    for (int64_t i = 0; i < n; ++i) {
      // The kinds tell which samples came together, and by which weights.
      double number = 0, total = 0, odd = 0;
      int parts = 0;
      for (int64_t k = 0; k < n; ++k) {
        const double weight = b.at("kind").at(i * n + k);
        total += weight, number += weight * static_cast<double>(k), odd += k % 2 == 1 ? weight : 0, parts += weight > 0;
      }
      mixed += parts == 2;
      EXPECT_LE(parts, 2);
      EXPECT_NEAR(total, 1, 1e-6);
      EXPECT_NEAR(b.at("parity").at(2 * i + 1), odd, 1e-6);
      EXPECT_NEAR(b.at("parity").at(2 * i), 1 - odd, 1e-6);
      EXPECT_NEAR(b.at("size").at(i), number, 1e-5);
      EXPECT_NEAR(b.at("vector").at(2 * i), (number - 1) / 2, 1e-5);
      EXPECT_NEAR(b.at("vector").at(2 * i + 1), (10 * number - 1) / 2, 1e-5);
    }
    EXPECT_GT(mixed, 2) << method;
  }
}

TEST(Loader, AugmentationThatDoesNotFitIsRefused) {
  const graph::Tensor x = pixels(6), y = labels(6, 3);
  const auto refused = [](std::vector<Field> fields, Batch tensors, const char* method) {
    const DatasetPtr d = ArrayDataset::create(std::move(fields), std::move(tensors)).value();
    return DataLoader::create(d, {.augmenter = changing({method}, {0.5})}).status().message();
  };
  const std::vector<std::string> three = {"a", "b", "c"};
  EXPECT_EQ(refused({input("x"), target("y", three, -1)}, {{"x", x}, {"y", y}}, "mixup"), "");
  EXPECT_THAT(refused({input("x"), target("y", {"a"})}, {{"x", x}, {"y", labels(6, 1)}}, "mixup"),
              HasSubstr("labels [N] of 2 classes or more, 'y' is i64[] per sample and has 1 classes"));
  EXPECT_THAT(refused({input("x"), target("y", three)}, {{"x", x}, {"y", y.reshaped({6, 1})}}, "cutmix"),
              HasSubstr("'y' is i64[1] per sample"));
  EXPECT_THAT(refused({input("x"), target("y", three, 2)}, {{"x", x}, {"y", y}}, "mixup"),
              HasSubstr("some of 'y' have the ignored label 2"));
  EXPECT_THAT(refused({input("x"), input("t")}, {{"x", x}, {"t", y}}, "mixup"),
              HasSubstr("inputs of u8 or f32, 't' is i64[] per sample"));
  EXPECT_EQ(refused({input("x"), input("t")}, {{"x", x}, {"t", y}}, "flip"), "");
  EXPECT_THAT(refused({input("x")}, {{"x", graph::Tensor::zeros(DType::kF32, {6, 4})}}, "flip"),
              HasSubstr("needs images [N,C,H,W] of u8 or f32, got 'x', f32[4] per sample"));
  EXPECT_THAT(refused({input("x"), input("z")}, {{"x", x}, {"z", x}}, "flip"),
              HasSubstr("one input of images, got 'x' and 'z'"));
}

// Its second batch of five cannot be read.
class Broken final : public Dataset {
 public:
  Broken()
      : Dataset({[] {
          Field x = input("x");
          x.sample = {DType::kI64, {}};
          return x;
        }()}) {}
  int64_t size() const override { return 10; }

 protected:
  Result<Batch> rows(std::span<const int64_t> indices) const override {
    if (indices[0] >= 5) return make_error(ErrorCode::kIo, "the disk is gone");
    return Batch{{"x", graph::Tensor::zeros(DType::kI64, {static_cast<int64_t>(indices.size())})}};
  }
};

TEST(BatchStream, ErrorsReachTheCallerAndStay) {
  const auto loader = DataLoader::create(std::make_shared<Broken>(), {.batch_size = 5});
  ASSERT_TRUE(loader.ok()) << loader.status().to_string();
  BatchStream stream(*loader, 0);
  EXPECT_TRUE(stream.next()->has_value());
  for (int i = 0; i < 2; ++i) {
    const auto more = stream.next();
    ASSERT_FALSE(more.ok());
    EXPECT_THAT(more.status().to_string(), HasSubstr("the disk is gone"));
    EXPECT_THAT(more.status().to_string(), HasSubstr("in batch 1 of epoch 0"));
  }
}

// Many small batches are made ahead at once; large ones two at a time. Over epochs they are those of direct reads.
TEST(BatchStream, GoesThroughEpochs) {
  for (const int64_t pixels : {int64_t{4}, int64_t{1} << 19}) {
    const int64_t n = pixels == 4 ? 301 : 5;
    const graph::Tensor x = graph::Tensor::zeros(DType::kF32, {n, pixels});
    for (int64_t i = 0; i < n; ++i) x.set(i * pixels, static_cast<double>(i));
    const DatasetPtr d = ArrayDataset::create({input("x")}, {{"x", x}}).value();
    const auto loader = DataLoader::create(d, {.batch_size = 2, .shuffle = true, .seed = 3});
    ASSERT_TRUE(loader.ok()) << loader.status().to_string();
    BatchStream stream(*loader, 1, 2, 2, 4);
    for (int64_t epoch = 1; epoch < 4; ++epoch)
      for (int64_t i = epoch == 1 ? 2 : 0; i < loader->num_batches(); ++i) {
        const Result<std::optional<Batch>> batch = stream.next();
        ASSERT_TRUE(batch.ok() && *batch) << epoch << " " << i;
        ASSERT_TRUE(same((*batch)->at("x"), loader->batch(epoch, i)->at("x"))) << epoch << " " << i;
      }
    EXPECT_FALSE(stream.next()->has_value());
  }
}

TEST(BatchStream, StopsMidway) {
  const auto loader = DataLoader::create(numbered(64), {.batch_size = 1});
  for (int i = 0; i < 20; ++i) {
    BatchStream stream(*loader, 0);
    if (i % 2 == 0) {
      EXPECT_TRUE(stream.next()->has_value());
    }
  }
}

}  // namespace
}  // namespace deepseek::data
