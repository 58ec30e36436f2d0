// Passes as text in, text out: each tests/passes/golden/<pass>/<case>.txt holds a line on what it shows, a graph,
// "----" and the graph that the pass makes of it. Both must also mean the same by the reference kernels, so that a
// golden file cannot hold a wrong result; a pass that rounds may differ by that much. `UPDATE_GOLDEN=1
// build/tests/test_passes` writes the second parts anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "graph/text.h"
#include "ops/interpreter.h"
#include "ops/registry.h"
#include "passes/autodiff.h"
#include "passes/block_channels.h"
#include "passes/cse.h"
#include "passes/decompose.h"
#include "passes/fold_constants.h"
#include "passes/fuse_elementwise.h"
#include "passes/fuse_epilogues.h"
#include "passes/fuse_horizontal.h"
#include "passes/mixed_precision.h"
#include "passes/rematerialize_norms.h"
#include "passes/simplify.h"

namespace deepseek::passes {
namespace {

using namespace graph;
namespace fs = std::filesystem;

const fs::path kFolder = fs::path(DEEPSEEK_SOURCE_DIR) / "tests/passes/golden";

class TestTarget : public Target {
 public:
  bool takes_body(const Graph&) const override { return true; }
  // Blocks of 4 where both numbers of channels allow it.
  ChannelBlocks channel_blocks(const Graph& graph, const Node& node) const override {
    for (const Value v : {node.inputs[0], node.inputs[1]})
      if (graph.type(v).dims[1] % 4 != 0) return {};
    return {4, 4};
  }
  FusedLoops fused_loops(const Node& node) const override {
    return {.epilogue = node.op_name() == "batch_norm", .prologue = node.op_name() == "batch_norm_grad"};
  }
};
const TestTarget kTarget;
const PassContext kContext{kTarget};

// Gradients are those of the output "loss" by every state.
Result<Graph> differentiate(const Graph& graph) {
  std::vector<std::string> parameters;
  for (const Input& input : graph.inputs())
    if (input.kind == InputKind::kState) parameters.push_back(input.name);
  return autodiff(graph, "loss", parameters);
}

const std::map<std::string, Result<Graph> (*)(const Graph&)> kPasses = {
    {"autodiff", differentiate},
    {"block_channels", [](const Graph& g) { return block_channels(g, kContext); }},
    {"cse", [](const Graph& g) { return cse(g); }},
    {"decompose", [](const Graph& g) { return decompose(g, [](const Graph&, const Node&) { return true; }); }},
    {"fold_constants", [](const Graph& g) { return fold_constants(g); }},
    {"fuse_epilogues", [](const Graph& g) { return fuse_epilogues(g, kContext); }},
    {"fuse_elementwise", [](const Graph& g) { return fuse_elementwise(g); }},
    {"fuse_horizontal", [](const Graph& g) { return fuse_horizontal(g, kContext); }},
    {"mixed_precision", [](const Graph& g) { return mixed_precision(g, DType::kBF16); }},
    {"rematerialize_norms", [](const Graph& g) { return rematerialize_norms(g, kContext); }},
    {"simplify", [](const Graph& g) { return simplify(g); }},
};

std::map<std::string, RefTensor> results(const Graph& graph) {
  std::mt19937 engine(7);
  std::normal_distribution<double> normal;
  std::vector<RefTensor> inputs;
  for (const Input& input : graph.inputs()) {
    inputs.emplace_back(graph.type(input.value));
    for (double& x : inputs.back().data)
      x = is_float(graph.type(input.value).dtype) ? normal(engine) : static_cast<double>(engine() % 2);
  }
  Result<std::vector<RefTensor>> values = ops::evaluate_reference(graph, inputs);
  EXPECT_TRUE(values.ok()) << values.status().to_string();
  std::map<std::string, RefTensor> named;
  if (!values.ok()) return named;
  size_t i = 0;
  for (const Output& output : graph.outputs()) named["output " + output.name] = (*values)[i++];
  for (const Update& update : graph.updates()) named["update " + graph.inputs()[update.input].name] = (*values)[i++];
  return named;
}

std::vector<std::string> cases() {
  std::vector<std::string> list;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kFolder))
    if (entry.path().extension() == ".txt") list.push_back(fs::relative(entry.path(), kFolder).string());
  std::sort(list.begin(), list.end());
  return list;
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, TextInTextOut) {
  const fs::path path = kFolder / GetParam();
  std::ifstream file(path);
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string text = stream.str(), bar = "----\n";
  const size_t begin = text.find("graph {"), middle = text.find(bar);
  ASSERT_TRUE(text.starts_with("# ") && begin != std::string::npos) << "expected '# what it shows', then a graph";
  const std::string source = text.substr(begin, middle == std::string::npos ? middle : middle - begin);

  const auto pass = kPasses.find(fs::path(GetParam()).parent_path().string());
  ASSERT_NE(pass, kPasses.end()) << "no pass of the folder's name; add it to kPasses";
  const Result<Graph> before = parse(source, ops::registry(), GetParam());
  ASSERT_TRUE(before.ok()) << before.status().to_string();
  const Result<Graph> after = pass->second(*before);
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  const std::string got = print(*after);
  if (std::getenv("UPDATE_GOLDEN") != nullptr)
    std::ofstream(path) << text.substr(0, begin) << print(*before) << bar << got;
  else
    EXPECT_EQ(got, middle == std::string::npos ? "" : text.substr(middle + bar.size()));

  // bf16 has 8 bits; a few roundings follow each other.
  const double tolerance = pass->first == "mixed_precision" ? 0.03 : 1e-9;
  const std::map<std::string, RefTensor> expected = results(*before), actual = results(*after);
  ASSERT_FALSE(expected.empty());
  for (const auto& [name, want] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    const RefTensor& have = actual.at(name);
    ASSERT_EQ(have.dims, want.dims) << name;
    for (size_t i = 0; i < want.data.size(); ++i)
      ASSERT_NEAR(have.data[i], want.data[i], tolerance * std::max(1.0, std::fabs(want.data[i]))) << name << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Passes, Golden, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.substr(0, info.param.size() - 4);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(GoldenFiles, EveryPassHasACase) {
  for (const auto& [name, pass] : kPasses) EXPECT_FALSE(fs::is_empty(kFolder / name)) << name;
}

}  // namespace
}  // namespace deepseek::passes
