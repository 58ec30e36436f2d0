// Where the first value that is not finite comes from.
#include "train/numerics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/dsl.h"
#include "ops/registry.h"
#include "runtime/backend.h"

namespace deepseek::train {
namespace {

using namespace graph;

std::string found(const std::vector<float>& x) {
  Builder builder(ops::registry());
  const Expr input = builder.input("x", {DType::kF32, {3}});
  builder.set_scope("layer1");
  const Expr e = ops::exp(input);
  builder.set_scope("layer2");
  const Expr y = e - e * 2.0;
  builder.set_scope("layer3");
  builder.output("y", ops::tanh(y + e));
  const Counted counted = *with_counts(*builder.finish());
  const auto program = *(*runtime::open_backend("cpu"))->compile(counted.graph, {});
  const auto out = *program->run(std::vector<Tensor>{Tensor::from<float>(DType::kF32, {3}, x)});
  return first_not_finite(counted.values, program->graph(), out);
}

TEST(Numerics, NothingWhereAllIsFinite) { EXPECT_EQ(found({1, 2, 3}), ""); }

TEST(Numerics, ANanAndTheInfinityThatItComesFrom) {  // exp(200) is beyond f32; inf - inf is none
  EXPECT_EQ(found({1, 200, 300}),
            "exp in 'layer1' gives 2 inf of f32[3], and then sub in 'layer2' gives 2 nan of f32[3]");
}

TEST(Numerics, AnInputIsToldFirst) { EXPECT_EQ(found({1, NAN, 3}), "'x' holds 1 nan of f32[3]"); }

}  // namespace
}  // namespace deepseek::train
