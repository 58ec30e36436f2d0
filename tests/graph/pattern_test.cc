// Patterns on graphs given as text: what matches, what is captured, and what must not match.
#include "graph/pattern.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "ops/registry.h"

namespace deepseek::graph {
namespace {

Graph graph_of(std::string_view text) {
  Result<Graph> graph = parse(text, ops::registry());
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return graph.ok() ? *graph : Graph(Graph::Data{});
}

const char* const kText = R"(graph {
  input %0 "x" : f32[2,3]
  input %1 "y" : f32[2,3]
  %2 = constant() {value=f32[]<2>} : f32[]
  %3 = mul(%2, %0) : f32[2,3]
  %4 = sub(%3, %1) : f32[2,3]
  %5 = mul(%4, %4) : f32[2,3]
  %6 = add(%5, %3) : f32[2,3]
  %7 = sum(%6) {axes=[1], keepdims=false} : f32[2]
  output "z" %7
}
)";

class PatternTest : public ::testing::Test {
 protected:
  std::optional<Match> match(const Pattern& p, int32_t value) const { return Matcher(graph_).match(p, {value}); }
  bool matches(const Pattern& p, int32_t value) const { return match(p, value).has_value(); }
  const Graph graph_ = graph_of(kText);
};

TEST_F(PatternTest, OperandsOfACommutativeOpMatchInEitherOrder) {
  const std::optional<Match> doubled = match(op("mul", {any("x"), constant(2)}), 3);
  ASSERT_TRUE(doubled);
  EXPECT_EQ(doubled->at("x"), Value{0});
  EXPECT_FALSE(doubled->at("other").defined());
  EXPECT_TRUE(matches(op("mul", {constant(2), any()}), 3));
  EXPECT_FALSE(matches(op("mul", {constant(3), any()}), 3));
  // Subtraction is not commutative.
  EXPECT_TRUE(matches(op("sub", {op("mul"), any()}), 4));
  EXPECT_FALSE(matches(op("sub", {any(), op("mul")}), 4));
}

TEST_F(PatternTest, OnlyTheOpAndNumberOfOperandsAskedFor) {
  EXPECT_FALSE(matches(op("add"), 3));
  EXPECT_FALSE(matches(op("mul"), 0));  // an input
  EXPECT_FALSE(matches(op("mul", {any()}), 3));
  EXPECT_TRUE(matches(any(), 0));
  EXPECT_TRUE(matches(op("constant", {}), 2));
}

TEST_F(PatternTest, PartsOfOneNameAreOneValue) {
  EXPECT_TRUE(matches(op("mul", {any("a"), any("a")}), 5));
  EXPECT_FALSE(matches(op("mul", {any("a"), any("a")}), 3));
}

// add(mul(a, a), b) with a = b - y: the first order in which the root's operands match in themselves gives b the wrong
// value; the other order must still be tried.
TEST_F(PatternTest, AnEarlierChoiceIsTakenBackWhereTheRestFails) {
  const Pattern difference = op("sub", {any("b"), any("y")}).as("a");
  const std::optional<Match> m = match(op("add", {any("b"), op("mul", {difference, any("a")})}), 6);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->at("b"), Value{3});
  EXPECT_EQ(m->at("a"), Value{4});
  EXPECT_EQ(m->at("y"), Value{1});
  // The first alternative fits the operand itself, but gives p another value than the second operand needs.
  const Pattern left = either({op("sub", {any("p"), any()}), any("p")});
  const std::optional<Match> second = match(op("mul", {left, any("p")}), 5);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->at("p"), Value{4});
  EXPECT_FALSE(match(op("mul", {op("sub", {any("p"), any()}), any("p")}), 5));
}

TEST_F(PatternTest, Attributes) {
  EXPECT_TRUE(matches(op("sum", {any()}).attr("axes", Dims{1}), 7));
  EXPECT_FALSE(matches(op("sum", {any()}).attr("axes", Dims{0}), 7));
  EXPECT_FALSE(matches(op("sum").attr("no_such", Dims{1}), 7));
  const auto short_list = [](const AttrValue& v) { return std::get<Dims>(v).size() < 2; };
  EXPECT_TRUE(matches(op("sum").attr("axes", short_list).attr("keepdims", false), 7));
}

TEST_F(PatternTest, UsesAndConditions) {
  EXPECT_TRUE(matches(op("mul").uses(2), 3));
  EXPECT_FALSE(matches(op("mul").uses(1), 3));
  EXPECT_TRUE(matches(op("sum").uses(1), 7));  // the graph's output reads it
  EXPECT_TRUE(matches(op("sub", {op("mul", {any(), any("x")}).uses(2), any()}), 4));
  EXPECT_FALSE(matches(op("sub", {op("mul").uses(1), any()}), 4));
  const auto matrix = [](const Graph& g, Value v) { return g.type(v).rank() == 2; };
  EXPECT_TRUE(matches(any().where(matrix), 0));
  EXPECT_FALSE(matches(any().where(matrix), 2));
}

TEST(Pattern, OutputsOfOneNodeAreToldApart) {
  const Graph graph = graph_of(R"(graph {
  input %0 "x" : f32[2,5]
  %1, %2 = top_k(%0) {axis=-1, k=3, largest=true} : f32[2,3], i64[2,3]
  output "values" %1
  output "indices" %2
}
)");
  const Matcher matcher(graph);
  EXPECT_TRUE(matcher.match(op("top_k"), {1}));
  EXPECT_FALSE(matcher.match(op("top_k"), {2}));
  EXPECT_TRUE(matcher.match(op("top_k", {any("x")}).output(1), {2}));
}

TEST(Pattern, AConstantHasAllItsElementsEqual) {
  const Graph graph = graph_of(R"(graph {
  %0 = constant() {value=f32[2]<1,1>} : f32[2]
  %1 = constant() {value=f32[2]<1,2>} : f32[2]
  %2 = add(%0, %1) : f32[2]
  output "z" %2
}
)");
  const Matcher matcher(graph);
  EXPECT_TRUE(matcher.match(constant(1), {0}));
  EXPECT_FALSE(matcher.match(constant(1), {1}));
  EXPECT_FALSE(matcher.match(constant(1), {2}));
}

}  // namespace
}  // namespace deepseek::graph
