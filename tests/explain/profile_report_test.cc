// The profile of a small program: groups, sums, JSON, trace, hints. Nothing depends on how fast the machine is.
#include "explain/profile_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "graph/text.h"
#include "ops/registry.h"

namespace deepseek::explain {
namespace {

using namespace graph;
using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kTiny = 1e-12;

// A matmul in a layer, its gradient, and an update: relu stays alone, since a matmul reads it.
constexpr const char* kStep = R"(graph {
  input %0 "x" : f32[32,16]
  state %1 "w" : f32[16,16]
  %2 = matmul(%0, %1) {transpose_a=false, transpose_b=false} : f32[32,16] @"encoder/3/fc"
  %3 = relu(%2) : f32[32,16] @"encoder/3/act"
  %4 = matmul(%3, %1) {transpose_a=false, transpose_b=false} : f32[32,16] @"head"
  %5 = matmul(%0, %4) {transpose_a=true, transpose_b=false} : f32[16,16] @"backward/encoder/3/fc"
  %6 = sub(%1, %5) : f32[16,16] @"optimizer/encoder.3.fc.w"
  output "y" %4
  update "w" %6
})";

Graph parsed(const char* text) {
  Result<Graph> graph = parse(text, ops::registry());
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return graph.ok() ? *graph : Graph(Graph::Data{});
}

// A step of known times on a machine that does 100 GFLOP/s and 10 GB/s.
struct Known {
  StepProfile profile;
  Known() {
    profile.subject = "two layers";
    profile.peak = {1e11, 1e10, "test, 2 threads"};
    profile.steps = 3;
    profile.last.runs = 1;
  }
  ProfiledNode& add(const char* scope, const char* op, const char* implementation, double seconds, Cost cost) {
    ProfiledNode node;
    node.report.scope = scope;
    node.label = node.report.op = op;
    node.report.implementation = implementation;
    node.seconds = seconds;
    node.cost = cost;
    profile.last.starts.push_back(profile.seconds);
    profile.last.seconds.push_back(seconds);
    profile.seconds += seconds;
    profile.nodes.push_back(node);
    return profile.nodes.back();
  }
  StepProfile done() {
    ProfiledNode copies;
    copies.report.scope = "copies";
    copies.label = copies.report.op = "copy of states and outputs";
    profile.nodes.push_back(copies);
    return profile;
  }
};

Result<StepProfile> profiled(const Program& program, const ProfileOptions& options, std::vector<bool>* counted = {}) {
  std::vector<Tensor> inputs;
  for (const Input& input : program.graph().inputs())
    inputs.push_back(Tensor::full(DType::kF32, program.graph().type(input.value).dims, 0.01));
  const auto run = [&](Profile* profile) {
    if (counted != nullptr) counted->push_back(profile != nullptr);
    return program.run(inputs, profile).status();
  };
  return profile_steps(program, backends::cpu::CpuBackend(), {[] { return Status(); }, run}, options);
}

class ProfileOfAStep : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto program = backends::cpu::CpuBackend().compile(parsed(kStep), {});
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    Result<StepProfile> p = profiled(**program, {.warmup = 2, .steps = 3}, &counted_);
    ASSERT_TRUE(p.ok()) << p.status().to_string();
    profile_ = *p;
    profile_.subject = "a \"step\"";
  }
  inline static StepProfile profile_;
  inline static std::vector<bool> counted_;
};

TEST_F(ProfileOfAStep, WarmsUpFirst) {
  EXPECT_THAT(counted_, ElementsAre(false, false, true, true, true));
  EXPECT_EQ(profile_.steps, 3);
}

