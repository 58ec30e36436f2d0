#include "passes/driver.h"

#include <gtest/gtest.h>

#include "graph/builder.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::passes {
namespace {

using namespace graph;

Graph small() {
  Builder b(ops::registry());
  b.output("y", ops::exp(b.input("x", {DType::kF32, {2}})));
  return *b.finish();
}

Result<Graph> double_output(const Graph& graph, const PassContext&) {
  Builder b(graph.registry());
  const std::vector<Expr> in{b.input("x", {DType::kF32, {2}})};
  b.output("y", b.inline_graph(graph, in)[0] * 2.0);
  return b.finish();
}
Result<Graph> keep(const Graph& graph, const PassContext&) { return graph; }
Result<Graph> rename_input(const Graph& graph, const PassContext&) {
  Builder b(graph.registry());
  const std::vector<Expr> in{b.input("z", {DType::kF32, {2}})};
  b.output("y", b.inline_graph(graph, in)[0]);
  return b.finish();
}
Result<Graph> fail(const Graph&, const PassContext&) { return invalid("it does not like this graph"); }

constexpr Pass kPasses[] = {{"double", "", double_output}, {"keep", "", keep}, {"double_again", "", double_output}};

TEST(PassDriver, RunsInOrderAndTellsWhatHappened) {
  std::vector<std::string> seen;
  const PassDriver driver(plain_target(), {{}, [&](const PassRecord& r) {
                                             EXPECT_GE(r.seconds, 0);
                                             seen.push_back(std::string(r.pass) + (r.changed() ? "*" : ""));
                                           }});
  const Result<Graph> out = driver.run(kPasses, small());
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  EXPECT_EQ(seen, (std::vector<std::string>{"double*", "keep", "double_again*"}));
  EXPECT_EQ(out->nodes().size(), 5u);  // exp, and twice a constant and a product
}

TEST(PassDriver, LeavesOutWhatIsDisabled) {
  const PassDriver driver(plain_target(), {{"double"}, {}});
  EXPECT_TRUE(driver.disabled("double"));
  EXPECT_EQ(driver.run(kPasses, small())->nodes().size(), 3u);
}

TEST(PassDriver, ErrorsSayWhichPassTheyComeFrom) {
  const PassDriver driver;
  EXPECT_EQ(driver.run("fail", small(), fail).status().to_string(),
            "it does not like this graph\n  note: in pass 'fail'");
  EXPECT_EQ(driver.run("rename", small(), rename_input).status().message(),
            "pass 'rename' changes input 'x' of the graph");
  EXPECT_TRUE(driver.run("rename", small(), rename_input, false).ok());
}

}  // namespace
}  // namespace deepseek::passes
