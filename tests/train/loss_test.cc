// Which output is compared with which target.
#include "train/loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deepseek::train {
namespace {

using ::testing::HasSubstr;

TEST(PairTargets, ByNameOrTheOnlyOnes) {
  EXPECT_EQ((*pair_targets({"kind", "value"}, {"value"}))[0].output, "value");
  EXPECT_EQ((*pair_targets({"output"}, {"y"}))[0].output, "output");
  EXPECT_EQ((*pair_targets({"a", "b"}, {"b", "a"}))[1].output, "a");
  EXPECT_THAT(pair_targets({"output0", "output1"}, {"y"}).status().message(),
              HasSubstr("the model has no output for the target 'y'; its outputs are: output0, output1"));
  EXPECT_THAT(pair_targets({"output"}, {"a", "b"}).status().message(), HasSubstr("no output for the target 'a'"));
}

TEST(LossOfTargets, NeedsTargets) {
  EXPECT_THAT(loss_of_targets("auto", {}, {}).status().message(), HasSubstr("the data have no target"));
  const data::Field target{.name = "y", .role = data::Role::kTarget, .sample = {DType::kI64, {}}};
  EXPECT_TRUE(loss_of_targets("auto", {{"label_smoothing", "0.1"}}, {target}).ok());
  EXPECT_THAT(loss_of_targets("mse_loss", {{"label_smoothing", "0.1"}}, {target}).status().message(),
              HasSubstr("mse_loss has no such parameter"));
}

}  // namespace
}  // namespace deepseek::train
