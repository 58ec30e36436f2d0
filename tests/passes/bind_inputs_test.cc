// Inputs that become constants, and what is refused.
#include "passes/bind_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/registry.h"

namespace deepseek::passes {
namespace {

using namespace graph;
using ::testing::HasSubstr;

Graph scaled() {
  return *parse(R"(graph {
    input %0 "x" : f32[2]
    state %1 "w" : f32[2]
    state %2 "count" : f32[]
    %3 = mul(%0, %1) : f32[2]
    %4 = add(%2, %2) : f32[]
    output "y" %3
    update "count" %4
  })",
                ops::registry());
}

TEST(BindInputs, AConstantTakesTheInputsPlace) {
  const Tensor w = Tensor::full(DType::kF32, {2}, 3);
  const Result<Graph> bound = bind_inputs(scaled(), {{"w", w}});
  ASSERT_TRUE(bound.ok()) << bound.status().to_string();
  ASSERT_EQ(bound->inputs().size(), 2u);
  EXPECT_EQ(bound->inputs()[1].name, "count");
  ASSERT_EQ(bound->updates().size(), 1u);
  EXPECT_EQ(bound->updates()[0].input, 1);
  EXPECT_EQ(bound->nodes()[0].attrs.get<Tensor>("value"), w);
}

TEST(BindInputs, RefusesWhatCannotBeConstant) {
  const auto message = [](const char* name, Dims dims) {
    return bind_inputs(scaled(), {{name, Tensor::zeros(DType::kF32, std::move(dims))}}).status().to_string();
  };
  EXPECT_THAT(message("w", {3}), HasSubstr("input 'w': expected a constant f32[2], got f32[3]"));
  EXPECT_THAT(message("v", {2}), HasSubstr("no input 'v'"));
  EXPECT_THAT(message("count", {}), HasSubstr("the graph updates it"));
}

}  // namespace
}  // namespace deepseek::passes
