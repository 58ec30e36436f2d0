#include "ops/scan.h"

#include <gtest/gtest.h>

#include "ops/common.h"
#include "ops/interpreter.h"
#include "passes/autodiff.h"

namespace deepseek::ops {
namespace {

using graph::Graph;

// h' = h * w + x, y = h'.
Graph step() {
  Builder b(registry());
  const TensorType scalar{DType::kF32, {}};
  Expr h = b.input("h", scalar), x = b.input("x", scalar), w = b.input("w", scalar);
  Expr next = h * w + x;
  b.output("h", next);
  b.output("y", next);
  Result<Graph> graph = b.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return *graph;
}

RefTensor values(Dims dims, std::vector<double> data) {
  RefTensor t(TensorType{DType::kF32, std::move(dims)});
  t.data = std::move(data);
  return t;
}

Result<Graph> horner(bool reverse, bool save) {
  Builder b(registry());
  Expr h = b.input("h", {DType::kF32, {}}), xs = b.input("xs", {DType::kF32, {3}}), w = b.input("w", {DType::kF32, {}});
  const ScanResult r = scan(b, step(), {h}, {xs}, {w}, reverse, save);
  b.output("h", r.carries[0]);
  b.output("ys", r.ys[0]);
  if (save) b.output("saved", r.saved[0]);
  return b.finish();
}

TEST(Scan, ForwardAndReverse) {
  const std::vector<RefTensor> in{values({}, {1}), values({3}, {2, 3, 4}), values({}, {10})};
  for (const bool reverse : {false, true}) {
    auto graph = horner(reverse, true);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    auto out = evaluate_reference(*graph, in);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    EXPECT_EQ((*out)[0].data, (std::vector<double>{reverse ? 1432.0 : 1234.0}));
    EXPECT_EQ((*out)[1].data, (reverse ? std::vector<double>{1432, 143, 14} : std::vector<double>{12, 123, 1234}));
    EXPECT_EQ((*out)[2].data, (reverse ? std::vector<double>{143, 14, 1} : std::vector<double>{1, 12, 123}));
  }
}

TEST(Scan, GradientOfHornersRule) {
  auto graph = horner(false, true);
  ASSERT_TRUE(graph.ok());
  auto trained = passes::autodiff(*graph, "h", {"h", "xs", "w"});
  ASSERT_TRUE(trained.ok()) << trained.status().to_string();
  auto out = evaluate_reference(*trained, {values({}, {1}), values({3}, {2, 3, 4}), values({}, {10})});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  EXPECT_EQ((*out)[3].data, (std::vector<double>{1000}));
  EXPECT_EQ((*out)[4].data, (std::vector<double>{100, 10, 1}));
  EXPECT_EQ((*out)[5].data, (std::vector<double>{343}));  // 3 w^2 + 2 * 2 w + 3
}

TEST(Scan, ErrorsNameOperandAndTypes) {
  Builder b(registry());
  Expr h = b.input("h", {DType::kF32, {}}), xs = b.input("xs", {DType::kF32, {3, 2}}),
       w = b.input("w", {DType::kF32, {}});
  const ScanResult r = scan(b, step(), {h}, {xs}, {w});
  EXPECT_FALSE(r.ys[0].defined());
  EXPECT_EQ(b.status().message(), "[scan] input 1: the body's input 'x' asks for f32[3], got f32[3,2]");
}

}  // namespace
}  // namespace deepseek::ops
