#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

Result<Graph> rewrite(const Graph& graph, const OpRegistry& registry, const Replace& replace) {
  Builder builder(registry);
  std::vector<Expr> map(static_cast<size_t>(graph.num_values()));
  bool changed = false;
  for (const Input& input : graph.inputs())
    map[input.value.id] = builder.input(input.name, graph.type(input.value), input.kind);
  for (const Node& node : graph.nodes()) {
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(map[v.id]);
    builder.set_scope(node.scope);
    std::optional<std::vector<Expr>> results = replace(builder, graph, node, inputs);
    builder.set_scope(node.scope);
    if (results)
      changed = true;
    else
      results = builder.emit(node.op_name(), inputs, node.attrs);
    DS_TRY(builder.status());
    for (int32_t i = 0; i < node.num_outputs; ++i) map[node.output(i).id] = (*results)[i];
  }
  if (!changed) return graph;
  for (const Output& output : graph.outputs()) builder.output(output.name, map[output.value.id]);
  for (const Update& update : graph.updates())
    builder.update(map[graph.inputs()[update.input].value.id], map[update.value.id]);
  return builder.finish();
}

}  // namespace deepseek::passes
