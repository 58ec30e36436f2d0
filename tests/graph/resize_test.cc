// Graphs of a third size from traces of two: equal to what tracing gives, or refused with the reason.
#include "graph/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::graph {
namespace {

using Code = void (*)(Builder&, Expr);

Result<Graph> trace(Code code, int64_t n) {
  Builder builder(ops::registry());
  code(builder, builder.input("x", {DType::kF32, {n, 6}}));
  return builder.finish();
}

Result<Graph> resized(Code code, int64_t a, int64_t b, int64_t wanted) {
  const TensorType type{DType::kF32, {wanted, 6}};
  return resize(*trace(code, a), *trace(code, b), std::span(&type, 1));
}

// What the code decides is the same for all sizes.
void alike(Builder& builder, Expr x) {
  const int64_t n = x.dim(0);
  builder.observe(x.dim(1));
  Expr y = ops::reshape(x, {n * 2, 3});
  y = y + builder.constant(Tensor::full(DType::kF32, {n * 2, 3}, 0.5));
  Expr state = builder.state("s", {DType::kF32, {3}});
  builder.update(state, ops::mean(y, {0}));
  builder.output("y", ops::reshape(ops::broadcast_to(state, {n * 2, 3}) * y, {n, -1}));
}

TEST(Resize, EqualsATrace) {
  for (const int64_t n : {1, 5, 8, 24}) {
    const Result<Graph> graph = resized(alike, 4, 6, n);
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    EXPECT_EQ(print(*graph), print(*trace(alike, n)));
  }
}

TEST(Resize, RefusesWhatIsNotProportional) {
  const auto error = [](Code code) { return resized(code, 4, 6, 8).status().to_string(); };
  EXPECT_THAT(error([](Builder& b, Expr x) { b.output("y", ops::slice(x, 0, 0, x.dim(0) / 2)); }),
              testing::HasSubstr("2 at size 4 and 3 at 6 are not proportional"));
  EXPECT_THAT(error([](Builder& b, Expr x) { b.output("y", x * (1.0 / static_cast<double>(x.dim(0)))); }),
              testing::HasSubstr("constants of other numbers"));
  EXPECT_THAT(error([](Builder& b, Expr x) {
                for (int64_t i = 0; i < x.dim(0); ++i) x = ops::relu(x);
                b.output("y", x);
              }),
              testing::HasSubstr("the traces have 4 and 6 nodes"));
  EXPECT_THAT(error([](Builder& b, Expr x) {
                b.observe(x.dim(0));
                b.output("y", x);
              }),
              testing::HasSubstr("looks at a size that differs"));
}

TEST(Traces, TraceTwiceThenResize) {
  Traces traces;
  for (const int64_t n : {4, 6, 8, 4, 1, 9}) {
    const TensorType type{DType::kF32, {n, 6}};
    const Result<Graph> graph = traces.get(std::span(&type, 1), [&] { return trace(alike, n); });
    ASSERT_TRUE(graph.ok());
    EXPECT_EQ(print(*graph), print(*trace(alike, n)));
  }
  EXPECT_EQ(traces.count(), 2);
}

TEST(Traces, TraceWhereSizesAreNotAlike) {
  Traces traces;
  const Code code = [](Builder& b, Expr x) { b.output("y", ops::slice(x, 0, x.dim(0) - 1, x.dim(0))); };
  for (const int64_t n : {4, 6, 8}) {
    const TensorType type{DType::kF32, {n, 6}};
    const Result<Graph> graph = traces.get(std::span(&type, 1), [&] { return trace(code, n); });
    ASSERT_TRUE(graph.ok());
    EXPECT_EQ(print(*graph), print(*trace(code, n)));
  }
  EXPECT_EQ(traces.count(), 3);
  EXPECT_THAT(traces.reason(), testing::HasSubstr("not proportional"));
}

}  // namespace
}  // namespace deepseek::graph
