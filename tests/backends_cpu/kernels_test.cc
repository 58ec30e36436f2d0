// Native kernels beyond the samples' small shapes: sizes that cross tile and thread boundaries against the reference,
// the same bits for 1 and 3 threads, other dtypes, errors of bad indices, and which samples still run on the reference.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <regex>

#include "backends/cpu/block_gemm.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/tile_program.h"
#include "base/threads.h"
#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/interpreter.h"
#include "passes/autodiff.h"
#include "tests/ops/sample_data.h"

namespace deepseek::backends::cpu {
namespace {

using namespace graph;

struct Call {
  std::string op;
  Sample sample;
};

class Threads {  // restores the number of threads
 public:
  Threads() : before_(num_threads()) {}
  ~Threads() { set_num_threads(before_); }

 private:
  int before_;
};

Graph graph_of(const Call& call) {
  const OpDef* def = ops::registry().find(call.op);
  if (def == nullptr) {
    ADD_FAILURE() << call.op;
    return Graph(Graph::Data{});
  }
  Result<Graph> graph = testing::sample_graph(*def, call.sample);
  EXPECT_TRUE(graph.ok()) << call.op << ": " << graph.status().to_string();
  return graph.ok() ? *graph : Graph(Graph::Data{});
}

// Whether an operand or result of the node has no elements, which is the reference's work.
bool is_empty(const runtime::NodeReport& r) {
  static const std::regex zero(R"([\[,]0[\],])");
  return std::regex_search(r.types, zero);
}

std::vector<std::string> on_reference(const runtime::Program& program) {
  std::vector<std::string> ops;
  for (const runtime::NodeReport& r : program.report())
    if (const std::string& i = r.implementation;
        i.starts_with("reference") || i.find("on reference") != std::string::npos)
      if (!is_empty(r)) ops.push_back(r.op);
  return ops;
}

// Natively, within tolerance of the reference, and the same bits on 1 and 3 threads; oneDNN does not promise the
// latter.
void check(const Call& call, const runtime::CompileOptions& options = {}) {
  const Threads threads;
  const Graph graph = graph_of(call);
  if (graph.outputs().empty()) return;
  std::vector<Tensor> tensors;
  std::vector<RefTensor> inputs = testing::sample_inputs(call.sample);
  for (RefTensor& t : inputs) {
    tensors.push_back(testing::to_tensor(t));
    for (size_t i = 0; i < t.data.size(); ++i) t.data[i] = tensors.back().at(static_cast<int64_t>(i));
  }
  auto expected = ops::evaluate_reference(graph, inputs);
  ASSERT_TRUE(expected.ok()) << expected.status().to_string();
  std::vector<std::vector<Tensor>> runs;
  bool ours = true;
  for (int n : {1, 3}) {
    set_num_threads(n);
    auto program = CpuBackend().compile(graph, options);
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    EXPECT_EQ(on_reference(**program), std::vector<std::string>{}) << call.op << " " << call.sample.name;
    for (const runtime::NodeReport& r : (*program)->report())
      ours = ours && r.op != "scan" && r.implementation.find("onednn") == std::string::npos;
    auto out = (*program)->run(tensors);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    runs.push_back(std::move(*out));
  }
  for (size_t o = 0; o < runs[0].size(); ++o) {
    const Tensor& y = runs[0][o];
    EXPECT_TRUE(!ours || std::memcmp(y.data(), runs[1][o].data(), y.num_bytes()) == 0)
        << call.op << " " << call.sample.name << " output " << o << " depends on the number of threads";
    const double half = y.dtype() == DType::kBF16 ? 8e-3 : y.dtype() == DType::kF16 ? 1e-3 : 0;
    const double tolerance = std::max(call.sample.tolerance, half);
    for (int64_t i = 0; i < y.num_elements(); ++i) {
      const double e = (*expected)[o].data[i], a = y.at(i);
      if (std::isnan(e) && std::isnan(a)) continue;
      ASSERT_NEAR(a, e, tolerance * std::max(1.0, std::fabs(e)))
          << call.op << " " << call.sample.name << " output " << o << " element " << i;
    }
  }
}

SampleInput input(DType dtype, Dims dims, Fill fill = Fill::kNormal, int64_t limit = 2) {
  return {{dtype, std::move(dims)}, fill, limit};
}
SampleInput floats(Dims dims) { return input(DType::kF32, std::move(dims)); }
SampleInput index(Dims dims, int64_t limit, DType dtype = DType::kI64) {
  return input(dtype, std::move(dims), Fill::kIndices, limit);
}

// Every sample, and its gradient: an op that falls back to the reference is slow by accident.
TEST(Kernels, NoSampleRunsOnTheReference) {
  std::vector<std::string> slow;
  for (const auto& [name, def] : ops::registry().all())
    for (const Sample& sample : def.samples.value) {
      const Graph graph = graph_of({name, sample});
      const auto add = [&slow, where = name + "/" + sample.name](const Graph& g, const char* what) {
        auto program = CpuBackend().compile(g, {});
        ASSERT_TRUE(program.ok()) << program.status().to_string();
        for (const std::string& op : on_reference(**program)) slow.push_back(where + what + op);
      };
      add(graph, ": ");
      if (!def.gradient.value.differentiable() || !sample.check_gradient) continue;
      Result<Graph> gradient = passes::vjp(graph);
      ASSERT_TRUE(gradient.ok()) << gradient.status().to_string();
      add(*gradient, " gradient: ");
    }
  EXPECT_EQ(slow, std::vector<std::string>{});
}

TEST(Kernels, GatherAndItsAdjointOnManyRowsAndColumns) {
  for (DType dtype : {DType::kF32, DType::kF64, DType::kI32, DType::kI64, DType::kU8, DType::kBF16, DType::kF16}) {
    check({"gather", {"rows", {input(dtype, {300, 130}), index({40, 30}, 300)}, {}}});
    check({"take_along_axis", {"last", {input(dtype, {200, 130}), index({200, 170}, 130)}, {}}});
  }
  check({"gather", {"last", {floats({300, 50}), index({170}, 50, DType::kI32)}, {{"axis", int64_t{1}}}}});
  for (DType dtype : {DType::kF32, DType::kF64, DType::kI32, DType::kI64, DType::kBF16, DType::kF16}) {
    check({"scatter_add", {"columns", {input(dtype, {400, 300}), index({400}, 90)}, {{"dim_size", int64_t{90}}}}});
    check({"scatter_add", {"rows", {input(dtype, {9000, 7}), index({9000}, 900)}, {{"dim_size", int64_t{900}}}}});
    check({"put_along_axis_add",
           {"middle",
            {input(dtype, {5, 70, 130}), index({5, 70, 130}, 40)},
            {{"axis", int64_t{1}}, {"dim_size", int64_t{40}}}}});
  }
  check({"one_hot", {"many", {index({700}, 90)}, {{"depth", int64_t{90}}, {"dtype", DType::kBF16}}}});
  check({"iota", {"many", {}, {{"dims", Dims{7, 900, 9}}, {"axis", int64_t{1}}, {"dtype", DType::kI32}}}});
}

TEST(Kernels, SearchesAndSumsAlongLongAxes) {
  for (DType dtype : {DType::kF32, DType::kF64, DType::kI32, DType::kU8, DType::kBF16, DType::kF16}) {
    const Fill fill = is_float(dtype) ? Fill::kNormal : Fill::kIndices;
    for (const Dims& dims : {Dims{90, 300, 1}, Dims{3, 70, 130}}) {
      const Sample s{"middle", {input(dtype, dims, fill, 50)}, {{"axis", int64_t{1}}}};
      check({"argmax", s});
      check({"argmin", s});
      check({"cumsum", s});
      Sample top = s;
      top.attrs.set("k", int64_t{13});
      check({"top_k", top});
      top.attrs.set("largest", false);
      check({"top_k", top});
    }
  }
}

TEST(Kernels, ReductionsOfEveryNumber) {
  for (const char* op : {"sum", "max", "min"})
    for (DType dtype : {DType::kF64, DType::kI32, DType::kI64, DType::kU8})
      check({op,
             {"middle",
              {input(dtype, {3, 50, 70, 9}, is_float(dtype) ? Fill::kNormal : Fill::kIndices, 5)},
              {{"axes", Dims{1, 3}}}}});
  for (DType dtype : {DType::kF32, DType::kF64, DType::kI64})
    for (const Dims& axes : {Dims{0, 2, 4}, Dims{1, 3}})
      check({"sum", {"alternating", {input(dtype, {3, 7, 20, 9, 30}, Fill::kIndices, 5)}, {{"axes", axes}}}});
  for (DType dtype : {DType::kF32, DType::kF64})
    check({"prod", {"middle", {input(dtype, {30, 17, 70}, Fill::kPositive)}, {{"axes", Dims{1}}}}});
}

TEST(Kernels, RandomNumbersAreThoseOfTheReference) {
  const SampleInput rng = index({2}, 100000);
  check({"random_uniform", {"long", {rng}, {{"dims", Dims{70001}}, {"stream", int64_t{5}}}, false, 0}});
  check({"dropout", {"long", {floats({70001}), rng}, {{"rate", 0.3}, {"stream", int64_t{5}}}, false, 1e-7}});
  check({"dropout", {"f64", {input(DType::kF64, {1001}), rng}, {{"rate", 0.3}}, false, 1e-14}});
}

TEST(Kernels, GroupNormOfManySets) {
  for (int64_t groups : {1, 4, 20}) {
    const Attrs attrs{{"groups", groups}};
    check({"group_norm", {"many", {floats({9, 20, 30, 7}), floats({20}), floats({20})}, attrs}});
    check({"group_norm_grad",
           {"many",
            {floats({9, 20, 30, 7}), floats({9, 20, 30, 7}), floats({20}), floats({9, groups}),
             input(DType::kF32, {9, groups}, Fill::kPositive)},
            attrs,
            false,
            2e-4}});
  }
}

// The program's outputs on random inputs (a variance is positive) are the reference's.
void expect_reference(const Graph& graph, const runtime::Program& program) {
  EXPECT_EQ(on_reference(program), std::vector<std::string>{});
  Sample sample;
  for (const Input& input : graph.inputs())
    sample.inputs.push_back({graph.type(input.value), input.name == "var" ? Fill::kPositive : Fill::kNormal, 2});
  std::vector<RefTensor> inputs = testing::sample_inputs(sample);
  std::vector<Tensor> tensors;
  for (RefTensor& t : inputs) {
    tensors.push_back(testing::to_tensor(t));
    for (size_t i = 0; i < t.data.size(); ++i) t.data[i] = tensors.back().at(static_cast<int64_t>(i));
  }
  const auto expected = ops::evaluate_reference(graph, inputs);
  const auto actual = program.run(tensors);
  ASSERT_TRUE(expected.ok() && actual.ok()) << actual.status().to_string();
  for (size_t o = 0; o < actual->size(); ++o) {
    double largest = 0;  // long sums round by their size, also where they end near 0
    for (double e : (*expected)[o].data) largest = std::max(largest, std::fabs(e));
    for (int64_t i = 0; i < (*actual)[o].num_elements(); ++i) {
      const double e = (*expected)[o].data[static_cast<size_t>(i)];
      ASSERT_NEAR((*actual)[o].at(i), e, std::max(2e-4 * std::max(1.0, std::fabs(e)), 5e-6 * largest))
          << graph.outputs()[o].name << " " << i;
    }
  }
}

// Blocked batch norm with the loops around it, at sizes that cross chunks: training, inference and both gradients, with
// a value that is read outside of the loop too. Each must be one kernel.
TEST(Kernels, BlockedBatchNormWithLoopsAroundIt) {
  const Threads threads;
  for (const int n_threads : {1, 3}) {
    set_num_threads(n_threads);
    for (const Dims& dims :
         {Dims{3, 2, 17, 19, 16}, Dims{2, 3, 40, 32}, Dims{2, 1, 5, 16}, Dims{2, 3, 5, 29, 8}, Dims{3, 1, 700, 12}}) {
      const int64_t block = dims.back(), channels = dims[1] * block;
      Builder b(ops::registry());
      const TensorType vector{DType::kF32, {channels}};
      const Attrs blocked{{"channel_block", block}};
      Expr x = b.input("x", {DType::kF32, dims}), r = b.input("r", {DType::kF32, dims});
      Expr scale = b.input("scale", vector), bias = b.input("bias", vector), mean = b.input("mean", vector),
           var = b.input("var", vector);
      const std::vector<Expr> norm = b.emit("batch_norm", {x, scale, bias, mean, var}, blocked);
      Expr y = ops::relu(norm[0] + r);
      Expr kept = norm[0] * 2.0;  // joins the loop: the norm's own result leaves it
      Expr inferred = ops::tanh(b.op("batch_norm_inference", {x, scale, bias, mean, var}, blocked)) * r;
      Expr dy = ops::select(ops::greater(y, ops::zeros_like(y)), r, ops::zeros_like(r));
      const std::vector<Expr> grads = b.emit("batch_norm_grad", {dy, x, scale, norm[1], norm[2]}, blocked);
      b.output("y", y);
      b.output("kept", kept);
      b.output("inferred", inferred);
      b.output("dy", dy);
      for (size_t i = 0; i < 3; ++i) b.output("grad" + std::to_string(i), grads[i]);
      for (size_t i = 1; i < 5; ++i) b.output("norm" + std::to_string(i), norm[i]);
      const Result<Graph> graph = b.finish();
      ASSERT_TRUE(graph.ok()) << graph.status().to_string();
      auto program = CpuBackend().compile(*graph, {});
      ASSERT_TRUE(program.ok()) << program.status().to_string();
      int joined = 0;
      for (const runtime::NodeReport& report : (*program)->report())
        joined += report.implementation.starts_with("native_blocked (with a loop");
      EXPECT_EQ(joined, 2) << print((*program)->graph());
      expect_reference(*graph, **program);
    }
  }
}

// Convolution, given norm, shortcut and activation as one kernel; a bias whose sum is read by others too.
TEST(Kernels, BlockedConvolutionWithALoopAfterIt) {
  const Threads threads;
  for (const int n_threads : {1, 3}) {
    set_num_threads(n_threads);
    Builder b(ops::registry());
    const TensorType x_type{DType::kF32, {2, 32, 19, 17}}, vector{DType::kF32, {64}};
    Expr x = b.input("x", x_type), w = b.input("w", {DType::kF32, {64, 32, 3, 3}});
    Expr w2 = b.input("w2", {DType::kF32, {64, 64, 1, 1}}), scale = b.input("scale", vector),
         bias = b.input("bias", vector), mean = b.input("mean", vector), var = b.input("var", vector);
    Expr first = b.op("conv", {x, w}, {{"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}});
    Expr y = b.op("batch_norm_inference", {first, scale, bias, mean, var});
    Expr z = ops::relu(y);
    Expr second = b.op("conv", {z, w2}) + ops::reshape(bias, {1, 64, 1, 1});
    b.output("out", ops::tanh(second) + y);
    b.output("second", second);
    const Result<Graph> graph = b.finish();
    ASSERT_TRUE(graph.ok()) << graph.status().to_string();
    for (const auto& off : {std::vector<std::string>(), std::vector<std::string>{"winograd"}}) {
      runtime::CompileOptions options;
      options.disabled_implementations = off;
      auto program = CpuBackend().compile(*graph, options);
      ASSERT_TRUE(program.ok()) << program.status().to_string();
      int joined = 0, direct = 0, transformed = 0;
      for (const runtime::NodeReport& report : (*program)->report()) {
        joined += report.implementation.find("with a loop after it") != std::string::npos;
        direct += report.implementation.starts_with("microgemm");
        transformed += report.implementation.starts_with("winograd");
      }
      EXPECT_EQ(joined, direct + transformed) << print((*program)->graph());
      EXPECT_EQ(transformed, off.empty() && direct + transformed > 0 ? 1 : 0);
      expect_reference(*graph, **program);
    }
  }
}

// Recurrent ops run their body's program; unread results and saved carries take other paths than the samples.
TEST(Kernels, ScansEqualTheReferenceForAnyThreadsAndSteps) {
  for (bool reverse : {false, true})
    for (int64_t steps : {1, 2, 7}) {
      const Attrs attrs{{"reverse", reverse}};
      check({"lstm",
             {"long",
              {floats({steps, 20, 9}), floats({20, 40}), floats({20, 40}), floats({160, 9}), floats({160, 40}),
               floats({160})},
              attrs}});
    }
  const OpDef* lstm = ops::registry().find("lstm");
  Result<Graph> forward = testing::sample_graph(*lstm, lstm->samples.value[0]);
  ASSERT_TRUE(forward.ok());
  // Only the last state is read.
  Builder b(ops::registry());
  std::vector<Expr> in;
  for (const Input& i : forward->inputs()) in.push_back(b.input(i.name, forward->type(i.value)));
  b.output("c", b.inline_graph(*forward, in)[2]);
  Result<Graph> last = b.finish();
  ASSERT_TRUE(last.ok()) << last.status().to_string();
  const std::vector<RefTensor> inputs = testing::sample_inputs(lstm->samples.value[0]);
  auto expected = ops::evaluate_reference(*last, inputs);
  ASSERT_TRUE(expected.ok());
  auto program = CpuBackend().compile(*last, {});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  std::vector<Tensor> tensors;
  for (const RefTensor& t : inputs) tensors.push_back(testing::to_tensor(t));
  auto out = (*program)->run(tensors);
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  for (int64_t i = 0; i < (*out)[0].num_elements(); ++i) EXPECT_NEAR((*out)[0].at(i), (*expected)[0].data[i], 1e-5);
}

// Every cast, where loops are machine code and where they are not.
TEST(Kernels, CastsBetweenAllTypes) {
  const DType all[] = {DType::kBool, DType::kU8,   DType::kI8,  DType::kI32, DType::kI64,
                       DType::kF16,  DType::kBF16, DType::kF32, DType::kF64};
  for (const DType from : all)
    for (const DType to : all) {
      if (from == to) continue;
      const Fill fill = from == DType::kBool ? Fill::kBool : is_float(from) ? Fill::kNormal : Fill::kIndices;
      check({"cast", {"all", {input(from, {1003}, fill, 100)}, {{"dtype", to}}}});
    }
}

// bf16 convolutions whose weights are known keep them packed.
TEST(Kernels, KnownWeightsOfBf16) {
  Builder b(ops::registry());
  Tensor w = Tensor::zeros(DType::kF32, {48, 32, 1, 1});
  for (int64_t i = 0; i < w.num_elements(); ++i) w.as<float>()[i] = static_cast<float>(i * 7 % 23 - 11) / 16;
  Expr x = b.input("x", {DType::kBF16, {2, 32, 9, 11}});
  Expr y = b.op("conv", {x, b.constant(w.cast(DType::kBF16))});
  b.output("y", ops::cast(ops::relu(y), DType::kF32));
  const Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok()) << graph.status().to_string();
  std::vector<std::vector<Tensor>> results;
  const Tensor input =
      testing::to_tensor(testing::sample_inputs(Sample{"", {{{DType::kBF16, {2, 32, 9, 11}}, Fill::kNormal, 2}}})[0]);
  for (const auto& off : {std::vector<std::string>(), std::vector<std::string>{"microgemm", "winograd", "onednn"}}) {
    runtime::CompileOptions options;
    options.disabled_implementations = off;
    auto program = CpuBackend().compile(*graph, options);
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    for (int run = 0; run < 2; ++run) {
      auto out = (*program)->run(std::span(&input, 1));
      ASSERT_TRUE(out.ok()) << out.status().to_string();
      results.push_back(std::move(*out));
    }
  }
  for (size_t r = 1; r < results.size(); ++r)
    for (int64_t i = 0; i < results[0][0].num_elements(); ++i)
      ASSERT_NEAR(results[0][0].at(i), results[r][0].at(i), 8e-3 * std::max(1.0, std::fabs(results[r][0].at(i)))) << i;
}

// In f32 inside, rounded once at the end; only casts round on the way.
TEST(Kernels, HalfFloats) {
  for (DType h : {DType::kBF16, DType::kF16}) {
    const auto x = [h](Dims dims, Fill fill = Fill::kNormal) { return input(h, std::move(dims), fill); };
    for (const char* op : {"exp", "tanh", "gelu", "silu", "relu", "sqrt", "neg"})
      check({op, {"odd", {x({3, 1237}, Fill::kPositive)}, {}}});
    for (const char* op : {"add", "mul", "div", "maximum", "less"})
      check({op, {"broadcast", {x({5, 700}, Fill::kPositive), x({5, 1}, Fill::kPositive)}, {}}});
    for (DType other : {DType::kF32, DType::kF64, DType::kI32, DType::kBool}) {
      check({"cast", {"from", {x({1003})}, {{"dtype", other}}}});
      check({"cast", {"to", {input(other, {1003})}, {{"dtype", h}}}});
    }
    check({"broadcast_to", {"row", {x({1, 600})}, {{"dims", Dims{4, 600}}}}});
    for (const char* op : {"sum", "mean", "max"}) check({op, {"rows", {x({40, 700})}, {{"axes", Dims{1}}}}});
    check({"softmax", {"rows", {x({40, 300})}, {{"axis", int64_t{1}}}}});
    check({"matmul", {"odd", {x({65, 33}), x({33, 70})}, {}, true, 2e-2}});
    check({"layer_norm", {"rows", {x({9, 130}), x({130}), x({130})}, {}, true, 2e-2}});
    check({"layer_norm", {"mixed", {x({9, 130}), floats({130}), floats({130})}, {}, true, 2e-2}});
    check({"conv", {"plain", {x({2, 5, 9, 9}), x({6, 5, 3, 3})}, {}, true, 2e-2}});
    check({"max_pool", {"plain", {x({2, 3, 8, 8})}, {{"kernel", Dims{2, 2}}}}});
    const Dims one{1, 1, 0};
    const Attrs window{
        {"kernel", Dims{3, 3, 1}}, {"stride", Dims{2, 2, 1}}, {"padding_low", one}, {"padding_high", one}};
    check({"max_pool", {"blocked", {x({2, 3, 9, 8, 16})}, window}});
    check({"max_pool_grad",
           {"sums", {x({2, 3, 40, 40}), index({2, 3, 40, 40}, 60, DType::kI32)}, {{"input_dims", Dims{2, 3, 9, 9}}}}});
    check({"dropout", {"half", {x({1001}), index({2}, 1000)}, {}}});
    // Statistics and gradients of parameters are f32 beside a half x; planes cross chunks.
    const SampleInput wide = x({3, 2, 17, 19, 16}), vector = floats({32});
    const SampleInput positive = input(DType::kF32, {32}, Fill::kPositive);
    const Attrs block{{"channel_block", int64_t{16}}};
    check({"batch_norm", {"half", {wide, vector, vector, vector, positive}, block, true, 2e-3}});
    check({"batch_norm_inference", {"half", {wide, vector, vector, vector, positive}, block, true, 2e-3}});
    check({"batch_norm_grad", {"half", {wide, wide, vector, vector, positive}, block, true, 1e-2}});
  }
}

// Every sample again with half floats in place of f32; what is left runs on the reference.
TEST(Kernels, HalfFloatSamplesRunNatively) {
  for (DType h : {DType::kBF16, DType::kF16}) {
    std::vector<std::string> slow;
    for (const auto& [name, def] : ops::registry().all())
      for (Sample sample : def.samples.value) {
        if (sample.inputs.empty() || name == "fused" || name == "scan") continue;  // their bodies are f32
        for (SampleInput& i : sample.inputs)
          if (i.type.dtype == DType::kF32) i.type.dtype = h;
        Result<Graph> graph = testing::sample_graph(def, sample);
        ASSERT_TRUE(graph.ok()) << graph.status().to_string();
        auto program = CpuBackend().compile(*graph, {});
        ASSERT_TRUE(program.ok()) << program.status().to_string();
        for (const std::string& op : on_reference(**program)) slow.push_back(name + "/" + sample.name + ": " + op);
      }
    EXPECT_EQ(slow, std::vector<std::string>{});
  }
}

// Directly, by Winograd's and by way of f32, each where it takes the sample; rounded once, at the end.
TEST(Kernels, BlockedConvolutionsOfBf16) {
  std::set<std::string> used;
  for (const std::string op : {"blocked_conv", "blocked_conv_input_grad", "blocked_conv_weight_grad"}) {
    std::vector<Sample> samples = ops::registry().find(op)->samples.value;
    // Large enough for Winograd's, whose transforms bf16 must pay for with half the products.
    const Dims x{5, 8, 24, 24, 16}, w{8, 8, 3, 3, 16, 16}, padding{1, 1};
    Attrs attrs{{"padding_low", padding}, {"padding_high", padding}};
    if (op == "blocked_conv_input_grad") attrs.set("input_dims", x);
    if (op == "blocked_conv_weight_grad") attrs.set("kernel", Dims{3, 3});
    samples.push_back({"large", {floats(x), floats(op == "blocked_conv_weight_grad" ? x : w)}, attrs, false, 1e-1});
    for (Sample sample : samples) {
      for (SampleInput& i : sample.inputs) i.type.dtype = DType::kBF16;
      for (const auto& off : {std::vector<std::string>(), std::vector<std::string>{"winograd"}}) {
        runtime::CompileOptions options;
        options.disabled_implementations = off;
        if (sample.name == "large" && !off.empty()) continue;
        check({op, sample}, options);
        const Graph graph = graph_of({op, sample});
        auto program = CpuBackend().compile(graph, options);
        ASSERT_TRUE(program.ok()) << program.status().to_string();
        for (const runtime::NodeReport& r : (*program)->report())
          used.insert(op + " " + r.implementation.substr(0, r.implementation.find(' ')));
      }
    }
  }
  for (const std::string op : {"blocked_conv", "blocked_conv_input_grad", "blocked_conv_weight_grad"}) {
    EXPECT_EQ(used.count(op + " microgemm"), has_bf16_products() ? 1u : 0u);
    EXPECT_EQ(used.count(op + " winograd"), has_bf16_products() ? 1u : 0u);
  }
}

// Half outputs are stored one after another: none lies over an operand that a later one is a copy of.
TEST(Kernels, HalfOutputsLeaveWhatAnotherCopies) {
  Builder b(ops::registry());
  const TensorType type{DType::kBF16, {64}};
  Expr x = b.input("x", type), y = b.input("y", type);
  b.output("negative", -y);
  b.output("copy", x);
  const Result<TileProgram> program = TileProgram::compile(*b.finish());
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  EXPECT_FALSE(program->in_place(0, 0));
  EXPECT_TRUE(program->in_place(0, 1));
}

// Loops of several shapes in one node, with and without sums, on shared inputs; tiny ones among large ones.
TEST(Kernels, ManyLoopsInOneNode) {
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {300, 257}}), bias = b.input("bias", {DType::kF32, {257}});
  Expr y = b.input("y", {DType::kF32, {7}}), rate = b.input("rate", {DType::kF32, {}});
  b.output("0", ops::relu(x * rate + bias));
  b.output("1", ops::exp(y) - rate);
  b.output("2", ops::sum(bias * bias));
  b.output("3", ops::sum(x * 0.5, {0}));
  b.output("4", rate * 2.0);
  b.output("5", ops::sqrt(y * y));
  const Result<Graph> body = b.finish();
  ASSERT_TRUE(body.ok());
  check({"fused",
         {"loops",
          {floats({300, 257}), floats({257}), floats({7}), floats({})},
          {{"body", std::make_shared<const Graph>(*body)}},
          false,
          1e-4}});
}

// Rows that are shorter than a vector, more of them than go side by side; and the same along an outer axis.
TEST(Kernels, SoftmaxOfFewClasses) {
  for (const int64_t classes : {1, 2, 15, 16, 17})
    for (const char* op : {"softmax", "log_softmax"})
      for (const int64_t axis : {0, 1}) {
        const SampleInput x = floats(axis == 0 ? Dims{classes, 201} : Dims{201, classes});
        const Attrs along{{"axis", axis}};
        check({op, {"few classes", {x}, along, false, 1e-5}});
        check({std::string(op) + "_grad", {"few classes", {x, x}, along, false, 1e-5}});
      }
}

// Numbers of a row beside few columns: tiles span rows, in which these repeat.
TEST(Kernels, RowsOfFewColumns) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64})
    for (const int64_t columns : {2, 3, 31, 32, 33}) {
      Builder b(ops::registry());
      const TensorType all{dtype, {7, 101, columns}}, rows{dtype, {7, 101, 1}}, inner{dtype, {101, 1}};
      Expr x = b.input("x", all), r = b.input("r", rows), c = b.input("c", {dtype, {columns}});
      Expr i = b.input("i", inner);
      Expr y = (x - r) * c + i;
      b.output("y", y);
      if (dtype == DType::kF32) {
        b.output("by column", ops::sum(y, {0, 1}));
        b.output("of all", ops::sum(x * r));
      }
      const Result<Graph> body = b.finish();
      ASSERT_TRUE(body.ok());
      const auto values = [](const TensorType& t) { return input(t.dtype, t.dims); };
      check({"fused",
             {"loops",
              {values(all), values(rows), values({dtype, {columns}}), values(inner)},
              {{"body", std::make_shared<const Graph>(*body)}},
              false,
              dtype == DType::kBF16 ? 1e-2 : 1e-4}});
    }
}

