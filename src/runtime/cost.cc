#include "runtime/cost.h"

#include <set>

#include "passes/decompose.h"

namespace deepseek::runtime {

using namespace graph;

namespace {

// The graph in one of the node's attributes, or null.
const Graph* body_of(const Node& node) {
  for (const auto& [name, value] : node.attrs)
    if (const auto* body = std::get_if<GraphRef>(&value); body != nullptr && *body != nullptr) return body->get();
  return nullptr;
}

Result<double> default_flops(const Node& node, const OpContext& context, std::span<const TensorType> outputs) {
  if (const Graph* body = body_of(node); body != nullptr) {
    DS_ASSIGN(const Cost cost, graph_cost(*body));
    return cost.flops;
  }
  if (node.op->decompose) {
    DS_ASSIGN(const Graph parts, passes::decomposition_graph(context));
    DS_ASSIGN(const Cost cost, graph_cost(parts));
    return cost.flops;
  }
  double elements = 0;
  for (const TensorType& t : node.op->traits.elementwise ? outputs : std::span<const TensorType>(context.inputs))
    elements += static_cast<double>(t.num_elements());
  return elements;
}

}  // namespace

Result<Cost> node_cost(const Graph& graph, const Node& node, std::span<const int32_t> uses) {
  Cost cost;
  if (node.op->traits.view) return cost;
  const OpContext context = graph.context(node);
  std::set<int32_t> seen;
  for (Value v : node.inputs)
    if (seen.insert(v.id).second) cost.bytes += static_cast<double>(graph.type(v).num_bytes());
  std::vector<TensorType> outputs;
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    const Value v = node.output(i);
    if (uses[v.id] == 0) continue;
    outputs.push_back(graph.type(v));
    cost.bytes += static_cast<double>(outputs.back().num_bytes());
  }
  DS_ASSIGN(cost.flops, default_flops(node, context, outputs));
  if (node.op->cost) node.op->cost(context, outputs, cost);
  return cost;
}

Result<Cost> graph_cost(const Graph& graph) {
  const std::vector<int32_t> uses = graph.use_counts();
  Cost sum;
  for (const Node& node : graph.nodes()) {
    DS_ASSIGN(const Cost cost, node_cost(graph, node, uses));
    sum.flops += cost.flops;
    sum.bytes += cost.bytes;
  }
  return sum;
}

}  // namespace deepseek::runtime
