// The text form: both directions, exact numbers, and errors that say where. Every op sample round-trips in
// tests/ops/samples_test.cc; arbitrary bytes in tests/fuzz/graph_text_fuzz.cc.
#include "graph/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::graph {
namespace {

constexpr const char* kLayer = R"(graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3,4]
  %2 = matmul(%0,%1) {transpose_a=false, transpose_b=false} : f32[2,4] @"fc"
  %3 = constant() {value=f32[2]<0.1,-inf>} : f32[2]
  %4,%5 = top_k(%2) {axis=-1, k=2, largest=true} : f32[2,2],i64[2,2]
  output "y \"q\"" %2
  output "c" %3
  output "best" %4
  output "which" %5
  update "w" %1
}
)";

TEST(Text, ParsesAndPrintsTheSame) {
  const Result<Graph> graph = parse(kLayer, ops::registry());
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_EQ(print(*graph), kLayer);
  EXPECT_EQ(graph->nodes()[0].scope, "fc");
  EXPECT_EQ(graph->outputs()[0].name, "y \"q\"");
  EXPECT_EQ(graph->nodes()[1].attrs.get<Tensor>("value").as<float>()[0], 0.1f);
}

TEST(Text, CommentsSpacesAndOtherNamesAreRead) {
  const Result<Graph> graph = parse(
      "graph{input %a \"x\":f32[2] # the data\n%long_name=neg(%a):f32[2] output \"y\" %long_name}", ops::registry());
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_EQ(print(*graph), "graph {\n  input %0 \"x\" : f32[2]\n  %1 = neg(%0) : f32[2]\n  output \"y\" %1\n}\n");
}

TEST(Text, NumbersAreExact) {
  for (const double v : std::vector<double>{0.1, 1e-300, -0.0, 1.0 / 3, INFINITY, 5e-324, 3.0}) {
    Builder b(ops::registry());
    b.output("c", b.constant(Tensor::scalar(DType::kF64, v)));
    const Result<Graph> again = parse(print(*b.finish()), ops::registry());
    ASSERT_TRUE(again.ok()) << again.status().to_string();
    const double back = again->nodes()[0].attrs.get<Tensor>("value").at(0);
    EXPECT_EQ(back, v);
    EXPECT_EQ(std::signbit(back), std::signbit(v));
  }
  Tensor big(DType::kI64, {1});
  big.as<int64_t>()[0] = INT64_MAX;  // no double holds it
  Builder b(ops::registry());
  b.output("c", b.constant(big));
  EXPECT_EQ(parse(print(*b.finish()), ops::registry())->nodes()[0].attrs.get<Tensor>("value").as<int64_t>()[0],
            INT64_MAX);
}

TEST(Text, ErrorsSayWhereAndWhat) {
  const auto error = [](const std::string& body) {
    return parse("graph {\n  input %0 \"x\" : f32[2]\n" + body, ops::registry(), "f").status().message();
  };
  EXPECT_EQ(error("  %1 = softmx(%0) : f32[2]\n}"), "f:3:8: 'softmx' is no registered op");
  EXPECT_EQ(error("  %1 = neg(%3) : f32[2]\n}"), "f:3:12: %3 is not defined above");
  EXPECT_EQ(error("  %0 = neg(%0) : f32[2]\n}"), "f:3:3: %0 is defined twice");
  EXPECT_EQ(error("  %1 = softmax(%0) {axes=1} : f32[2]\n}"), "f:3:21: op 'softmax' has no attribute 'axes'");
  EXPECT_EQ(error("  %1 = softmax(%0) {axis=x} : f32[2]\n}"),
            "f:3:26: expected an integer of 64 bits, got 'x} : f32[2]'");
  EXPECT_EQ(error("  %1 = softmax(%0) : f32[2]\n}"),
            "f:3:3: op 'softmax': needs the attribute 'axis' (the axis that is normalised, negative from the end)");
  EXPECT_EQ(error("  %1 = add(%0) : f32[2]\n}"), "f:3:3: op 'add': expected 2 inputs, got 1");
  EXPECT_EQ(error("  %1 = iota(%0) {dims=[2], axis=0, dtype=i64} : i64[2]\n}"),
            "f:3:3: op 'iota': expected 0 inputs, got 1");
  EXPECT_EQ(error("  %1 = attention(%0) {scale=-1, causal=false} : f32[2]\n}"),
            "f:3:3: op 'attention': expected 3 to 4 inputs, got 1");
  EXPECT_EQ(error("  %1 = concat() {axis=0} : f32[2]\n}"), "f:3:3: op 'concat': expected 1 or more inputs, got 0");
  EXPECT_EQ(error("  update \"w\" %0\n}"), "f:3:3: update of 'w', which is no input");
  EXPECT_EQ(error("  outptu \"y\" %0\n}"),
            "f:3:3: expected input, state, output, update, a node or '}', got 'outptu \"y\" %'");
  EXPECT_EQ(error("  output \"y %0\n}"), "f:4:2: expected a closing quote, got end of text");
  EXPECT_EQ(error(""), "f:3:1: expected input, state, output, update, a node or '}', got end of text");
  EXPECT_EQ(error("}\nmore"), "f:4:1: expected end of text, got 'more'");
  EXPECT_NE(error("  %1 = neg(%0) : f32[3]\n}").find("expected f32[2] by inference, got f32[3]"), std::string::npos);
}