TEST_F(ProfileOfAStep, HasEveryNodeWithItsCostThenTheCopies) {
  ASSERT_EQ(profile_.nodes.size(), 6u);
  EXPECT_EQ(profile_.nodes[0].report.op, "matmul");
  EXPECT_EQ(profile_.nodes[0].cost.flops, 2 * 32 * 16 * 16);
  EXPECT_EQ(profile_.nodes[0].cost.bytes, 4 * (32 * 16 + 16 * 16 + 32 * 16));
  EXPECT_EQ(profile_.nodes[5].report.implementation, "memcpy");
  EXPECT_EQ(profile_.cost().flops, 3 * 2 * 32 * 16 * 16 + 32 * 16 + 16 * 16);
  double nodes = 0;
  for (const ProfiledNode& n : profile_.nodes) {
    EXPECT_GE(n.seconds, 0) << n.report.op;
    nodes += n.seconds;
  }
  EXPECT_GT(nodes, 0);
  EXPECT_GT(profile_.seconds, 0);
  EXPECT_GT(profile_.peak.flops, 0);
}

TEST_F(ProfileOfAStep, GroupsAddUpToItsNodes) {
  double nodes = 0;
  for (const ProfiledNode& n : profile_.nodes) nodes += n.seconds;
  for (const auto& groups : {group_by_scope(profile_, 1), group_by_scope(profile_, 3), group_by_op(profile_)}) {
    double seconds = 0;
    int64_t count = 0;
    Cost cost;
    for (size_t i = 0; i < groups.size(); ++i) {
      EXPECT_LE(groups[i].seconds(), groups[i > 0 ? i - 1 : 0].seconds());
      seconds += groups[i].seconds();
      count += groups[i].nodes;
      cost.flops += groups[i].cost.flops;
      cost.bytes += groups[i].cost.bytes;
    }
    EXPECT_NEAR(seconds, nodes, kTiny);
    EXPECT_EQ(count, 6);
    EXPECT_EQ(cost.flops, profile_.cost().flops);
    EXPECT_EQ(cost.bytes, profile_.cost().bytes);
  }
}

TEST_F(ProfileOfAStep, TheTraceIsOneStepOfNodesInOrder) {
  const json trace = json::parse(chrome_trace(profile_));
  const json& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), 1 + profile_.nodes.size());
  const double begin = events[0].at("ts"), end = begin + events[0].at("dur").get<double>();
  EXPECT_EQ(events[0].at("name"), "step");
  EXPECT_EQ(events[0].at("args").at("subject"), "a \"step\"");
  double last = begin;
  for (size_t i = 0; i < events.size(); ++i) {
    const json& e = events[i];
    EXPECT_EQ(e.at("ph"), "X");
    EXPECT_EQ(e.at("pid"), events[0].at("pid"));
    EXPECT_EQ(e.at("tid"), events[0].at("tid"));
    EXPECT_GE(e.at("dur").get<double>(), 0);
    if (i == 0) continue;
    const ProfiledNode& node = profile_.nodes[i - 1];
    EXPECT_EQ(e.at("name"), node.label);
    EXPECT_EQ(e.at("cat"), node.report.implementation);
    EXPECT_EQ(e.at("args").at("scope"), node.report.scope);
    EXPECT_EQ(e.at("args").at("types"), node.report.types);
    EXPECT_EQ(e.at("args").at("flops"), node.cost.flops);
    EXPECT_EQ(e.at("args").at("bytes"), node.cost.bytes);
    // Nested in the step, and none overlaps the one before it, but for rounding.
    EXPECT_GE(e.at("ts").get<double>(), last - 1e-3);
    last = e.at("ts").get<double>() + e.at("dur").get<double>();
    EXPECT_LE(last, end + 1e-3);
  }
}

TEST_F(ProfileOfAStep, JsonHasTheSameNumbers) {
  const json all = json::parse(profile_json(profile_, 1));
  EXPECT_EQ(all.at("nodes").size(), profile_.nodes.size());
  EXPECT_EQ(all.at("flops"), profile_.cost().flops);
  EXPECT_EQ(all.at("peak").at("device"), profile_.peak.device);
  double scopes = 0, nodes = 0;
  for (const json& g : all.at("by_scope")) scopes += g.at("ms").get<double>();
  for (const json& n : all.at("nodes")) nodes += n.at("ms").get<double>();
  EXPECT_NEAR(scopes, nodes, 1e3 * kTiny);
}