// One loop must not write over what another one of the node still reads.
TEST(Kernels, LoopsThatShareAnInputLeaveIt) {
  const Threads threads;
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {90000}});
  Expr t = b.op("cumsum", {x}, {{"axis", int64_t{0}}});
  b.output("twice", b.op("cumsum", {t * 2.0}, {{"axis", int64_t{0}}}));
  b.output("square", b.op("cumsum", {ops::sum(t * t, {0}, true)}, {{"axis", int64_t{0}}}));
  const Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok());
  const Tensor in(DType::kF32, {90000});
  RefTensor reference({DType::kF32, {90000}});
  for (int64_t i = 0; i < 90000; ++i) in.set(i, reference.data[static_cast<size_t>(i)] = i % 3 == 0 ? 0.01 : -0.005);
  const auto expected = ops::evaluate_reference(*graph, {reference});
  ASSERT_TRUE(expected.ok());
  for (int n : {1, 3}) {
    set_num_threads(n);
    const auto program = CpuBackend().compile(*graph, {});
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    EXPECT_EQ((*program)->report().size(), 4u);  // three cumsums, and the loops
    const auto out = (*program)->run(std::vector<Tensor>{in});
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    for (size_t o = 0; o < 2; ++o)
      for (int64_t i = 0; i < (*out)[o].num_elements(); ++i) {
        const double e = (*expected)[o].data[static_cast<size_t>(i)];
        ASSERT_NEAR((*out)[o].at(i), e, 1e-3 * std::max(1.0, std::fabs(e))) << o << " " << i;
      }
  }
}

