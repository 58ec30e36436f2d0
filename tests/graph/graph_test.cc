// Builder and verifier: what they accept, and the text of what they refuse.
#include "graph/graph.h"

#include <gtest/gtest.h>

#include "graph/builder.h"
#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::graph {
namespace {

TensorType f32(Dims dims) { return {DType::kF32, std::move(dims)}; }

TEST(Builder, LeavesOutWhatNobodyReadsAndNumbersAnew) {
  Builder b(ops::registry());
  Expr x = b.input("x", f32({2}));
  ops::exp(x);
  b.output("y", ops::neg(x));
  Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  EXPECT_EQ(print(*graph), "graph {\n  input %0 \"x\" : f32[2]\n  %1 = neg(%0) : f32[2]\n  output \"y\" %1\n}\n");
}

TEST(Builder, TheFirstErrorSticksWithItsScope) {
  Builder b(ops::registry());
  Expr x = b.input("x", f32({2, 3}));
  {
    Scope outer(b, "encoder"), inner(b, "fc");
    Expr y = ops::matmul(x, x);
    EXPECT_FALSE(y.defined());
    ops::relu(y);  // does nothing
    ops::matmul(x, b.input("z", f32({9, 9})));
  }
  EXPECT_EQ(b.scope(), "");
  b.output("x", x);
  const Result<Graph> graph = b.finish();
  ASSERT_FALSE(graph.ok());
  EXPECT_TRUE(graph.status().message().starts_with("[matmul] node 'encoder/fc': ")) << graph.status().message();
  EXPECT_EQ(b.take_status().message(), graph.status().message());
  EXPECT_TRUE(b.status().ok());
}

std::string error_of(const std::function<void(Builder&, Expr)>& build) {
  Builder b(ops::registry());
  build(b, b.state("w", f32({2, 3})));
  return b.finish().status().message();
}

TEST(Builder, MistakesAreNamed) {
  const auto expect = [](const char* message, const std::function<void(Builder&, Expr)>& build) {
    EXPECT_EQ(error_of(build), message);
  };
  expect("[softmx] is no registered op", [](Builder& b, Expr w) { b.op("softmx", {w}); });
  expect("[softmax] has no attribute 'axes'; it has: axis", [](Builder& b, Expr w) {
    b.op("softmax", {w}, {{"axes", int64_t{1}}});
  });
  expect("[softmax] attribute 'axis': expected a int, got a string", [](Builder& b, Expr w) {
    b.op("softmax", {w}, {{"axis", std::string("last")}});
  });
  expect("[reshape] needs the attribute 'dims' (the new shape)", [](Builder& b, Expr w) { b.op("reshape", {w}); });
  expect("[add] expected 2 inputs, got 1", [](Builder& b, Expr w) { b.op("add", {w}); });
  expect("two outputs are called 'y'; names must differ", [](Builder& b, Expr w) {
    b.output("y", w);
    b.output("y", ops::neg(w));
  });
  expect("two inputs are called 'w'; names must differ",
         [](Builder& b, Expr w) { b.output("y", w + b.input("w", f32({}))); });
  expect("input 'x' is updated but is not state", [](Builder& b, Expr w) { b.update(b.input("x", f32({2, 3})), w); });
  expect("state 'w' is updated twice", [](Builder& b, Expr w) {
    b.update(w, ops::neg(w));
    b.update(w, ops::exp(w));
  });
  expect("update of state 'w': expected f32[2,3], got f32[2]",
         [](Builder& b, Expr w) { b.update(w, ops::sum(w, {1})); });
  expect("input 'big': expected sizes in [0, 2147483647], got f32[-1]",
         [](Builder& b, Expr) { b.input("big", f32({-1})); });
  Builder other(ops::registry());
  Expr stranger = other.input("x", f32({2, 3}));
  expect("[add] input 1 belongs to another graph; all inputs of an op come from one graph", [&](Builder& b, Expr w) {
    b.op("add", {w, stranger});
  });
}

TEST(Builder, InliningBindsInputsAndNestsScopes) {
  Builder inner(ops::registry());
  Expr a = inner.input("a", f32({2}));
  {
    Scope scope(inner, "act");
    inner.output("r", ops::relu(a));
  }
  const Graph body = *inner.finish();
  Builder b(ops::registry());
  Scope scope(b, "layer");
  Expr x = b.input("x", f32({2}));
  const std::vector<Expr> args{ops::neg(x)};
  b.output("y", b.inline_graph(body, args)[0]);
  const Graph graph = *b.finish();
  ASSERT_EQ(graph.nodes().size(), 2u);
  EXPECT_EQ(graph.nodes()[1].scope, "layer/act");
  EXPECT_EQ(graph.nodes()[1].inputs[0], graph.nodes()[0].output());
}

TEST(Graph, FindsByNameAndCountsUses) {
  Builder b(ops::registry());
  Expr x = b.input("x", f32({2})), w = b.state("w", f32({2}));
  Expr y = x * x;
  b.output("y", y);
  b.update(w, y);
  const Graph g = *b.finish();
  EXPECT_EQ(g.find_input("w"), 1);
  EXPECT_EQ(g.find_input("y"), -1);
  EXPECT_EQ(g.find_output("y"), 0);
  EXPECT_EQ(g.use_counts(), (std::vector<int32_t>{2, 0, 2}));
  EXPECT_EQ(g.producer(g.inputs()[0].value), nullptr);
  EXPECT_EQ(g.producer(g.outputs()[0].value)->op_name(), "mul");
}

// What no builder makes: data put together wrongly must be caught before a program reads past it.
TEST(Verify, RefusesContradictions) {
  Builder b(ops::registry());
  b.output("y", ops::neg(ops::exp(b.input("x", f32({2})))));
  const Graph good = *b.finish();
  Graph::Data data;
  const auto fresh = [&] {
    data = {};
    data.registry = &good.registry();
    for (int32_t v = 0; v < good.num_values(); ++v) data.types.push_back(good.type({v}));
    data.producer = {-1, 0, 1};
    data.inputs.assign(good.inputs().begin(), good.inputs().end());
    data.nodes.assign(good.nodes().begin(), good.nodes().end());
    data.outputs.assign(good.outputs().begin(), good.outputs().end());
  };
  fresh();
  EXPECT_TRUE(verify(Graph(data)).ok());
  data.nodes[0].inputs[0] = {2};
  EXPECT_EQ(verify(Graph(data)).message(), "[exp] node '' reads %2 before it is made");
  fresh();
  data.nodes[0].inputs[0] = {7};
  EXPECT_EQ(verify(Graph(data)).message(), "[exp] node '' reads %7 before it is made");
  fresh();
  data.types[1] = f32({3});
  EXPECT_EQ(verify(Graph(data)).message(), "[exp] node '' output 0: expected f32[2] by inference, got f32[3]");
  fresh();
  data.nodes[1].first_output = {1};
  EXPECT_EQ(verify(Graph(data)).message(), "%1 is made twice");
  fresh();
  data.outputs[0].value = {};
  EXPECT_EQ(verify(Graph(data)).message(), "output 'y' is not made by any node");
}

}  // namespace
}  // namespace deepseek::graph
