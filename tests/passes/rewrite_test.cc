// Rules: applied until none fits, wrong ones are caught. What passes do with them is in the golden files.
#include "passes/rewrite.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::passes {
namespace {

using namespace graph;

Graph chain(int length) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {2, 3}});
  for (int i = 0; i < length; ++i) x = ops::neg(x);
  b.output("y", x);
  return *b.finish();
}

TEST(Rewrite, RulesApplyUntilNoneFits) {
  const std::vector<Rule> rules{
      {"-(-x)", op("neg", {op("neg", {any("x")})}), [](const Found& f) { return f.at("x"); }}};
  const Result<Graph> odd = rewrite(chain(7), rules);
  ASSERT_TRUE(odd.ok()) << odd.status().to_string();
  EXPECT_EQ(odd->nodes().size(), 1u);
  EXPECT_EQ(rewrite(chain(8), rules)->nodes().size(), 0u);
  const Graph none = chain(1);
  EXPECT_TRUE(rewrite(none, rules)->same_as(none));
}

TEST(Rewrite, ARuleThatDeclinesLeavesTheNode) {
  const std::vector<Rule> rules{{"declines", op("neg", {any("x")}), [](const Found&) { return Expr(); }}};
  const Graph g = chain(2);
  EXPECT_TRUE(rewrite(g, rules)->same_as(g));
}

TEST(Rewrite, ARuleThatChangesTheTypeIsAnError) {
  const std::vector<Rule> rules{
      {"flat", op("neg", {any("x")}), [](const Found& f) { return ops::reshape(f.at("x"), {6}); }}};
  EXPECT_EQ(rewrite(chain(1), rules).status().message(),
            "rule 'flat' replaces [neg] node '': expected f32[2,3], got f32[6]");
}

TEST(Rewrite, RulesThatUndoEachOtherAreAnError) {
  const std::vector<Rule> rules{{"there", op("neg", {any("x")}), [](const Found& f) { return ops::abs(f.at("x")); }},
                                {"back", op("abs", {any("x")}), [](const Found& f) { return ops::neg(f.at("x")); }}};
  EXPECT_EQ(rewrite(chain(1), rules).status().message(),
            "rewriting does not end after 64 rounds; the last rule was 'back'");
}

TEST(Rewrite, ReplacedNodesKeepTheirScopeAndUpdatesCarryOver) {
  Builder b(ops::registry());
  Expr w = b.state("w", {DType::kF32, {2}});
  Expr y;
  {
    Scope scope(b, "layer");
    y = ops::neg(w);
  }
  b.output("y", y);
  b.update(w, ops::exp(y));
  const Result<Graph> after = rewrite(
      *b.finish(),
      [](Builder&, const Graph&, const Node& node, const std::vector<Expr>& in) -> std::optional<std::vector<Expr>> {
        if (node.op_name() != "neg") return std::nullopt;
        return std::vector<Expr>{ops::abs(in[0])};
      });
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  EXPECT_EQ(after->nodes()[0].op_name(), "abs");
  EXPECT_EQ(after->nodes()[0].scope, "layer");
  ASSERT_EQ(after->updates().size(), 1u);
  EXPECT_EQ(after->producer(after->updates()[0].value)->op_name(), "exp");
}

}  // namespace
}  // namespace deepseek::passes