TEST(Text, ShortTextCannotAskForMuch) {
  const auto error = [](const std::string& type) {
    return parse("graph { %0 = constant() {value=" + type + "<1>} : " + type + " output \"y\" %0 }", ops::registry())
        .status()
        .message();
  };
  EXPECT_NE(error("f32[2147483647]").find("expected as many elements as f32[2147483647]"), std::string::npos);
  EXPECT_NE(error("f32[9223372036854775807,9]").find("expected sizes in [0, 2147483647]"), std::string::npos);
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "graph { %0 = fused() {body=";
  EXPECT_NE(parse(deep, ops::registry()).status().message().find("graphs are nested too deeply"), std::string::npos);
}

TEST(Text, TensorsOutsideOfIt) {
  const std::string inner =
      "graph {\n  input %0 \"a\" : f32[3]\n  %1 = constant() {value=f32[3]<1,2,3>} : f32[3]\n"
      "  %2 = add(%0,%1) : f32[3]\n  output \"b\" %2\n}";
  const std::string text =
      "graph {\n  input %0 \"x\" : f32[3]\n  %1 = fused(%0) {body=" + inner +
      "} : f32[3]\n  %2 = constant() {value=f32[1]<7>} : f32[1]\n  output \"y\" %1\n  output \"c\" %2\n}";
  const Result<Graph> graph = parse(text, ops::registry());
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::map<std::string, Tensor> outside;
  const std::string shorter = print(*graph, [&](const Tensor& t) -> std::optional<std::string> {
    if (t.num_elements() < 2) return std::nullopt;
    outside["a \"name\""] = t;
    return "a \"name\"";
  });
  EXPECT_NE(shorter.find("f32[3]<\"a \\\"name\\\"\">"), std::string::npos) << shorter;
  EXPECT_NE(shorter.find("f32[1]<7.0>"), std::string::npos) << shorter;
  const auto find = [&](const std::string& name) -> Result<Tensor> {
    const auto found = outside.find(name);
    if (found == outside.end()) return invalid("there is no '{}'", name);
    return found->second;
  };
  const Result<Graph> again = parse(shorter, ops::registry(), "f", {.outside = find});
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(print(*again), print(*graph));
  EXPECT_NE(parse(shorter, ops::registry(), "f")
                .status()
                .message()
                .find("a tensor 'a \"name\"' outside of the text, which is all there is"),
            std::string::npos);
  outside["a \"name\""] = Tensor::zeros(DType::kF64, {3});
  EXPECT_NE(parse(shorter, ops::registry(), "f", {.outside = find})
                .status()
                .message()
                .find("tensor 'a \"name\"': expected f32[3], got f64[3]"),
            std::string::npos);
  outside.clear();
  EXPECT_NE(parse(shorter, ops::registry(), "f", {.outside = find}).status().message().find("there is no 'a \"name\"'"),
            std::string::npos);
}

TEST(Text, AttributesThatAnOpHasGotSince) {
  const char* text = "graph { input %0 \"x\" : f32[2,3] %1 = softmax(%0) : f32[2,3] output \"y\" %1 }";
  EXPECT_FALSE(parse(text, ops::registry()).ok());
  const Result<Graph> graph = parse(text, ops::registry(), "f", {.fill_defaults = true});
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_EQ(graph->nodes()[0].attrs.integer("axis"), -1);
  const char* needed = "graph { input %0 \"x\" : f32[6] %1 = reshape(%0) : f32[2,3] output \"y\" %1 }";
  EXPECT_NE(parse(needed, ops::registry(), "f", {.fill_defaults = true}).status().message().find("needs the attribute"),
            std::string::npos);
}

TEST(Attrs, AreSortedAndEqualByValue) {
  Attrs a{{"b", int64_t{1}}, {"a", Tensor::scalar(DType::kF32, 2)}},
      b{{"a", Tensor::scalar(DType::kF32, 2)}, {"b", int64_t{1}}};
  EXPECT_TRUE(a == b);
  EXPECT_EQ(a.begin()->first, "a");
  b.set("b", int64_t{2});
  EXPECT_FALSE(a == b);
  EXPECT_FALSE(same_value(AttrValue(int64_t{1}), AttrValue(1.0)));
  EXPECT_EQ(a.find("c"), nullptr);
}

}  // namespace
}  // namespace deepseek::graph