TEST(Kernels, CastsInsideAFusedGroupRound) {
  for (DType h : {DType::kBF16, DType::kF16}) {
    Builder b(ops::registry());
    Expr x = b.input("x", {DType::kF32, {1003}});
    Expr half = ops::cast(x, h);
    b.output("difference", ops::cast(half, DType::kF32) - x);
    b.output("half", half);
    Result<Graph> graph = b.finish();
    ASSERT_TRUE(graph.ok());
    auto program = CpuBackend().compile(*graph, {});
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    EXPECT_EQ(on_reference(**program), std::vector<std::string>{});
    const Tensor in(DType::kF32, {1003});
    for (int64_t i = 0; i < 1003; ++i) in.set(i, std::sin(static_cast<double>(i)) * std::exp2(i % 40 - 20));
    in.set(7, NAN);
    in.set(8, INFINITY);
    in.set(9, 1e6);  // beyond f16
    auto out = (*program)->run(std::vector<Tensor>{in});
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    const Tensor expected = in.cast(h);
    for (int64_t i = 0; i < 1003; ++i) {
      const double e = expected.at(i), d = static_cast<float>(e) - static_cast<float>(in.at(i));
      if (std::isnan(e) || std::isnan(d)) {
        EXPECT_EQ(std::isnan((*out)[1].at(i)), std::isnan(e));
        EXPECT_TRUE(std::isnan((*out)[0].at(i)));
        continue;
      }
      EXPECT_EQ((*out)[1].at(i), e) << i;
      EXPECT_EQ((*out)[0].at(i), d) << i;
    }
  }
}

