// Loss scaling inside the step: what overflows changes nothing but the scale, and what does not is as without it.
#include "train/precision.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "nn/layers.h"
#include "nn/norm.h"
#include "train/loss_scale.h"
#include "train/state_store.h"
#include "train/step_options.h"

namespace deepseek::train {
namespace {

using graph::Tensor;

// A small net with every kind of state: parameters, running statistics, moments, average; and its steps.
class Steps {
 public:
  explicit Steps(TrainerOptions options) : options_(std::move(options)) {
    nn::manual_seed(1);
    options_.optimizer.name = "adam";
    options_.optimizer.clip_norm = 1;
    options_.train.ema_decay = 0.9;
    model_ = std::make_shared<nn::Sequential>(std::vector<nn::ModulePtr>{
        std::make_shared<nn::Linear>(3, 4), std::make_shared<nn::BatchNorm>(4), std::make_shared<nn::Linear>(4, 1)});
    state_.emplace(*model_, 0, *runtime::open_backend("cpu"));
  }

  // One batch of constant targets; returns the output "skipped", -1 where there is none.
  double run(double target, int step, StepKind kind = StepKind::kUpdate) {
    const Tensor x = Tensor::from<float>(DType::kF32, {2, 3}, std::vector<float>{1, 2, 3, -1, 0, 1});
    const Tensor y = Tensor::full(DType::kF32, {2, 1}, target);
    const LossFunction loss =
        *loss_of_targets("mse_loss", {}, {{.name = "y", .role = data::Role::kTarget, .sample = {DType::kF32, {1}}}});
    const data::BatchType batch = {{"x", x.type()}, {"y", y.type(), data::Role::kTarget}};
    Result<graph::Graph> graph =
        training_graph(*model_, batch, step_options(options_, loss, precision_of(options_.train)), kind);
    EXPECT_TRUE(graph.ok()) << graph.status().to_string();
    const auto program = *(*runtime::open_backend("cpu"))->compile(*graph, {});
    const auto out = state_->run(program, {{"x", x},
                                           {"y", y},
                                           {kWeight, Tensor::scalar(DType::kF32, 2)},
                                           {kTotalWeight, Tensor::scalar(DType::kF32, 4)},
                                           {kLearningRate, Tensor::scalar(DType::kF32, 0.01)},
                                           {kStepNumber, Tensor::scalar(DType::kF32, step)}});
    EXPECT_TRUE(out.ok()) << out.status().to_string();
    const int32_t skipped = program->graph().find_output("skipped");
    return skipped < 0 ? -1 : (*out)[static_cast<size_t>(skipped)].at(0);
  }

  double at(const std::string& name) const { return state_->tensors().at(name).at(0); }
  StateStore copy() { return *state_->clone(); }
  // Names of state, the scale's aside, that differ from `other`.
  std::string changed(const StateStore& other) const {
    std::string names;
    for (const auto& [name, tensor] : state_->tensors()) {
      if (name.starts_with("loss_scale/")) continue;
      const Tensor& was = other.tensors().at(name);
      if (std::memcmp(was.data(), tensor.data(), was.num_bytes()) != 0) names += name + " ";
    }
    return names;
  }

