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

// Sample i is an 8x8 image of distinct pixels, its target i.
Dataset numbered(int64_t n) {
  Dataset d;
  d.inputs = graph::Tensor(DType::kF32, {n, 1, 8, 8});
  d.targets = graph::Tensor(DType::kF32, {n});
  for (int64_t i = 0; i < n * 64; ++i) d.inputs.set(i, static_cast<double>(i + 1));
  for (int64_t i = 0; i < n; ++i) d.targets.set(i, static_cast<double>(i));
  return d;
}

bool same(const graph::Tensor& a, const graph::Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.data(), b.data(), a.num_bytes()) == 0;
}

TEST(Random, SplitMix64MatchesItsReferenceOutput) {
  EXPECT_EQ(splitmix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(splitmix64(0x9e3779b97f4a7c15ull), 0x6e789e6aa1b965f4ull);
}

TEST(Loader, EveryEpochIsAnotherPermutation) {
  const Dataset d = numbered(23);
  const auto loader = DataLoader::create(d, {.batch_size = 5, .shuffle = true, .seed = 3});
  ASSERT_TRUE(loader.ok());
  EXPECT_EQ(loader->num_batches(), 5);
  std::vector<std::vector<double>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<double> seen;
    for (int64_t i = 0; i < 5; ++i) {
      graph::Tensor x, y;
      ASSERT_TRUE(loader->batch(epoch, i, x, y).ok());
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
  const Dataset d = numbered(150);
  const LoaderOptions options{
      .batch_size = 40, .shuffle = true, .seed = 5, .augmenter = changing({"flip", "crop"}, {0.5, 1})};
  const auto loader = DataLoader::create(d, options), other = DataLoader::create(d, options);
  const int threads = num_threads();
  ASSERT_TRUE(set_num_threads(1).ok());
  graph::Tensor x, y, sx, sy;
  ASSERT_TRUE(other->batch(9, 0, x, y).ok());  // history must not matter
  BatchStream stream(*loader, 2, 1);
  for (int64_t i = 1; i < 4; ++i) {
    const auto more = stream.next(sx, sy);
    ASSERT_TRUE(more.ok() && *more);
    ASSERT_TRUE(set_num_threads(3).ok());
    ASSERT_TRUE(other->batch(2, i, x, y).ok());
    EXPECT_TRUE(same(x, sx) && same(y, sy)) << i;
  }
  ASSERT_TRUE(set_num_threads(threads).ok());
  EXPECT_FALSE(*stream.next(sx, sy));
  EXPECT_FALSE(*stream.next(sx, sy));
}

TEST(Loader, FlipMirrorsAboutHalfOfTheImages) {
  const Dataset d = numbered(200);
  const auto loader = DataLoader::create(d, {.batch_size = 200, .augmenter = changing({"flip"}, {0.5})});
  graph::Tensor x, y;
  ASSERT_TRUE(loader->batch(0, 0, x, y).ok());
  int flipped = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const bool mirrored = x.at(i * 64) != d.inputs.at(i * 64);
    flipped += mirrored;
    for (int64_t row = 0; row < 8; ++row) {
      for (int64_t c = 0; c < 8; ++c) {
        ASSERT_EQ(x.at(i * 64 + row * 8 + c), d.inputs.at(i * 64 + row * 8 + (mirrored ? 7 - c : c)));
      }
    }
  }
  EXPECT_GT(flipped, 70);
  EXPECT_LT(flipped, 130);
}

TEST(Loader, CropMovesAndFillsWithNormalisedZero) {
  Dataset d = numbered(100);
  d.mean = {2.0};
  d.stddev = {4.0};
  const auto loader = DataLoader::create(d, {.batch_size = 100, .augmenter = changing({"flip", "crop"}, {0.5, 1})});
  graph::Tensor x, y;
  std::set<int64_t> filled;
  for (int64_t k = 0; k < 2000; ++k) {  // in 1 of 81 nothing moves
    const int64_t i = k % 100;
    if (i == 0) ASSERT_TRUE(loader->batch(k / 100, 0, x, y).ok());
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
  const Dataset d = numbered(10);
  EXPECT_EQ(DataLoader::create(d, {.batch_size = 4, .drop_last = true})->num_batches(), 2);
  EXPECT_EQ(DataLoader::create(d, {.batch_size = INT64_MAX})->num_batches(), 1);
  EXPECT_THAT(DataLoader::create(d, {.batch_size = 0}).status().message(), HasSubstr("batch_size is 0"));
  EXPECT_THAT(DataLoader::create(d, {.batch_size = 11, .drop_last = true}).status().message(), HasSubstr("no batch"));
  graph::Tensor x, y;
  EXPECT_THAT(DataLoader::create(d, {})->batch(0, 1, x, y).message(), HasSubstr("an epoch has 1 batches"));
}

// Images of u8 in three classes.
Dataset pictures(int64_t n) {
  Dataset d;
  d.inputs = graph::Tensor(DType::kU8, {n, 3, 8, 8});
  d.targets = graph::Tensor(DType::kI64, {n});
  d.class_names = {"a", "b", "c"};
  d.scale = 1 / 255.0;
  d.mean = {0.5};
  d.stddev = {0.25};
  for (int64_t i = 0; i < n * 192; ++i) d.inputs.set(i, static_cast<double>((i * 37) % 256));
  for (int64_t i = 0; i < n; ++i) d.targets.set(i, static_cast<double>(i % 3));
  return d;
}

TEST(Loader, AugmentsRawImagesAndMixesLabelsWithinTheBatch) {
  const Dataset d = pictures(20);
  const auto augmenter = std::make_shared<const ImageAugmenter>(
      ImageAugmenter::create({.methods = {"flip", "randaugment", "mixup"}, .probabilities = {0.5, 1, 1}, .seed = 7})
          .value());
  const auto loader = DataLoader::create(d, {.batch_size = 8, .shuffle = true, .augmenter = augmenter});
  ASSERT_TRUE(loader.ok()) << loader.status().to_string();
  graph::Tensor x, y, again_x, again_y, other_x, other_y;
  for (int64_t b = 0; b < loader->num_batches(); ++b) {
    ASSERT_TRUE(loader->batch(1, b, x, y).ok());
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
    ASSERT_TRUE(loader->batch(1, b, again_x, again_y).ok());
    ASSERT_TRUE(set_num_threads(2).ok());
    EXPECT_TRUE(same(x, again_x) && same(y, again_y));
    ASSERT_TRUE(loader->batch(2, b, other_x, other_y).ok());
    EXPECT_FALSE(same(x, other_x));
  }
}

TEST(Loader, AugmentationThatDoesNotFitIsRefused) {
  const auto make = [](std::vector<std::string> methods) {
    const std::vector<double> p(methods.size(), 0.5);
    return std::make_shared<const ImageAugmenter>(
        ImageAugmenter::create({.methods = std::move(methods), .probabilities = p}).value());
  };
  Dataset d = pictures(6);
  const auto refused = [&](const LoaderOptions& o) { return DataLoader::create(d, o).status().message(); };
  d.class_names = {"a"};
  d.targets = graph::Tensor::zeros(DType::kI64, {6});
  EXPECT_THAT(refused({.augmenter = make({"mixup"})}), HasSubstr("2 classes or more"));
  d.inputs = graph::Tensor::zeros(DType::kF32, {6, 4});
  EXPECT_THAT(refused({.augmenter = make({"flip"})}), HasSubstr("needs images [N,C,H,W]"));
}

TEST(BatchStream, ErrorsReachTheCallerAndStay) {
  Dataset d = numbered(10);
  const auto loader = DataLoader::create(d, {.batch_size = 5});
  d.targets = graph::Tensor::zeros(DType::kF32, {7});  // breaks the second batch
  BatchStream stream(*loader, 0);
  graph::Tensor x, y;
  EXPECT_TRUE(*stream.next(x, y));
  for (int i = 0; i < 2; ++i) {
    const auto more = stream.next(x, y);
    ASSERT_FALSE(more.ok());
    EXPECT_THAT(more.status().to_string(), HasSubstr("in batch 1 of epoch 0"));
  }
}

TEST(BatchStream, StopsMidway) {
  const Dataset d = numbered(64);
  const auto loader = DataLoader::create(d, {.batch_size = 1});
  for (int i = 0; i < 20; ++i) {
    BatchStream stream(*loader, 0);
    graph::Tensor x, y;
    if (i % 2 == 0) {
      EXPECT_TRUE(*stream.next(x, y));
    }
  }
}

}  // namespace
}  // namespace deepseek::data
