#include "ops/interpreter.h"

#include <gtest/gtest.h>

#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::ops {
namespace {

using graph::RefTensor;

RefTensor values(Dims dims, std::vector<double> data) {
  RefTensor t(TensorType{DType::kF32, std::move(dims)});
  t.data = std::move(data);
  return t;
}

TEST(Interpreter, OutputsThenUpdates) {
  Builder b(registry());
  Expr x = b.input("x", {DType::kF32, {2}});
  Expr s = b.state("s", {DType::kF32, {2}});
  b.output("y", x * s + 1.0);
  b.output("total", sum(x));
  b.update(s, s + x);
  auto graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  auto out = evaluate_reference(*graph, {values({2}, {2, 3}), values({2}, {10, 20})});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  ASSERT_EQ(out->size(), 3u);
  EXPECT_EQ((*out)[0].data, (std::vector<double>{21, 61}));
  EXPECT_EQ((*out)[1].data, (std::vector<double>{5}));
  EXPECT_EQ((*out)[2].data, (std::vector<double>{12, 23}));
}

TEST(Interpreter, RefusesAWrongNumberOfInputs) {
  Builder b(registry());
  b.output("y", neg(b.input("x", {DType::kF32, {2}})));
  auto graph = b.finish();
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(evaluate_reference(*graph, {}).status().message(), "reference: expected 1 inputs, got 0");
}

}  // namespace
}  // namespace deepseek::ops
