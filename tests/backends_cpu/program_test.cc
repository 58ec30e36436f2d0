// Programs as a whole: state in place, order of updates, errors, fusion against the reference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "backends/cpu/cpu_backend.h"
#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::backends::cpu {
namespace {

using namespace graph;
using ::testing::HasSubstr;

std::shared_ptr<const runtime::Program> compile(const Graph& graph, const runtime::CompileOptions& options = {}) {
  auto program = CpuBackend().compile(graph, options);
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  return program.ok() ? *program : nullptr;
}
Graph parsed(const char* text) {
  Result<Graph> graph = parse(text, ops::registry());
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return graph.ok() ? *graph : Graph(Graph::Data{});
}
Tensor vector(std::vector<double> values) {
  return Tensor::from<double>(DType::kF32, {static_cast<int64_t>(values.size())}, values);
}
std::vector<double> values(const Tensor& t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.num_elements(); ++i) out.push_back(t.at(i));
  return out;
}

TEST(CpuProgram, WritesAnOutputAgainOnlyWhereNobodyHoldsIt) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[3]
    %1 = neg(%0) : f32[3]
    output "y" %1
  })");
  const auto program = compile(graph);
  Tensor held = (*program->run(std::vector{vector({1, 2, 3})}))[0];
  const void* const first = held.data();
  Tensor other = (*program->run(std::vector{vector({4, 5, 6})}))[0];
  EXPECT_NE(other.data(), first);
  EXPECT_EQ(values(held), (std::vector<double>{-1, -2, -3}));
  const void* const second = other.data();
  const Tensor view = other.reshaped({1, 3});  // holds it, too
  other = Tensor();
  other = (*program->run(std::vector{vector({7, 8, 9})}))[0];
  EXPECT_NE(other.data(), second);
  EXPECT_EQ(values(view), (std::vector<double>{-4, -5, -6}));
  const void* const third = other.data();
  other = Tensor();
  EXPECT_EQ((*program->run(std::vector{vector({0, 0, 1})}))[0].data(), third);
}

TEST(CpuProgram, UpdatesStateInPlaceAndReturnsItsOldValue) {
  const Graph graph = parsed(R"(graph {
    state %0 "w" : f32[3]
    input %1 "x" : f32[3]
    %2 = add(%0, %1) : f32[3]
    output "old" %0
    output "new" %2
    update "w" %2
  })");
  Tensor w = vector({1, 2, 3});
  Result<std::vector<Tensor>> out = compile(graph)->run(std::vector<Tensor>{w, vector({10, 20, 30})});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  EXPECT_EQ(values((*out)[0]), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(values((*out)[1]), (std::vector<double>{11, 22, 33}));
  EXPECT_EQ(values(w), (std::vector<double>{11, 22, 33}));
}

// W (packed by the kernel), a scale computed ahead of it, and a constant read as it is.
TEST(CpuProgram, ConstantsAreTakenAsTheyAreWhileCompiling) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[8,16]
    state %1 "w" : f32[32,16]
    state %2 "b" : f32[32]
    %3 = matmul(%0, %1) {transpose_a=false, transpose_b=true} : f32[8,32]
    %4 = exp(%2) : f32[32]
    %5 = mul(%3, %4) : f32[8,32]
    %6 = add(%5, %2) : f32[8,32]
    output "y" %6
    output "b" %2
  })");
  const auto ramp = [](Dims dims) {
    Tensor t(DType::kF32, std::move(dims));
    for (int64_t i = 0; i < t.num_elements(); ++i) t.set(i, static_cast<double>(i % 7) / 7 - 0.4);
    return t;
  };
  const Tensor x = ramp({8, 16}), w = ramp({32, 16}), b = ramp({32});
  const Result<std::vector<Tensor>> expected = compile(graph)->run(std::vector<Tensor>{x, w, b});
  runtime::CompileOptions options;
  options.constants = {{"w", w}, {"b", b}};
  const auto program = compile(graph, options);
  ASSERT_EQ(program->graph().inputs().size(), 1u);
  const std::vector<double> before = values(b);
  for (const Tensor& t : {w, b}) std::memset(t.data(), 0, t.num_bytes());
  const Result<std::vector<Tensor>> out = program->run(std::vector<Tensor>{x});
  ASSERT_TRUE(out.ok() && expected.ok());
  for (int64_t i = 0; i < x.num_elements(); ++i) EXPECT_NEAR((*out)[0].at(i), (*expected)[0].at(i), 1e-5);
  EXPECT_EQ(values((*out)[1]), before);
  for (const runtime::NodeReport& r : program->report()) EXPECT_NE(r.op, "exp");
}

