// `explain --passes` on a small graph, as golden text; diffs against whole graphs.
#include "explain/pass_log.h"

#include <gtest/gtest.h>

#include "graph/builder.h"
#include "graph/text.h"
#include "ops/dsl.h"
#include "ops/registry.h"
#include "runtime/backend.h"

namespace deepseek::explain {
namespace {

using namespace graph;

Graph parsed(std::string_view text) {
  Result<Graph> graph = parse(text, ops::registry());
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return *graph;
}

const char* const kGraph = R"(graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3]
  %2 = transpose(%0) {permutation=[1,0]} : f32[3,2]
  %3 = matmul(%0,%2) {transpose_a=false, transpose_b=false} : f32[2,2] @"layer"
  %4 = exp(%3) : f32[2,2]
  %5 = add(%4,%4) : f32[2,2]
  %6 = neg(%1) : f32[3]
  output "y" %5
  update "w" %6
})";

PassLog log_of(const Graph& graph, std::vector<std::string> disabled = {}) {
  PassLog log;
  const auto program = (*runtime::open_backend("cpu"))
                           ->compile(graph, {.disabled_passes = std::move(disabled), .observe = log.observer()});
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  return log;
}

TEST(PassLog, ShowsTheGraphAfterEachPassThatChangedIt) {
  const Result<std::string> text = pass_log_text(log_of(parsed(kGraph)), {});
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, R"(== bind_inputs (unchanged)
== decompose_composites (unchanged)
== simplify: 5 nodes -> 4
graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3]
  %2 = matmul(%0,%0) {transpose_a=false, transpose_b=true} : f32[2,2] @"layer"
  %3 = exp(%2) : f32[2,2]
  %4 = add(%3,%3) : f32[2,2]
  %5 = neg(%1) : f32[3]
  output "y" %4
  update "w" %5
}
== fold_constants (unchanged)
== block_channels (unchanged)
== cse (unchanged)
== decompose_norms (unchanged)
== rematerialize_norms (unchanged)
== fuse_elementwise: 4 nodes -> 3
graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3]
  %2 = matmul(%0,%0) {transpose_a=false, transpose_b=true} : f32[2,2] @"layer"
  %3 = fused(%2) {body=graph {
    input %0 "0" : f32[2,2]
    %1 = exp(%0) : f32[2,2]
    %2 = add(%1,%1) : f32[2,2]
    output "0" %2
  }} : f32[2,2]
  %4 = neg(%1) : f32[3]
  output "y" %3
  update "w" %4
}
== fuse_epilogues (unchanged)
== schedule: 3 nodes -> 3
graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3]
  %2 = neg(%1) : f32[3]
  %3 = matmul(%0,%0) {transpose_a=false, transpose_b=true} : f32[2,2] @"layer"
  %4 = fused(%3) {body=graph {
    input %0 "0" : f32[2,2]
    %1 = exp(%0) : f32[2,2]
    %2 = add(%1,%1) : f32[2,2]
    output "0" %2
  }} : f32[2,2]
  output "y" %4
  update "w" %2
}
== fuse_horizontal: 3 nodes -> 2
graph {
  input %0 "x" : f32[2,3]
  state %1 "w" : f32[3]
  %2 = matmul(%0,%0) {transpose_a=false, transpose_b=true} : f32[2,2] @"layer"
  %3,%4 = fused(%1,%2) {body=graph {
    input %0 "0" : f32[3]
    input %1 "1" : f32[2,2]
    %2 = neg(%0) : f32[3]
    %3 = exp(%1) : f32[2,2]
    %4 = add(%3,%3) : f32[2,2]
    output "0" %2
    output "1" %4
  }} : f32[3],f32[2,2]
  output "y" %4
  update "w" %3
}
== precompute (unchanged)
)");
}

TEST(PassLog, ShowsOnePassAndWhatItChanged) {
  const PassLog log = log_of(parsed(kGraph));
  PassLogOptions options{.pass = "simplify", .diff = true};
  EXPECT_EQ(*pass_log_text(log, options), R"(== simplify: 5 nodes -> 4
  ...
-   %2 = transpose(%0) {permutation=[1,0]} : f32[3,2]
-   %3 = matmul(%0,%2) {transpose_a=false, transpose_b=false} : f32[2,2] @"layer"
+   %2 = matmul(%0,%0) {transpose_a=false, transpose_b=true} : f32[2,2] @"layer"
  ...
)");
  options.pass = "simplfy";
  EXPECT_EQ(pass_log_text(log, options).status().message(),
            "there is no pass 'simplfy' that ran; there are: bind_inputs, decompose_composites, simplify, "
            "fold_constants, block_channels, cse, decompose_norms, rematerialize_norms, fuse_elementwise, "
            "fuse_epilogues, schedule, fuse_horizontal, precompute; did you mean 'simplify'?");
  const std::string times = *pass_log_text(log, {.graphs = false, .time = true});
  EXPECT_EQ(times.find("=="), std::string::npos);
  EXPECT_NE(times.find("fuse_elementwise"), std::string::npos);
  EXPECT_NE(times.find("all  "), std::string::npos);
}

// What a pass does is missing where it is disabled, and the pass is not in the log.
TEST(PassLog, DisabledPassesDoNotRun) {
  for (const char* pass :
       {"simplify", "fold_constants", "block_channels", "cse", "decompose_norms", "rematerialize_norms",
        "fuse_elementwise", "fuse_epilogues", "schedule", "fuse_horizontal", "precompute"}) {
    const PassLog log = log_of(parsed(kGraph), {pass});
    EXPECT_EQ(log.entries().size(), 12u) << pass;
    for (const PassLog::Entry& entry : log.entries()) EXPECT_NE(entry.pass, pass);
  }
}

// Every common line once, in order; the others make the two texts.
TEST(GraphDiff, GivesBothTextsBack) {
  uint32_t state = 1;
  const auto next = [&](uint32_t n) { return (state = state * 1664525u + 1013904223u) / 65536u % n; };
  for (int round = 0; round < 30; ++round) {
    const auto random = [&] {
      Builder b(ops::registry());
      std::vector<Expr> values{b.input("x", {DType::kF32, {2}})};
      const char* const ops[] = {"exp", "neg", "abs", "tanh"};
      for (uint32_t i = 0, n = next(12); i < n; ++i) values.push_back(b.op(ops[next(4)], {values.back()}));
      b.output("y", values.back());
      return *b.finish();
    };
    const Graph a = random(), b = random();
    const std::string diff = graph_diff(a, b, 1000);
    std::string first, second;
    for (size_t begin = 0; begin < diff.size();) {
      const size_t end = diff.find('\n', begin);
      const std::string line = diff.substr(begin, end - begin);
      if (line[0] != '+') first += line.substr(2) + "\n";
      if (line[0] != '-') second += line.substr(2) + "\n";
      begin = end + 1;
    }
    EXPECT_EQ(second, print(b)) << diff;
    // Common lines are shown as in b, whose values may have other numbers.
    const auto plain = [](std::string text) {
      std::string out;
      for (size_t i = 0; i < text.size(); ++i) {
        out += text[i];
        while (text[i] == '%' && i + 1 < text.size() && std::isdigit(static_cast<unsigned char>(text[i + 1])))
          text.erase(i + 1, 1);
      }
      return out;
    };
    EXPECT_EQ(plain(first), plain(print(a))) << diff;
  }
}

}  // namespace
}  // namespace deepseek::explain
