#include "graph/cloner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/interpreter.h"
#include "ops/registry.h"
#include "passes/autodiff.h"
#include "passes/fuse_elementwise.h"

namespace deepseek::graph {
namespace {

TensorType f32(Dims dims) { return {DType::kF32, std::move(dims)}; }

Graph step() {
  Builder b(ops::registry());
  Expr x = b.input("x", f32({2, 3})), w = b.state("w", f32({3}));
  b.set_scope("layer/1");
  Expr y = ops::exp(x * w);
  b.output("y", y);
  b.update(w, w + ops::sum(y, {0}));
  return *b.finish();
}

TEST(Cloner, CopiesAsItIs) {
  const Graph graph = step();
  Builder b(graph.registry());
  Cloner cloner(b, graph);
  cloner.inputs();
  cloner.nodes();
  cloner.results();
  EXPECT_EQ(print(*b.finish()), print(graph));
}

TEST(Cloner, PutsOtherValuesInPlace) {
  const Graph graph = step();
  Builder c(graph.registry());
  Cloner again(c, graph);
  again.inputs();
  for (const Node& node : graph.nodes()) {
    if (node.op_name() == "exp")
      again.set(node, {ops::tanh(again.operands(node)[0])});
    else
      again.copy(node);
  }
  again.results();
  const std::string text = print(*c.finish());
  EXPECT_NE(text.find("tanh"), std::string::npos);
  EXPECT_EQ(text.find("exp"), std::string::npos);
  EXPECT_NE(text.find("update \"w\""), std::string::npos);
}

// An op that only a test has, beside the built-in ones: every pass and the interpreter find both.
OpDef cube_op() {
  return {.name = "cube",
          .doc = "x * x * x",
          .inputs = std::vector<OperandSpec>{{"x", "any float"}},
          .outputs = std::vector<OperandSpec>{{"y", "as x"}},
          .infer = [](const OpContext& c) -> TypesOrError { return c.inputs; },
          .gradient = Gradient::by_decomposition(),
          .reference = Reference::by_decomposition(),
          .decompose = [](Builder&, const OpContext&, std::span<const Expr> in) -> std::vector<Expr> {
            return {in[0] * in[0] * in[0]};
          },
          .traits = {.elementwise = true},
          .samples = std::vector<Sample>{{"one", {{{DType::kF32, {2}}}}}}};
}

TEST(Registry, OpsOfATestLiveBesideTheBuiltInOnes) {
  OpRegistry registry(&ops::registry());
  ASSERT_TRUE(registry.add(cube_op()).ok());
  EXPECT_EQ(registry.add(cube_op()).message(), "op 'cube' is registered twice");
  OpDef exp = cube_op();
  exp.name = "exp";
  EXPECT_EQ(registry.add(std::move(exp)).message(), "op 'exp' is registered twice");
  EXPECT_EQ(registry.names().size(), ops::registry().names().size() + 1);
  EXPECT_EQ(ops::registry().find("cube"), nullptr);
  Builder b(registry);
  Expr x = b.input("x", f32({3}));
  b.output("loss", ops::sum(b.op("cube", {ops::exp(x)})));
  const Graph graph = *b.finish();
  EXPECT_EQ(&graph.registry(), &registry);
  const Graph parsed = *parse(print(graph), registry);
  EXPECT_EQ(&parsed.registry(), &registry);
  Result<Graph> derivative = passes::autodiff(parsed, "loss", {"x"});
  ASSERT_TRUE(derivative.ok()) << derivative.status().to_string();
  derivative = passes::fuse_elementwise(*derivative);
  ASSERT_TRUE(derivative.ok());
  EXPECT_EQ(&derivative->registry(), &registry);
  RefTensor in(f32({3}));
  in.data = {0, 0.5, -1};
  const auto out = ops::evaluate_reference(*derivative, {in});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR((*out)[1].data[i], 3 * std::exp(3 * in.data[i]), 1e-6);  // of exp(x)^3
}

}  // namespace
}  // namespace deepseek::graph
