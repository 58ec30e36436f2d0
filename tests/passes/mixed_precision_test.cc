// What the pass must keep for every op: each sample's graph keeps its interface, and means the same but for rounding.
#include "passes/mixed_precision.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::passes {
namespace {

using namespace graph;

// Ops that keep f32 on purpose. One that is here by default, because nobody thought of it, fails the test.
const std::set<std::string> kWideOnPurpose = {
    // What sums much, and losses.
    "sum", "mean", "prod", "cumsum", "softmax", "log_softmax", "softmax_grad", "log_softmax_grad", "ctc_loss",
    "cross_entropy", "nll_loss", "dice_loss", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "bce_loss",
    "bce_with_logits", "kl_div", "focal_loss", "quantile_loss", "adaptive_avg_pool", "scatter_add",
    "put_along_axis_add",
    // What magnifies a rounding, or leaves the range.
    "exp", "expm1", "log", "log1p", "pow", "rsqrt", "reciprocal", "softplus",
    // Bodies are lowered inside.
    "scan", "fused",
    // No float operands, or a result of its own type.
    "constant", "iota", "one_hot", "random_uniform", "top_k",
    // Emitted after this pass: by autodiff and by layout.
    "max_pool_grad", "avg_pool_grad", "batch_norm_grad", "layer_norm_grad", "group_norm_grad", "blocked_conv",
    "blocked_conv_input_grad", "blocked_conv_weight_grad", "depthwise_conv", "depthwise_conv_input_grad",
    "depthwise_conv_weight_grad"};

TEST(MixedPrecision, EveryOpHasAPolicyOnPurpose) {
  for (const auto& [name, def] : ops::registry().all())
    EXPECT_EQ(def.mixed_precision() == Precision::kWide, kWideOnPurpose.contains(name))
        << name << ": its precision is '" << to_string(def.mixed_precision())
        << "'; name it in its record, or here if it must stay f32";
}

TEST(MixedPrecision, EverySampleKeepsItsInterface) {
  for (const DType low : {DType::kBF16, DType::kF16})
    for (const auto& [name, def] : ops::registry().all())
      for (const Sample& sample : def.samples.value) {
        Builder builder(ops::registry());
        std::vector<Expr> inputs;
        for (const SampleInput& input : sample.inputs)
          inputs.push_back(builder.input("x" + std::to_string(inputs.size()), input.type));
        const std::vector<Expr> outputs = builder.emit(name, inputs, sample.attrs);
        for (size_t i = 0; i < outputs.size(); ++i) builder.output("y" + std::to_string(i), outputs[i]);
        const Result<Graph> before = builder.finish();
        ASSERT_TRUE(before.ok()) << name << " " << before.status().to_string();
        const Result<Graph> after = mixed_precision(*before, low);
        ASSERT_TRUE(after.ok()) << name << " " << sample.name << ": " << after.status().to_string();
        for (size_t i = 0; i < outputs.size(); ++i)
          EXPECT_EQ(after->type(after->outputs()[i].value), before->type(before->outputs()[i].value)) << name;
      }
}

TEST(MixedPrecision, RefusesOtherTypes) {
  Builder builder(ops::registry());
  builder.output("y", builder.input("x", {DType::kF32, {2}}));
  const Result<Graph> result = mixed_precision(*builder.finish(), DType::kF64);
  EXPECT_EQ(result.status().message(), "mixed precision: expected bf16 or f16 as the low type, got f64");
}

}  // namespace
}  // namespace deepseek::passes
