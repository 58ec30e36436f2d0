// CTC against the sum over all alignments, enumerated, and its gradient against central differences.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/common.h"
#include "ops/interpreter.h"
#include "passes/autodiff.h"

namespace deepseek::ops {
namespace {

constexpr int64_t kSteps = 4, kClasses = 3;

// -log of the probability of all label sequences of kSteps that collapse to `target` (blank = 0).
double by_enumeration(const std::vector<double>& log_p, const std::vector<int64_t>& target) {
  double total = 0;
  for (int code = 0; code < std::pow(kClasses, kSteps); ++code) {
    std::vector<int64_t> collapsed;
    double score = 0;
    int64_t last = 0;
    for (int64_t t = 0, rest = code; t < kSteps; ++t, rest /= kClasses) {
      const int64_t label = rest % kClasses;
      score += log_p[t * kClasses + label];
      if (label != 0 && label != last) collapsed.push_back(label);
      last = label;
    }
    if (collapsed == target) total += std::exp(score);
  }
  return -std::log(total);
}

struct Ctc {
  double loss;
  std::vector<double> grad;
};
Ctc run(const std::vector<double>& log_p, const std::vector<int64_t>& target) {
  Builder b(registry());
  const auto length = static_cast<int64_t>(target.size());
  const auto outputs = b.emit(
      "ctc_loss", {b.input("x", {DType::kF64, {kSteps, 1, kClasses}}), b.input("t", {DType::kI64, {1, length}})});
  b.output("loss", sum(outputs[0]) * 3.0);
  auto graph = b.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  auto trained = passes::autodiff(*graph, "loss", {"x"});
  EXPECT_TRUE(trained.ok()) << trained.status().to_string();
  RefTensor x(TensorType{DType::kF64, {kSteps, 1, kClasses}}), t(TensorType{DType::kI64, {1, length}});
  x.data = log_p;
  t.data.assign(target.begin(), target.end());
  auto out = evaluate_reference(*trained, {x, t});
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  return {(*out)[0].data[0] / 3, (*out)[1].data};
}

const std::vector<double> kLogP{-0.7, -1.2, -1.9, -2.1, -0.4, -1.6, -1.0, -1.1, -1.2, -0.3, -2.5, -1.8};

TEST(Ctc, EqualsTheSumOverAlignments) {
  for (const std::vector<int64_t>& target : {std::vector<int64_t>{1, 2}, {1, 1}, {2}, {1, 2, 1}, {}})
    EXPECT_NEAR(run(kLogP, target).loss, by_enumeration(kLogP, target), 1e-12) << target.size();
}

TEST(Ctc, GradientEqualsCentralDifferences) {
  for (const std::vector<int64_t>& target : {std::vector<int64_t>{1, 2}, {2, 2}, {}}) {
    const Ctc ctc = run(kLogP, target);
    for (size_t i = 0; i < kLogP.size(); ++i) {
      std::vector<double> up = kLogP, down = kLogP;
      up[i] += 1e-6;
      down[i] -= 1e-6;
      EXPECT_NEAR(ctc.grad[i], 3 * (by_enumeration(up, target) - by_enumeration(down, target)) / 2e-6, 1e-7) << i;
    }
  }
}

TEST(Ctc, ImpossibleTargetIsInfiniteWithoutGradient) {
  const Ctc ctc = run(kLogP, {1, 1, 1});  // needs a blank between equal labels: 5 steps
  EXPECT_TRUE(std::isinf(ctc.loss));
  for (double g : ctc.grad) EXPECT_EQ(g, 0);
}

TEST(Ctc, RefusesBlanksInTargets) {
  Builder b(registry());
  const auto outputs =
      b.emit("ctc_loss", {b.input("x", {DType::kF32, {2, 1, 3}}), b.input("t", {DType::kI64, {1, 1}})});
  b.output("loss", outputs[0]);
  auto graph = b.finish();
  ASSERT_TRUE(graph.ok());
  auto out = evaluate_reference(
      *graph, {RefTensor(TensorType{DType::kF32, {2, 1, 3}}), RefTensor(TensorType{DType::kI64, {1, 1}})});
  EXPECT_EQ(out.status().message(), "target 0 of sample 0: expected a class in [0, 3) other than the blank 0, got 0");
}

}  // namespace
}  // namespace deepseek::ops
