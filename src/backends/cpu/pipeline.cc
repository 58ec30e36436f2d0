#include "backends/cpu/pipeline.h"

#include <algorithm>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_program.h"
#include "base/strings.h"
#include "graph/builder.h"
#include "passes/block_channels.h"
#include "passes/cse.h"
#include "passes/decompose.h"
#include "passes/fold_constants.h"
#include "passes/fuse_around.h"
#include "passes/fuse_elementwise.h"
#include "passes/fuse_horizontal.h"
#include "passes/norm_again.h"
#include "passes/rewrite.h"
#include "passes/schedule.h"
#include "passes/simplify.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

bool has_fast_kernel(const Graph& graph, const Node& node, const runtime::CompileOptions& options) {
  NodeInfo info{graph.context(node), {}, {}, &options};
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    info.outputs.push_back(graph.type(node.output(i)));
    info.used.push_back(true);
  }
  // Where there are no elements the reference is the best: decompositions may reduce what is not there.
  if (is_empty(info) && node.op->reference.value.fn() && !is_disabled(info, "reference")) return true;
  for (const Implementation& implementation : implementations(*node.op))
    if (implementation.name != "reference" && takes(implementation, info).ok()) return true;
  return false;
}

bool takes_body(const Graph& body, const runtime::CompileOptions& options) {
  Builder builder(body.registry());
  std::vector<Expr> inputs;
  for (const Input& input : body.inputs()) inputs.push_back(builder.input(input.name, body.type(input.value)));
  builder.output("0", builder.op("fused", inputs, {{"body", std::make_shared<const Graph>(body)}}));
  const Result<Graph> alone = builder.finish();
  return alone.ok() && has_fast_kernel(*alone, alone->nodes().back(), options);
}

// After decomposition, in this order; each may be disabled by its name.
struct Pass {
  std::string_view name;
  Result<Graph> (*run)(const Graph&, const runtime::CompileOptions&);
};
constexpr Pass kPasses[] = {
    // First, so that the others meet no copies that are about to go.
    {"simplify", [](const Graph& graph, const runtime::CompileOptions&) { return passes::simplify(graph); }},
    {"fold_constants",
     [](const Graph& graph, const runtime::CompileOptions&) { return passes::fold_constants(graph); }},
    // Before fusion, which then works on the blocked tensors.
    {"block_channels",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       return passes::block_channels(graph, [&](const Graph& g, const Node& node) {
         return channel_blocks(NodeInfo{g.context(node), {g.type(node.output())}, {true}, &options});
       });
     }},
    // After blocking, which makes copies. Fusion computes again what is cheaper than memory.
    {"cse", [](const Graph& graph, const runtime::CompileOptions&) { return passes::cse(graph); }},
    // A given statistic makes the norm two numbers per channel, which go into the loop after a convolution.
    {"open_norms",
     [](const Graph& graph, const runtime::CompileOptions&) {
       return passes::decompose(graph, [](const Graph&, const Node& node) {
         return node.op_name() == "batch_norm_inference" && node.attrs.integer("channel_block") > 0;
       });
     }},
    // On loops that are still nodes, and before they become kernels.
    {"norm_again",
     [](const Graph& graph, const runtime::CompileOptions&) { return passes::norm_again(graph, loops_around); }},
    {"fuse_elementwise",
     [](const Graph& graph, const runtime::CompileOptions&) { return passes::fuse_elementwise(graph, is_tile_op); }},
    // After it: what joins is a whole loop.
    {"fuse_around",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       const auto takes = [&](const Graph& body) { return takes_body(body, options); };
       return passes::fuse_around(graph, loops_around, takes);
     }},
    // The passes before it may use an order of their own; the one after it keeps it.
    {"schedule", [](const Graph& graph, const runtime::CompileOptions&) { return passes::schedule(graph); }},
    // What joins are loops that nothing else takes in.
    {"fuse_horizontal",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       const auto takes = [&](const Graph& body) { return takes_body(body, options); };
       return passes::fuse_horizontal(graph, takes);
     }},
};

bool named(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A misspelt name would silently measure the wrong thing.
Status check_passes(const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const Pass& pass : kPasses) known.emplace_back(pass.name);
  known.emplace_back(kRecompute);
  for (const std::string& name : names)
    if (!named(known, name))
      return invalid("disabled_passes: there is no pass '{}'; there are: {}", name, join(known, ", "));
  return {};
}

}  // namespace

Result<Graph> optimize(const Graph& original, const runtime::CompileOptions& options) {
  DS_TRY(check_passes(options.disabled_passes));
  // Composites that no kernel takes whole are taken apart; element-wise ones compile as one loop.
  DS_ASSIGN(Graph graph, passes::decompose(original, [&](const Graph& g, const Node& node) {
              return !has_fast_kernel(g, node, options);
            }));
  for (const Pass& pass : kPasses) {
    if (named(options.disabled_passes, pass.name)) continue;
    DS_ASSIGN(graph, pass.run(graph, options));
  }
  return graph;
}

Result<Graph> fuse_loops(const Graph& graph, const runtime::CompileOptions& options) {
  if (named(options.disabled_passes, "fuse_elementwise")) return graph;
  return passes::fuse_elementwise(graph, is_tile_op);
}

}  // namespace deepseek::backends::cpu
