// Fashion-MNIST as Debian ships it, checked against the numbers its authors and others publish.
#include "data/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace deepseek::data {
namespace {

using ::testing::HasSubstr;

bool has_fashion() { return std::filesystem::exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"); }

TEST(Sources, FashionMnist) {
  if (!has_fashion()) GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  const auto splits = open_dataset("fashion-mnist", {});
  ASSERT_TRUE(splits.ok()) << splits.status().to_string();
  EXPECT_EQ(splits->train.size(), 54000);
  EXPECT_EQ(splits->validation.size(), 6000);
  EXPECT_EQ(splits->test.size(), 10000);
  EXPECT_EQ(splits->test.inputs.dims(), (graph::Dims{10000, 1, 28, 28}));
  EXPECT_EQ(splits->test.num_classes(), 10);
  // 1000 of each class in test, 6000 in train and validation together; the well-known mean and deviation.
  std::vector<int> test(10), rest(10);
  for (int64_t i = 0; i < 10000; ++i) ++test[static_cast<size_t>(splits->test.targets.as<int64_t>()[i])];
  for (const Dataset* part : {&splits->train, &splits->validation}) {
    for (int64_t i = 0; i < part->size(); ++i) ++rest[static_cast<size_t>(part->targets.as<int64_t>()[i])];
  }
  EXPECT_EQ(test, std::vector<int>(10, 1000));
  EXPECT_EQ(rest, std::vector<int>(10, 6000));
  EXPECT_NEAR(splits->train.mean[0], 0.2860, 1e-3);
  EXPECT_NEAR(splits->train.stddev[0], 0.3530, 1e-3);
  EXPECT_EQ(splits->test.targets.at(0), 9);  // the first test image is an ankle boot
}

TEST(Sources, SplitDependsOnTheSeedOnly) {
  if (!has_fashion()) GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  const auto labels = [](const char* seed) {
    const auto splits = open_dataset("fashion-mnist", {{"seed", seed}, {"validation_fraction", "0.01"}});
    EXPECT_EQ(splits->validation.size(), 600);
    const int64_t* y = splits->validation.targets.as<int64_t>();
    return std::vector<int64_t>(y, y + splits->validation.size());
  };
  const auto first = labels("7");
  EXPECT_EQ(first, labels("7"));
  EXPECT_NE(first, labels("8"));
}

TEST(Sources, WrongRequestsAreExplained) {
  EXPECT_THAT(open_dataset("mnits", {}).status().message(), HasSubstr("unknown data set 'mnits'; there are: fashion"));
  EXPECT_THAT(open_dataset("fashion-mnist", {{"foldr", "x"}}).status().message(),
              HasSubstr("has no parameter 'foldr'; it takes: folder, validation_fraction, seed"));
  const Status missing = open_dataset("fashion-mnist", {{"folder", "/no/such"}}).status();
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_THAT(missing.to_string(), HasSubstr("apt install dataset-fashion-mnist"));
  EXPECT_THAT(open_dataset("idx", {}).status().message(), HasSubstr("needs the parameter 'train_images'"));
}

}  // namespace
}  // namespace deepseek::data