TEST(CpuProgram, ProfileTimesEachNodeAndSumsRuns) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[64,64]
    %1 = matmul(%0, %0) {transpose_a=false, transpose_b=false} : f32[64,64]
    %2 = sum(%1) {axes=[], keepdims=false} : f32[]
    output "x" %0
    output "sum" %2
  })");
  const auto program = compile(graph);
  const std::vector<Tensor> inputs = {Tensor::full(DType::kF32, {64, 64}, 0.5)};
  runtime::Profile profile;
  ASSERT_TRUE(program->run(inputs, &profile).ok());
  ASSERT_EQ(program->report().size(), 2u);
  EXPECT_EQ(program->report()[0].op, "matmul");
  EXPECT_EQ(program->report()[1].node, 1);
  ASSERT_EQ(profile.seconds.size(), 2u);
  EXPECT_EQ(profile.runs, 1);
  const runtime::Profile first = profile;
  for (double s : {first.seconds[0], first.seconds[1], first.copies}) {
    EXPECT_GT(s, 0);
    EXPECT_LT(s, 10);
  }
  // Each node begins where the one before it ended.
  ASSERT_EQ(profile.starts.size(), 2u);
  EXPECT_GE(profile.starts[0], 0);
  EXPECT_GE(profile.starts[1], profile.starts[0] + profile.seconds[0] - 1e-9);
  ASSERT_TRUE(program->run(inputs).ok());  // without a profile nothing is added
  EXPECT_EQ(profile.runs, 1);
  ASSERT_TRUE(program->run(inputs, &profile).ok());
  EXPECT_EQ(profile.runs, 2);
  EXPECT_GT(profile.seconds[0], first.seconds[0]);
  EXPECT_GT(profile.copies, first.copies);
}

TEST(CpuProgram, TwoStatesMaySwap) {
  const Graph graph = parsed(R"(graph {
    state %0 "a" : f32[2]
    state %1 "b" : f32[2]
    update "a" %1
    update "b" %0
  })");
  Tensor a = vector({1, 2}), b = vector({3, 4});
  ASSERT_TRUE(compile(graph)->run(std::vector<Tensor>{a, b}).ok());
  EXPECT_EQ(values(a), (std::vector<double>{3, 4}));
  EXPECT_EQ(values(b), (std::vector<double>{1, 2}));
}

TEST(CpuProgram, AnUpdateWaitsForLaterReadersOfTheOldState) {
  const Graph graph = parsed(R"(graph {
    state %0 "w" : f32[4]
    %1 = exp(%0) : f32[4]
    %2 = sum(%1) {axes=[], keepdims=false} : f32[]
    %3 = mul(%0, %2) : f32[4]
    %4 = max(%0) {axes=[], keepdims=false} : f32[]
    output "max" %4
    update "w" %3
  })");
  Tensor w = vector({0, 0, 0, 1});
  Result<std::vector<Tensor>> out = compile(graph)->run(std::vector<Tensor>{w});
  ASSERT_TRUE(out.ok());
  EXPECT_DOUBLE_EQ((*out)[0].at(0), 1);
  EXPECT_NEAR(w.at(3), 3 + 2.718281828, 1e-5);
}

TEST(CpuProgram, FusesElementwiseChainsIntoOneNode) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {64, 100}}), bias = b.input("bias", {DType::kF32, {100}});
  b.output("y", ops::tanh(ops::relu(x + bias) * 0.5 - 1.0));
  Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok());
  auto program = compile(*graph);
  ASSERT_EQ(program->graph().nodes().size(), 1u) << print(program->graph());
  EXPECT_EQ(program->graph().nodes()[0].op_name(), "fused");
  EXPECT_EQ(program->arena_bytes(), 0u);
}

