#include "passes/fuse_elementwise.h"

#include "passes/contraction.h"
#include "passes/decompose.h"

namespace deepseek::passes {

using namespace graph;

namespace {

bool is_sum(const Node& node) { return node.op_name() == "sum" || node.op_name() == "mean"; }

bool fusible(const Graph& graph, const Node& n) {
  if (is_sum(n)) return graph.type(n.inputs[0]).dtype == DType::kF32 && graph.type(n.inputs[0]).num_elements() > 0;
  return n.op->traits.elementwise && !n.op->traits.random && n.num_outputs == 1;
}

// The iteration space of the group that `leader` ends.
const Dims& dims(const Graph& graph, const Node& leader) {
  return graph.type(is_sum(leader) ? leader.inputs[0] : leader.output()).dims;
}

}  // namespace

Result<Graph> fuse_elementwise(const Graph& original, const OpRegistry& registry, const IsWhole& is_whole) {
  DS_ASSIGN(const Graph graph, decompose(original, registry, [&](const Graph& g, const Node& node) {
              return node.op->traits.elementwise && (!is_whole || !is_whole(g, node));
            }));
  Contraction groups(graph);
  for (int32_t n = static_cast<int32_t>(graph.nodes().size()); n-- > 0;) {
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    if (!fusible(graph, node) || is_sum(node)) continue;
    const Value y = node.output();
    for (int32_t user : groups.users(y)) {
      const int32_t g = groups.group(user);
      const Node& leader = graph.nodes()[static_cast<size_t>(g)];
      if (!fusible(graph, leader) || dims(graph, leader) != graph.type(y).dims) continue;
      // A broadcast is not memory, so it can't leave the group.
      if (node.op_name() == "broadcast_to" && groups.escapes(y, g)) continue;
      if (!groups.may_join(n, g)) continue;
      groups.join(n, g);
      break;
    }
  }
  return groups.build(registry);
}

}  // namespace deepseek::passes
