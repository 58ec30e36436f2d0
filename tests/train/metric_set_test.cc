// Metrics of several targets: what is asked of which, and their values by hand.
#include "train/metric_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deepseek::train {
namespace {

using graph::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<Comparison> kBoth = {{"kind", "kind", Task::kMulticlass}, {"value", "value", Task::kRegression}};

Tensor f32(graph::Dims dims, std::vector<float> v) { return Tensor::from<float>(DType::kF32, std::move(dims), v); }
Tensor labels(std::vector<int64_t> v) {
  return Tensor::from<int64_t>(DType::kI64, {static_cast<int64_t>(v.size())}, std::span<const int64_t>(v));
}

TEST(MetricSet, NamesTellTheTargetWhereThereAreSeveral) {
  EXPECT_THAT(MetricSet::create({}, {kBoth[0]})->names(), ElementsAre("accuracy"));
  EXPECT_THAT(MetricSet::create({}, kBoth)->names(),
              ElementsAre("kind/accuracy", "value/mae", "value/rmse", "value/r2"));
  EXPECT_THAT(MetricSet::create({"r2", "kind/f1"}, kBoth)->names(), ElementsAre("kind/f1", "value/r2"));
  EXPECT_THAT(MetricSet::create({"accuracy/accuracy"}, {{"output", "accuracy", Task::kBinary}})->names(),
              ElementsAre("accuracy"));
  EXPECT_THAT(MetricSet::create({"none"}, kBoth)->names(), ElementsAre());
  EXPECT_THAT(MetricSet::create({}, {})->names(), ElementsAre());
}

TEST(MetricSet, MistakesAreToldTogether) {
  const Status status = MetricSet::create({"acc", "kind/r2", "sort/f1"}, kBoth).status();
  EXPECT_THAT(status.message(), HasSubstr("train.metrics: unknown metric 'acc'"));
  EXPECT_THAT(status.message(), HasSubstr("metric 'r2' is for regression"));
  EXPECT_THAT(status.message(), HasSubstr("nothing is compared with a target 'sort'; targets: kind, value"));
  EXPECT_THAT(MetricSet::create({"f1"}, {}).status().message(), HasSubstr("metrics none leaves them out"));
}

TEST(MetricSet, ValuesAndStateByHand) {
  MetricSet set = *MetricSet::create({"accuracy", "mae"}, kBoth);
  const std::map<std::string, Tensor> outputs = {
      {"kind", f32({3, 2}, {1, 0, 0, 1, 1, 0})}, {"value", f32({3}, {1, 2, 3})}, {"other", f32({1}, {0})}};
  const data::Batch batch = {{"kind", labels({0, 1, 1})}, {"value", f32({3}, {0, 2, 5})}};
  ASSERT_TRUE(set.add(outputs, batch).ok());
  EXPECT_THAT(set.values(), ElementsAre(testing::DoubleEq(2.0 / 3), testing::DoubleEq(1)));
  ASSERT_EQ(set.confusions().size(), 1U);
  EXPECT_EQ(set.confusions()[0].target, "kind");
  EXPECT_THAT(set.confusions()[0].counts, ElementsAre(1, 0, 1, 1));
  MetricSet other = *MetricSet::create({"accuracy", "mae"}, kBoth);
  ASSERT_TRUE(other.set_state(set.state()).ok());
  ASSERT_TRUE(other.add(outputs, batch).ok());
  ASSERT_TRUE(set.add(outputs, batch).ok());
  EXPECT_EQ(other.values(), set.values());
  std::vector<double> damaged = set.state();
  damaged.push_back(1);
  EXPECT_THAT(other.set_state(damaged).message(), HasSubstr("expected"));
  EXPECT_THAT(other.set_state({1e9}).message(), HasSubstr("damaged"));
}

TEST(MetricSet, FitsTellsWhatCanBeCompared) {
  const graph::TensorType logits{DType::kF32, {4, 3}}, classes{DType::kI64, {4}}, number{DType::kF32, {4}};
  EXPECT_TRUE(kBoth[0].fits(logits, classes));
  EXPECT_TRUE(kBoth[0].fits(logits, logits));  // weights of classes
  EXPECT_FALSE(kBoth[0].fits(number, classes));
  EXPECT_FALSE(kBoth[1].fits(logits, number));
  EXPECT_TRUE(kBoth[1].fits({DType::kF32, {4, 1}}, number));
}

}  // namespace
}  // namespace deepseek::train