TEST(Kernels, CtcOfManySamples) {
  for (DType targets : {DType::kI64, DType::kI32})
    check({"ctc_loss",
           {"many",
            {floats({30, 17, 40}), index({17, 6}, 39, targets), index({17}, 31), index({17}, 7)},
            {{"blank", int64_t{39}}},
            false}});
  const Graph graph = graph_of({"ctc_loss", {"", {floats({3, 2, 5}), index({2, 2}, 5)}, {{"blank", int64_t{4}}}}});
  auto program = CpuBackend().compile(graph, {});
  ASSERT_TRUE(program.ok()) << program.status().to_string();
  const std::vector<double> bad = {0, 1, 2, 4};
  EXPECT_NE((*program)
                ->run(std::vector<Tensor>{Tensor::zeros(DType::kF32, {3, 2, 5}),
                                          Tensor::from<double>(DType::kI64, {2, 2}, bad)})
                .status()
                .message()
                .find("target 1 of sample 1: expected a class in [0, 5) other than the blank 4, got 4"),
            std::string::npos);
}

TEST(Kernels, TopKCountsNanAsTheLargestAndKeepsTheOrderOfEquals) {
  const Graph graph = graph_of({"top_k", {"nan", {floats({6})}, {{"k", int64_t{4}}}}});
  auto program = CpuBackend().compile(graph, {});
  ASSERT_TRUE(program.ok());
  const std::vector<double> x = {1, NAN, 3, 1, NAN, 3};
  auto out = (*program)->run(std::vector<Tensor>{Tensor::from<double>(DType::kF32, {6}, x)});
  ASSERT_TRUE(out.ok()) << out.status().to_string();
  const std::vector<int64_t> expected = {1, 4, 2, 5};
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ((*out)[1].at(i), static_cast<double>(expected[i]));
}