 private:
  TrainerOptions options_;
  nn::ModulePtr model_;
  std::optional<StateStore> state_;
};

TrainerOptions options(const std::string& precision, const std::string& scaling = "auto", int64_t interval = 2000) {
  TrainerOptions o;
  o.train.precision = precision;
  o.train.loss_scaling = scaling;
  o.train.loss_scale_interval = interval;
  return o;
}

TEST(LossScaling, AnOverflowChangesNothingButTheScale) {
  Steps steps(options("float16"));
  EXPECT_EQ(steps.run(0.001, 1), 0);  // makes all state
  EXPECT_EQ(steps.at("loss_scale/scale"), 65536);
  EXPECT_EQ(steps.at("loss_scale/good"), 1);
  const StateStore before = steps.copy();
  EXPECT_EQ(steps.run(1000, 2), 1);  // 65536 * (prediction - 1000) is beyond f16's 65504
  EXPECT_EQ(steps.changed(before), "");
  EXPECT_EQ(steps.at("loss_scale/scale"), 32768);
  EXPECT_EQ(steps.at("loss_scale/good"), 0);
  EXPECT_EQ(steps.at("loss_scale/skipped"), 1);
  EXPECT_EQ(steps.run(0.001, 3), 0);
  EXPECT_NE(steps.changed(before), "");
  EXPECT_EQ(steps.at("loss_scale/skipped"), 1);
}

TEST(LossScaling, GrowsAfterTheIntervalAndStaysInBounds) {
  Steps steps(options("float32", "dynamic", 2));
  for (int i = 1; i <= 4; ++i) steps.run(1, i);
  EXPECT_EQ(steps.at("loss_scale/scale"), 4 * 65536);
  EXPECT_EQ(steps.at("loss_scale/good"), 0);
  for (int i = 5; i <= 40; ++i) steps.run(1, i);
  EXPECT_EQ(steps.at("loss_scale/scale"), kMostLossScale);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(steps.run(std::numeric_limits<double>::infinity(), 41 + i), 1);
  EXPECT_EQ(steps.at("loss_scale/scale"), kLeastLossScale);
  EXPECT_EQ(steps.at("loss_scale/skipped"), 30);
}

TEST(LossScaling, AnOverflowInOneBatchSkipsTheWholeUpdate) {
  Steps steps(options("float16"));
  steps.run(0.001, 1, StepKind::kAccumulate);
  steps.run(0.001, 1, StepKind::kLast);
  const StateStore before = steps.copy();
  steps.run(1000, 2, StepKind::kAccumulate);
  EXPECT_EQ(steps.run(0.001, 2, StepKind::kLast), 1);
  EXPECT_EQ(steps.changed(before), "");  // the sums are zero again, too
  steps.run(0.001, 3, StepKind::kAccumulate);
  EXPECT_EQ(steps.run(0.001, 3, StepKind::kLast), 0);
}

// Scales are powers of two, so nothing is rounded otherwise than without; and what was skipped does not count as a step
// for Adam's bias corrections.
TEST(LossScaling, IsExactAndSkippedStepsDoNotCount) {
  Steps plain(options("float32")), scaled(options("float32", "dynamic"));
  EXPECT_EQ(scaled.run(std::numeric_limits<double>::infinity(), 1), 1);
  for (int i = 1; i <= 5; ++i) {
    EXPECT_EQ(plain.run(0.5 * i, i), -1);
    EXPECT_EQ(scaled.run(0.5 * i, i + 1), 0);
  }
  const StateStore expected = plain.copy(), actual = scaled.copy();
  for (const auto& [name, want] : expected.tensors())
    for (int64_t i = 0; i < want.num_elements(); ++i)
      EXPECT_NEAR(actual.tensors().at(name).at(i), want.at(i), 1e-6 * std::max(1.0, std::fabs(want.at(i)))) << name;
}

TEST(Precision, AutoSaysWhatItMeasured) {
  TrainerOptions o = options("auto");
  nn::manual_seed(3);
  nn::Linear model(3, 1);
  const runtime::BackendPtr cpu = *runtime::open_backend("cpu");
  StateStore state(model, 0, cpu);
  const StateStore before = *state.clone();
  const Tensor x = Tensor::full(DType::kF32, {2, 3}, 1), y = Tensor::full(DType::kF32, {2, 1}, 1);
  const Result<PrecisionChoice> choice = choose_precision(
      o, cpu, model, state,
      *loss_of_targets("mse_loss", {}, {{.name = "y", .role = data::Role::kTarget, .sample = {DType::kF32, {1}}}}),
      {{"x", x.type()}, {"y", y.type(), data::Role::kTarget}}, {{"x", x}, {"y", y}});
  ASSERT_TRUE(choice.ok()) << choice.status().to_string();
  EXPECT_TRUE(choice->reason.starts_with("precision ")) << choice->reason;
  const bool may = cpu->has_fast(DType::kBF16);
  EXPECT_TRUE(choice->precision == DType::kF32 || may);
  for (const auto& [name, tensor] : before.tensors())
    EXPECT_EQ(0, std::memcmp(tensor.data(), state.tensors().at(name).data(), tensor.num_bytes())) << name;
}

}  // namespace
}  // namespace deepseek::train
