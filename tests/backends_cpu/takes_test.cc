// Implementations say whether they take a node before anything is made: what they take they make a kernel of, refusals
// give a reason, asking costs nothing of the size of an operand, and what is disabled is chosen nowhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/kernel.h"
#include "graph/builder.h"
#include "graph/text.h"
#include "ops/dsl.h"
#include "passes/autodiff.h"
#include "tests/ops/sample_data.h"

namespace deepseek::backends::cpu {
namespace {

using namespace graph;
using ::testing::HasSubstr;
using ::testing::Not;

NodeInfo info_of(const Graph& graph, const Node& node, const runtime::CompileOptions& options) {
  NodeInfo info{graph.context(node), {}, {}, &options};
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    info.outputs.push_back(graph.type(node.output(i)));
    info.used.push_back(true);
  }
  return info;
}

// The sample as it is, and of both half floats where the op allows them.
std::vector<Graph> graphs_of(const OpDef& def, const Sample& sample) {
  std::vector<Graph> graphs;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    Sample twin = sample;
    for (SampleInput& input : twin.inputs)
      if (input.type.dtype == DType::kF32) input.type.dtype = dtype;
    if (Result<Graph> graph = testing::sample_graph(def, twin); graph.ok()) graphs.push_back(std::move(*graph));
  }
  return graphs;
}

template <class Visit>
void for_samples(Visit visit) {
  for (const auto& [name, def] : ops::registry().all())
    for (const Sample& sample : def.samples.value)
      for (const Graph& graph : graphs_of(def, sample)) {
        SCOPED_TRACE(name + "/" + sample.name + "\n" + print(graph));
        visit(graph);
      }
}