TEST(Kernels, BadIndicesAreNamed) {
  const auto message = [](const Call& call, std::vector<Tensor> inputs) {
    auto program = CpuBackend().compile(graph_of(call), {});
    return program.ok() ? (*program)->run(inputs).status().message() : program.status().message();
  };
  const Tensor x = Tensor::zeros(DType::kF32, {4, 3});
  const auto ids = [](std::vector<double> v) {
    return Tensor::from<double>(DType::kI64, {static_cast<int64_t>(v.size())}, v);
  };
  const char* expected = "index 4 at position 1 is out of range [0, 4)";
  EXPECT_NE(message({"gather", {"", {floats({4, 3}), index({2}, 4)}}}, {x, ids({0, 4})}).find(expected),
            std::string::npos);
  EXPECT_NE(message({"one_hot", {"", {index({2}, 4)}, {{"depth", int64_t{4}}}}}, {ids({0, 4})}).find(expected),
            std::string::npos);
  EXPECT_NE(message({"scatter_add", {"", {floats({2, 3}), index({2}, 4)}, {{"dim_size", int64_t{4}}}}},
                    {Tensor::zeros(DType::kF32, {2, 3}), ids({0, 4})})
                .find(expected),
            std::string::npos);
}

}  // namespace
}  // namespace deepseek::backends::cpu