TEST(CpuProgram, PassesMayBeDisabledByName) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[2,3]
    %1 = transpose(%0) {permutation=[1,0]} : f32[3,2]
    %2 = matmul(%0, %1) {transpose_a=false, transpose_b=false} : f32[2,2]
    output "y" %2
  })");
  EXPECT_EQ(compile(graph)->graph().nodes().size(), 1u);  // simplify turns the factor inside the product
  EXPECT_EQ(compile(graph, {.disabled_passes = {"simplify"}})->graph().nodes().size(), 2u);
  EXPECT_EQ(CpuBackend().compile(graph, {.disabled_passes = {"simplfy"}}).status().message(),
            "disabled_passes: there is no pass 'simplfy'; there are: simplify, fold_constants, block_channels, cse, "
            "decompose_norms, rematerialize_norms, fuse_elementwise, fuse_epilogues, schedule, fuse_horizontal, "
            "precompute, recompute, fuse_recomputed");
  EXPECT_EQ(CpuBackend().compile(graph, {.disabled_passes = {"decompose_composites"}}).status().message(),
            "disabled_passes: 'decompose_composites' cannot be disabled: programs need it");
}

TEST(CpuProgram, ServesManyThreads) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {50, 50}});
  b.output("y", ops::sum(ops::matmul(x, x), {1}));
  auto program = compile(*b.finish());
  std::vector<std::thread> threads;
  std::vector<double> results(8);
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i)
        results[t] = (*program->run(std::vector<Tensor>{Tensor::full(DType::kF32, {50, 50}, t)}))[0].at(0);
    });
  for (std::thread& t : threads) t.join();
  for (int t = 0; t < 8; ++t) EXPECT_EQ(results[t], 2500.0 * t * t);
}

TEST(CpuProgram, ErrorsNameTheInputOrTheReasons) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[3]
    %1 = exp(%0) : f32[3] @"layer/act"
    output "y" %1
  })");
  EXPECT_EQ(compile(graph)->run(std::vector<Tensor>{vector({1, 2})}).status().message(),
            "program: input 'x': expected f32[3], got f32[2]");
  EXPECT_EQ(compile(graph)->run(std::vector<Tensor>{}).status().message(), "program: expected 1 inputs, got 0");
  runtime::CompileOptions none;
  none.disabled_implementations = {"elementwise", "reference"};
  const Status status = CpuBackend().compile(graph, none).status();
  EXPECT_THAT(status.message(), HasSubstr("[exp] node 'layer/act': no CPU implementation takes f32[3] -> f32[3]:"));
  EXPECT_THAT(status.message(), HasSubstr("reference: disabled by option"));
}

TEST(Builder, ErrorsNameOpNodeExpectedAndActual) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {2, 3}});
  {
    Scope scope(b, "encoder/0/fc");
    ops::matmul(x, x);
  }
  EXPECT_EQ(b.finish().status().message(),
            "[matmul] node 'encoder/0/fc': expected equal inner sizes, got 3 of f32[2,3] and 2 of f32[2,3]");
}

TEST(Parser, ErrorsGiveThePlace) {
  const auto message = [](const char* text) { return parse(text, ops::registry(), "m.graph").status().message(); };
  EXPECT_EQ(message("graph {\n  input %0 \"x\" : f33[2]\n}"),
            "m.graph:2:18: unknown dtype 'f33'; expected one of bool, u8, i8, i32, i64, f16, bf16, f32, f64");
  EXPECT_EQ(message("graph {\n  %1 = exp(%0) : f32[2]\n}"), "m.graph:2:12: %0 is not defined above");
  EXPECT_EQ(message("graph {\n  %1 = exq() : f32[2]\n}"), "m.graph:2:8: 'exq' is no registered op");
}

}  // namespace
}  // namespace deepseek::backends::cpu