// A small network of all that joins heavy ops: convolutions, norms, loops and sums, and its gradients.
Graph training_graph(DType dtype) {
  Builder b(ops::registry());
  const TensorType vector{DType::kF32, {32}};
  Expr x = b.input("x", {dtype, {2, 32, 12, 12}}), w = b.input("w", {dtype, {32, 32, 3, 3}}),
       v = b.input("v", {dtype, {32, 32, 1, 1}}), scale = b.input("scale", vector), bias = b.input("bias", vector),
       mean = b.input("mean", vector), var = b.input("var", vector);
  const Attrs pad{{"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}};
  const auto norm = [&](Expr y) { return b.emit("batch_norm", {y, scale, bias, mean, var}, {})[0]; };
  Expr y = ops::relu(norm(b.op("conv", {x, w}, pad)));
  y = ops::relu(norm(b.op("conv", {y, v})) + x);
  y = ops::tanh(b.op("conv", {y, w}, pad)) * y;
  b.output("loss", b.op("mean", {ops::cast(y, DType::kF32)}, {{"axes", Dims{0, 1, 2, 3}}}));
  const Result<Graph> graph = b.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  Result<Graph> gradient = passes::vjp(*graph);
  EXPECT_TRUE(gradient.ok()) << gradient.status().to_string();
  return *gradient;
}

// How many implementations took a node of the graph.
int expect_made_as_taken(const Graph& graph, const runtime::CompileOptions& options) {
  int taken = 0;
  for (const Node& node : graph.nodes()) {
    const NodeInfo info = info_of(graph, node, options);
    for (const Implementation& implementation : implementations(*node.op)) {
      const Status answer = takes(implementation, info);
      if (!answer.ok()) {
        EXPECT_EQ(answer.code(), ErrorCode::kUnsupported) << implementation.name << ": " << answer.to_string();
        EXPECT_NE(answer.message(), "") << implementation.name;
        continue;
      }
      ++taken;
      const KernelOrError kernel = implementation.make(info);
      EXPECT_TRUE(kernel.ok()) << node.op_name() << " by " << implementation.name << ": "
                               << kernel.status().to_string();
    }
  }
  return taken;
}

TEST(Takes, WhatIsTakenIsMade) {
  const runtime::CompileOptions options;
  int taken = 0;
  for_samples([&](const Graph& graph) { taken += expect_made_as_taken(graph, options); });
  EXPECT_GT(taken, 500);
}

TEST(Takes, WhatIsTakenIsMadeInCompiledGraphs) {
  runtime::CompileOptions options;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    for (const auto& off :
         {std::vector<std::string>(), std::vector<std::string>{"winograd"}, std::vector<std::string>{"microgemm"}}) {
      options.disabled_implementations = off;
      const auto program = CpuBackend().compile(training_graph(dtype), options);
      ASSERT_TRUE(program.ok()) << program.status().to_string();
      const Graph& graph = (*program)->graph();
      EXPECT_THAT(print(graph), HasSubstr("fused"));
      expect_made_as_taken(graph, options);
    }
}

// Why the implementation does not take the op; empty where it does.
std::string refusal(std::string_view implementation, const std::string& op, const std::vector<TensorType>& types,
                    Attrs attrs = {}) {
  Builder b(ops::registry());
  std::vector<Expr> inputs;
  for (const TensorType& type : types) inputs.push_back(b.input(std::to_string(inputs.size()), type));
  b.output("y", b.emit(op, inputs, std::move(attrs))[0]);
  const Result<Graph> graph = b.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  if (!graph.ok()) return "";
  const runtime::CompileOptions options;
  const Node& node = graph->nodes().back();
  for (const Implementation& i : implementations(*node.op))
    if (i.name == implementation) return takes(i, info_of(*graph, node, options)).message();
  return "no such implementation";
}

TEST(Takes, RefusalsSayWhy) {
  const auto f32 = [](Dims dims) { return TensorType{DType::kF32, std::move(dims)}; };
  const auto f64 = [](Dims dims) { return TensorType{DType::kF64, std::move(dims)}; };
  EXPECT_EQ(refusal("gemm", "matmul", {f32({2, 3}), f32({3, 4})}), "");
  EXPECT_EQ(refusal("gemm", "matmul", {f64({2, 3}), f64({3, 4})}), "dtype f64 is not supported");
  EXPECT_EQ(refusal("onednn", "matmul", {f64({2, 3}), f64({3, 4})}), "dtype f64 is not supported");
  EXPECT_EQ(refusal("upcast", "matmul", {f32({2, 3}), f32({3, 4})}), "no operand is a half float");
  EXPECT_EQ(refusal("gemm", "matmul", {f32({0, 3}), f32({3, 4})}), "a tensor without elements");
  EXPECT_EQ(refusal("gemm", "matmul", {f32({512, 512}), f32({512, 512})}), "oneDNN is faster for large products");
  EXPECT_EQ(refusal("elementwise", "sum", {f32({5, 3})}, {{"axes", Dims{0}}}), "a sum of rows");
  EXPECT_EQ(refusal("elementwise", "sum", {f64({5, 3})}, {{"axes", Dims{0}}}), "sums of f64 in a loop");
  EXPECT_EQ(refusal("native", "sum", {{DType::kBF16, {5, 3}}}, {{"axes", Dims{0}}}), "dtype bf16 is not supported");
  EXPECT_EQ(refusal("native", "batch_norm_inference", {f32({2, 3, 4}), f32({3}), f32({3}), f32({3}), f32({3})}), "");
  EXPECT_EQ(refusal("native_blocked", "batch_norm_inference", {f32({2, 3, 4}), f32({3}), f32({3}), f32({3}), f32({3})}),
            "the channels are not blocked");
  EXPECT_EQ(refusal("winograd", "blocked_conv", {f32({1, 2, 8, 8, 16}), f32({2, 2, 1, 1, 16, 16})}),
            "not a kernel of 3 x 3 with stride 1");
  EXPECT_EQ(refusal("winograd", "blocked_conv", {f32({1, 1, 4, 4, 16}), f32({1, 1, 3, 3, 16, 16})}),
            "too few products for its transforms");
}

TEST(Takes, BodiesAreRefusedByTheNodeThatIsInTheWay) {
  const TensorType type{DType::kF32, {4, 4}};
  const auto fused = [&](std::string_view implementation, const auto& make) {
    Builder b(ops::registry());
    make(b, b.input("x", type));
    const Result<Graph> body = b.finish();
    EXPECT_TRUE(body.ok()) << body.status().to_string();
    return refusal(implementation, "fused", {type}, {{"body", std::make_shared<const Graph>(*body)}});
  };
  const auto loop = [](Builder& b, Expr x) { b.output("y", b.op("gelu", {ops::exp(x)})); };
  EXPECT_EQ(fused("elementwise", loop), "");
  EXPECT_EQ(fused("microgemm", loop), "no heavy op in the body");
  EXPECT_EQ(fused("elementwise",
                  [](Builder& b, Expr x) {
                    b.output("y", ops::exp(b.op("cumsum", {x}, {{"axis", int64_t{0}}})));
                  }),
            "cumsum in its body is not element-wise");
  EXPECT_EQ(fused("elementwise",
                  [](Builder& b, Expr x) {
                    Expr y = ops::exp(x);
                    b.output("y", y);
                    b.output("z", y);
                  }),
            "one value is two outputs");
  EXPECT_EQ(fused("native_blocked", [](Builder& b, Expr x) { b.output("y", b.op("softmax", {ops::exp(x)})); }),
            "the heavy op is softmax");
}

// Operands of terabytes: whoever made memory of their size to answer would not come back.
TEST(Takes, AskingNeedsNoMemoryOfTheSizeOfAnOperand) {
  Builder b(ops::registry());
  const int64_t large = int64_t{1} << 17;
  Expr x = b.input("x", {DType::kF32, {large, 32, large}}), y = b.input("y", {DType::kF32, {large, large, 32}});
  Expr image = b.input("image", {DType::kF32, {2, 32, large, large}}), w = b.input("w", {DType::kF32, {32, 32, 3, 3}});
  b.output("matmul", ops::matmul(x, y));
  b.output("conv", b.op("conv", {image, w}));
  b.output("pool", b.emit("avg_pool", {image}, {{"kernel", Dims{2, 2}}})[0]);
  b.output("transpose", b.op("transpose", {x}, {{"permutation", Dims{1, 2, 0}}}));
  b.output("loop", ops::tanh(x) * x);
  b.output("sum", b.op("sum", {x}, {{"axes", Dims{2}}}));
  b.output("softmax", b.op("softmax", {x}));
  const Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  const runtime::CompileOptions options;
  for (const Node& node : graph->nodes()) {
    bool taken = false;
    for (const Implementation& implementation : implementations(*node.op))
      taken = takes(implementation, info_of(*graph, node, options)).ok() || taken;
    EXPECT_TRUE(taken) << node.op_name();
  }
}

void expect_not_chosen(const Graph& graph, const std::string& name) {
  runtime::CompileOptions options;
  options.disabled_implementations = {name};
  const auto program = CpuBackend().compile(graph, options);
  ASSERT_TRUE(program.ok()) << "without " << name << ": " << program.status().to_string();
  for (const runtime::NodeReport& r : (*program)->report()) {
    EXPECT_NE(r.implementation.substr(0, r.implementation.find(' ')), name) << r.op;
    if (!r.implementation.starts_with("upcast (")) continue;
    EXPECT_THAT(r.implementation, Not(HasSubstr("(" + name + ")")));
    EXPECT_THAT(r.implementation, Not(HasSubstr("(" + name + ":")));
  }
}

TEST(Takes, WhatIsDisabledIsChosenNowhere) {
  std::set<std::string> names;
  for (const auto& [name, def] : ops::registry().all())
    for (const Implementation& implementation : implementations(def)) names.emplace(implementation.name);
  names.erase("reference");
  EXPECT_GE(names.size(), 8u);
  for (const std::string& name : names) {
    for_samples([&](const Graph& graph) { expect_not_chosen(graph, name); });
    for (const DType dtype : {DType::kF32, DType::kBF16}) expect_not_chosen(training_graph(dtype), name);
  }
}

// The body's own kernels: what is left for them without loops is the reference.
TEST(Takes, WhatIsDisabledIsNotChosenInBodies) {
  const OpDef& scan = *ops::registry().find("scan");
  ASSERT_FALSE(scan.samples.value.empty());
  for (const Sample& sample : scan.samples.value) {
    const Result<Graph> graph = testing::sample_graph(scan, sample);
    ASSERT_TRUE(graph.ok());
    for (const bool off : {false, true}) {
      runtime::CompileOptions options;
      if (off) options.disabled_implementations = {"elementwise"};
      const auto program = CpuBackend().compile(*graph, options);
      ASSERT_TRUE(program.ok()) << program.status().to_string();
      bool found = false;
      for (const runtime::NodeReport& r : (*program)->report()) {
        if (r.op != "scan") continue;
        found = true;
        EXPECT_THAT(r.implementation, HasSubstr("kernels a step"));
        EXPECT_EQ(r.implementation.find("on reference") != std::string::npos, off) << r.implementation;
      }
      EXPECT_TRUE(found) << print((*program)->graph());
    }
  }
}

}  // namespace
}  // namespace deepseek::backends::cpu
