// Values by hand; tests/python/test_metrics.py compares with scikit-learn.
#include "train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "train/loss.h"

namespace deepseek::train {
namespace {

using graph::Tensor;
using ::testing::HasSubstr;

Tensor f32(graph::Dims dims, std::vector<float> v) { return Tensor::from<float>(DType::kF32, std::move(dims), v); }
Tensor i64(std::vector<int64_t> v) {
  return Tensor::from<int64_t>(DType::kI64, {static_cast<int64_t>(v.size())}, std::span<const int64_t>(v));
}

TEST(MetricsTest, MulticlassByHand) {
  Metrics m = *Metrics::create({"accuracy", "top2", "precision", "recall", "f1"}, Task::kMulticlass);
  // Predicted 0, 1, 2, 1 for true 0, 1, 1, 2.
  ASSERT_TRUE(m.add(f32({2, 3}, {3, 1, 2, 0, 5, 1}), i64({0, 1})).ok());
  ASSERT_TRUE(m.add(f32({2, 3}, {0, 1, 2, 0, 2, 1}), i64({1, 2})).ok());
  EXPECT_EQ(m.confusion(), (std::vector<int64_t>{1, 0, 0, 0, 1, 1, 0, 1, 0}));
  const std::vector<double> v = m.values();
  EXPECT_DOUBLE_EQ(v[0], 0.5);
  EXPECT_DOUBLE_EQ(v[1], 1);
  EXPECT_DOUBLE_EQ(v[2], (1 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(v[3], (1 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(v[4], (1 + 0.5 + 0) / 3);
}

TEST(MetricsTest, StateContinuesExactly) {
  const auto batch = [](Metrics& m, float shift) {
    return m.add(f32({3, 2}, {1 + shift, 2, 0, 1, 2, shift}), i64({0, 1, 1}));
  };
  Metrics whole = *Metrics::create({"auc", "f1"}, Task::kMulticlass);
  ASSERT_TRUE(batch(whole, 0.25F).ok() && batch(whole, 3).ok());
  Metrics first = *Metrics::create({"auc", "f1"}, Task::kMulticlass);
  ASSERT_TRUE(batch(first, 0.25F).ok());
  Metrics second = *Metrics::create({"auc", "f1"}, Task::kMulticlass);
  ASSERT_TRUE(second.set_state(first.state()).ok());
  ASSERT_TRUE(batch(second, 3).ok());
  EXPECT_EQ(whole.values(), second.values());
  EXPECT_EQ(whole.state(), second.state());
  EXPECT_THAT(second.set_state({3, 0}).message(), HasSubstr("damaged"));
}

TEST(MetricsTest, StateOfSeveralOutputsContinuesExactly) {
  Metrics whole = *Metrics::create({"mae", "rmse", "r2"}, Task::kRegression), first = whole, second = whole;
  const Tensor p = f32({2, 2}, {1, 2, 3, 4}), y = f32({2, 2}, {1, 0, 2, 5}), more = f32({2, 2}, {3, 1, 4, 4});
  ASSERT_TRUE(whole.add(p, y).ok() && whole.add(p, more).ok() && first.add(p, y).ok());
  ASSERT_TRUE(second.set_state(first.state()).ok());
  ASSERT_TRUE(second.add(p, more).ok());
  EXPECT_EQ(whole.values(), second.values());
  EXPECT_EQ(whole.state(), second.state());
  EXPECT_THAT(second.add(f32({2, 1}, {1, 2}), f32({2, 1}, {1, 2})).message(), HasSubstr("expected 2 outputs"));
  EXPECT_THAT(second.set_state({0, 1, 2, 3, 4, 5, 6}).message(), HasSubstr("damaged"));
}

TEST(MetricsTest, UndefinedIsNaN) {
  Metrics none = *Metrics::create({"accuracy"}, Task::kMulticlass);
  EXPECT_TRUE(std::isnan(none.values()[0]));
  Metrics auc = *Metrics::create({"auc"}, Task::kBinary);
  ASSERT_TRUE(auc.add(f32({2}, {1, 2}), f32({2}, {1, 1})).ok());  // no negatives
  EXPECT_TRUE(std::isnan(auc.values()[0]));
}

TEST(MetricsTest, ErrorsNameEverything) {
  const Status s = Metrics::create({"acuracy", "mae", "top0"}, Task::kMulticlass).status();
  EXPECT_THAT(s.message(), HasSubstr("unknown metric 'acuracy'"));
  EXPECT_THAT(s.message(), HasSubstr("metric 'mae' is for regression"));
  EXPECT_THAT(s.message(), HasSubstr("unknown metric 'top0'"));
  Metrics m = *Metrics::create({"accuracy"}, Task::kMulticlass);
  EXPECT_THAT(m.add(f32({2, 3}, {0, 0, 0, 0, 0, 0}), i64({0, 3})).message(),
              HasSubstr("target 3 of row 1 is out of range, there are 3 classes"));
  EXPECT_THAT(m.add(f32({2, 3}, {0, 0, 0, 0, 0, 0}), i64({0})).message(),
              HasSubstr("logits f32[2,3] do not fit targets i64[1]"));
}

TEST(LossTest, ParametersAreReadAndCheckedTogether) {
  EXPECT_TRUE(make_loss("cross_entropy", {{"label_smoothing", "0.1"}, {"ignore_index", "3"}}).ok());
  const Status s = make_loss("huber_loss", {{"delta", "wide"}, {"smoothing", "1"}}).status();
  EXPECT_THAT(s.message(), HasSubstr("loss.delta: expected float"));
  EXPECT_THAT(s.message(), HasSubstr("loss.smoothing: huber_loss has no such parameter; it has: delta"));
  EXPECT_THAT(make_loss("mse_los", {}).status().message(), HasSubstr("did you mean 'mse_loss'?"));
}

}  // namespace
}  // namespace deepseek::train
