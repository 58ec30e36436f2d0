#include "backends/cpu/target.h"

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_program.h"
#include "graph/builder.h"

namespace deepseek::backends::cpu {

using namespace graph;

bool CpuTarget::takes(const Graph& graph, const Node& node) const {
  NodeInfo info{graph.context(node), {}, {}, &options_};
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    info.outputs.push_back(graph.type(node.output(i)));
    info.used.push_back(true);
  }
  // Where there are no elements the reference is the best: decompositions may reduce what is not there.
  if (is_empty(info) && node.op->reference.value.fn() && !is_disabled(options_, "reference")) return true;
  for (const Implementation& implementation : implementations(*node.op))
    if (implementation.name != "reference" && cpu::takes(implementation, info).ok()) return true;
  return false;
}

bool CpuTarget::takes_body(const Graph& body) const {
  Builder builder(body.registry());
  std::vector<Expr> inputs;
  for (const Input& input : body.inputs()) inputs.push_back(builder.input(input.name, body.type(input.value)));
  builder.output("0", builder.op("fused", inputs, {{"body", std::make_shared<const Graph>(body)}}));
  const Result<Graph> alone = builder.finish();
  return alone.ok() && takes(*alone, alone->nodes().back());
}

bool CpuTarget::is_loop_op(const Graph& graph, const Node& node) const { return is_tile_op(graph, node); }

passes::ChannelBlocks CpuTarget::channel_blocks(const Graph& graph, const Node& node) const {
  return cpu::channel_blocks(NodeInfo{graph.context(node), {graph.type(node.output())}, {true}, &options_});
}

passes::FusedLoops CpuTarget::fused_loops(const Node& node) const {
  const std::string& op = node.op_name();
  if (op == "batch_norm" || op == "batch_norm_inference") return {.epilogue = node.attrs.integer("channel_block") > 0};
  if (op == "batch_norm_grad") return {.prologue = node.attrs.integer("channel_block") > 0};
  return {.epilogue = op == "blocked_conv"};
}

// A given statistic makes the norm two numbers per channel, which go into the loop after a convolution.
bool CpuTarget::opens_norm(const Node& node) const {
  return node.op_name() == "batch_norm_inference" && node.attrs.integer("channel_block") > 0;
}

}  // namespace deepseek::backends::cpu
