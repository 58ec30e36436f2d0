// Normalisation by hand arithmetic, and each fault of a data set with its message.
#include "data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace deepseek::data {
namespace {

using ::testing::HasSubstr;

Dataset two_images() {
  Dataset d;
  d.class_names = {"a", "b"};
  d.inputs = graph::Tensor(DType::kU8, {2, 2, 1, 2});
  for (int64_t i = 0; i < 8; ++i) d.inputs.set(i, static_cast<double>(i * 30));
  d.targets = graph::Tensor(DType::kI64, {2});
  d.targets.set(0, 1);
  d.targets.set(1, 0);
  d.scale = 1.0 / 255.0;
  d.mean = {0.25, 0.5};
  d.stddev = {0.5, 2.0};
  return d;
}

TEST(Dataset, ReadsNormalisedRowsInTheOrderAsked) {
  const Dataset d = two_images();
  ASSERT_TRUE(d.validate().ok());
  graph::Tensor x, y;
  const int64_t order[] = {1, 0, 1};
  ASSERT_TRUE(d.read(order, x, y).ok());
  EXPECT_EQ(x.type(), (graph::TensorType{DType::kF32, {3, 2, 1, 2}}));
  EXPECT_NEAR(x.at(0), (120 / 255.0 - 0.25) / 0.5, 1e-6);
  EXPECT_NEAR(x.at(3), (210 / 255.0 - 0.5) / 2.0, 1e-6);
  EXPECT_NEAR(x.at(4), (0 - 0.25) / 0.5, 1e-6);
  EXPECT_EQ(y.at(0), 0);
  EXPECT_EQ(y.at(1), 1);
}

TEST(Dataset, IndexOutOfRangeIsNamed) {
  graph::Tensor x, y;
  const int64_t order[] = {0, 2};
  EXPECT_THAT(two_images().read(order, x, y).message(), HasSubstr("sample index 2 is out of range"));
}

TEST(Dataset, FaultsAreNamedWithTheirSample) {
  Dataset d = two_images();
  d.targets.set(1, 2);
  EXPECT_THAT(d.validate().message(), HasSubstr("label of sample 1 is 2, expected 0 to 1"));
  d.targets.set(1, -1);
  EXPECT_THAT(d.validate().message(), HasSubstr("label of sample 1 is -1"));
  d = two_images();
  d.inputs = graph::Tensor::zeros(DType::kF32, {2, 3});
  d.mean = d.stddev = {};
  ASSERT_TRUE(d.validate().ok());
  d.inputs.set(4, NAN);
  EXPECT_THAT(d.validate().message(), HasSubstr("inputs of sample 1 hold nan at position 1"));
  d.inputs.set(4, INFINITY);
  EXPECT_THAT(d.validate().message(), HasSubstr("inputs of sample 1 hold inf"));
  d = two_images();
  d.targets = graph::Tensor::zeros(DType::kI64, {3});
  EXPECT_THAT(d.validate().message(), HasSubstr("2 inputs but 3 targets"));
  d.inputs = graph::Tensor(DType::kU8, {0, 1, 2, 2});
  EXPECT_THAT(d.validate().message(), HasSubstr("is empty"));
  d = two_images();
  d.stddev = {0.0};
  EXPECT_THAT(d.validate().message(), HasSubstr("stddev[0] is 0"));
  d.stddev = {1, 1, 1};
  EXPECT_THAT(d.validate().message(), HasSubstr("stddev has 3 values"));
  EXPECT_THAT(Dataset().validate().message(), HasSubstr("lacks inputs or targets"));
}

TEST(Dataset, FittedNormalisationGivesZeroMeanUnitDeviation) {
  Dataset d = two_images();
  ASSERT_TRUE(d.fit_normalisation().ok());
  graph::Tensor x, y;
  const int64_t order[] = {0, 1};
  ASSERT_TRUE(d.read(order, x, y).ok());
  for (int64_t c = 0; c < 2; ++c) {
    double sum = 0, squares = 0;
    for (int64_t i : {c * 2, c * 2 + 1, 4 + c * 2, 4 + c * 2 + 1}) sum += x.at(i), squares += x.at(i) * x.at(i);
    EXPECT_NEAR(sum, 0, 1e-5);
    EXPECT_NEAR(squares / 4, 1, 1e-5);
  }
}

}  // namespace
}  // namespace deepseek::data