TEST_F(ProfileOfAStep, TheTextNamesLayersOpsAndThePeak) {
  const std::string text = profile_text(profile_, 2, 3);
  EXPECT_THAT(text, StartsWith("a \"step\": "));
  for (const char* part : {"the median of 3", "\npeak ", " of the peak\n", "encoder/3", "matmul  gemm",
                           "the slowest 3 of 6 nodes", "f32[32,16]"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(profile_text(profile_, 2, 0), Not(HasSubstr("slowest 0")));
}

TEST(Profile, RefusesNoSteps) {
  auto program = backends::cpu::CpuBackend().compile(parsed(kStep), {});
  ASSERT_TRUE(program.ok());
  EXPECT_EQ(profiled(**program, {.steps = 0}).status().message(), "steps: expected at least 1, got 0");
  EXPECT_EQ(profiled(**program, {.warmup = 0}).status().message(), "warmup: expected at least 1 step, got 0");
}

TEST(Profile, GradientsCountForTheirLayerAndUpdatesForNone) {
  Known known;
  known.add("encoder/3/fc", "matmul", "onednn (brg)", 1e-3, {1e6, 1e3});
  known.add("backward/encoder/3/fc", "matmul", "onednn (brg)", 2e-3, {2e6, 2e3});
  known.add("encoder/4", "relu", "elementwise", 5e-4, {1e3, 8e3});
  known.add("optimizer/encoder.3.fc.w", "fused", "elementwise", 4e-3, {1e3, 8e3});
  known.add("backward", "add", "elementwise", 1e-4, {1e3, 8e3});
  const StepProfile p = known.done();
  const std::vector<ProfileGroup> groups = group_by_scope(p, 2);
  ASSERT_EQ(groups.size(), 5u);
  EXPECT_EQ(groups[0].name, "optimizer");
  EXPECT_EQ(groups[0].update, 4e-3);
  EXPECT_EQ(groups[1].name, "encoder/3");
  EXPECT_EQ(groups[1].forward, 1e-3);
  EXPECT_EQ(groups[1].backward, 2e-3);
  EXPECT_EQ(groups[1].cost.flops, 3e6);
  EXPECT_EQ(groups[2].name, "encoder/4");
  EXPECT_EQ(groups[3].name, "(no layer)");
  EXPECT_EQ(group_by_scope(p, 1)[1].name, "encoder");
  EXPECT_EQ(group_by_op(p)[1].name, "matmul  onednn");
  EXPECT_EQ(group_by_op(p)[1].nodes, 2);
}

TEST(Profile, ComparesACostWithThePeak) {
  const Peak peak{1e11, 1e10, ""};  // ten FLOPs per byte
  EXPECT_TRUE(memory_bound({9e6, 1e6}, peak));
  EXPECT_FALSE(memory_bound({11e6, 1e6}, peak));
  EXPECT_DOUBLE_EQ(least_seconds({9e6, 1e6}, peak), 1e-4);
  EXPECT_DOUBLE_EQ(least_seconds({2e7, 1e6}, peak), 2e-4);
  EXPECT_EQ(to_string(Peak{1.9e11, 3.72e10, "avx2, 2 threads"}), "190 GFLOP/s, 37.2 GB/s (avx2, 2 threads)");
}

TEST(ProfileHints, SayWhatIsThere) {
  Known known;
  known.add("0", "conv", "onednn", 40e-3, {2e9, 1e6});
  known.add("backward/0", "conv_weight_grad", "onednn", 20e-3, {1e9, 1e6});
  known.add("1", "batch_norm", "native", 20e-3, {1e6, 1e8}).report.refusals = {"native_blocked: not blocked"};
  known.add("2", "cumsum", "reference", 10e-3, {1e6, 8e6}).report.refusals = {"upcast: f64"};
  known.add("3", "fused", "native", 0, {}).report.refusals = {"elementwise: takes no batch_norm"};
  known.add("3", "relu", "elementwise", 10e-3, {1e6, 8e6}).alone = "its result is read by conv";
  StepProfile p = known.done();
  p.waiting = 25e-3;
  EXPECT_THAT(profile_hints(p),
              ElementsAre("20 % of the time goes into waiting for the next batch: making one takes longer than a step",
                          "conv takes 60 % of the step, at 50 % of the peak FLOP/s",
                          "40 % of the step goes into nodes that memory limits, with fewer FLOPs per byte than the "
                          "machine's 10.0; together they move data at 29 % of the peak bandwidth",
                          "with every node at the peak FLOP/s or bandwidth, whichever limits it, a step would take "
                          "41.60 ms; most lies in conv, 30.00 ms above that",
                          "1 node runs on reference kernels, which are slow, 10 % of the step; the slowest is [cumsum] "
                          "at '2': upcast: f64",
                          "1 node does not run on the fastest implementation, 20 % of the step; the slowest is "
                          "[batch_norm] at '1', which runs on native: native_blocked: not blocked",
                          "1 element-wise node runs by itself, without fusing with a neighbour, 10 % of the step; the "
                          "slowest is [relu] at '3': its result is read by conv"));
}

TEST(ProfileHints, CallLoopsByWhatTheyHold) {
  Known known;
  known.add("0", "fused", "elementwise", 10e-3, {1e6, 1e7}).label = "fused[sum]";
  known.add("1", "relu", "elementwise", 1e-3, {1e6, 1e7});
  known.add("2", "fused", "anchored", 6e-3, {1e6, 1e7}).label = "fused[batch_norm_grad, sum]";
  known.add("2", "batch_norm", "native", 6e-3, {1e6, 1e7});
  EXPECT_THAT(profile_hints(known.done()),
              Contains("batch_norm takes 52 % of the step, at 17 % of the peak bandwidth"));
}

TEST(ProfileHints, SayNothingOfAStepAtItsPeak) {
  Known known;
  for (int i = 0; i < 5; ++i) {
    static constexpr const char* kOps[] = {"a", "b", "c", "d", "e"};
    known.add("0", kOps[i], "native", 10e-3, {1e9, 1e6});
  }
  EXPECT_THAT(profile_hints(known.done()), IsEmpty());
}

TEST(ProfileHints, DoubtTimesBeyondThePeakAndCountShortNodes) {
  Known known;
  known.add("0", "matmul", "onednn", 1e-3, {2e8, 1e6});
  for (int i = 0; i < 30; ++i) known.add("0", "add", "elementwise", 10e-6, {1e6, 1e3});
  const std::vector<std::string> hints = profile_hints(known.done());
  EXPECT_THAT(hints, Contains(StartsWith("1 node reaches more FLOP/s than the measured peak")));
  EXPECT_THAT(hints, Contains(StartsWith("31 nodes take less than 20 us each, together 23 % of the step")));
  EXPECT_LE(hints.size(), 8u);
}

TEST(ProfileHints, KnowWhyANodeStayedAlone) {
  const Graph graph = parsed(R"(graph {
    input %0 "x" : f32[4,4]
    input %1 "row" : f32[1,4]
    %2 = exp(%0) : f32[4,4]
    %3 = matmul(%2, %2) {transpose_a=false, transpose_b=false} : f32[4,4]
    %4 = exp(%1) : f32[1,4]
    %5 = add(%4, %3) : f32[4,4]
    %6 = tanh(%1) : f32[1,4]
    %7 = sum(%6) {axes=[], keepdims=false} : f32[]
    output "a" %5
    output "b" %7
  })");
  const auto why = [&](size_t node) { return why_alone(graph, graph.nodes()[node]); };
  EXPECT_EQ(why(0), "its result is read by matmul");
  EXPECT_EQ(why(1), "");  // no element-wise op
  EXPECT_EQ(why(2), "its reader add counts over another shape, f32[4,4] rather than f32[1,4]");
  EXPECT_EQ(why(3), "no node reads its result; its operand comes from exp, which counts over another shape");
  EXPECT_EQ(why(4), "fused with its reader sum, a value would leave the loop and come back");
}

}  // namespace
}  // namespace deepseek::explain
