#include "graph/graph.h"

#include <set>

namespace deepseek::graph {

int32_t Graph::find_input(std::string_view name) const {
  for (size_t i = 0; i < data_->inputs.size(); ++i)
    if (data_->inputs[i].name == name) return static_cast<int32_t>(i);
  return -1;
}

int32_t Graph::find_output(std::string_view name) const {
  for (size_t i = 0; i < data_->outputs.size(); ++i)
    if (data_->outputs[i].name == name) return static_cast<int32_t>(i);
  return -1;
}

OpContext Graph::context(const Node& node) const {
  OpContext c{node.op, {}, &node.attrs};
  for (Value v : node.inputs) c.inputs.push_back(type(v));
  return c;
}

std::vector<int32_t> Graph::use_counts() const {
  std::vector<int32_t> counts(data_->types.size());
  for (const Node& node : data_->nodes)
    for (Value v : node.inputs) ++counts[v.id];
  for (const Output& out : data_->outputs) ++counts[out.value.id];
  for (const Update& update : data_->updates) ++counts[update.value.id];
  return counts;
}

namespace {

Status verify_node(const Graph& graph, const Node& node, const std::vector<bool>& made) {
  const std::string where = fmt::format("[{}] node '{}'", node.op->name.value, node.scope);
  for (Value v : node.inputs)
    if (v.id < 0 || v.id >= graph.num_values() || !made[v.id])
      return internal_error("{} reads %{} before it is made", where, v.id);
  // Layouts other than row-major are the layout pass's business: inference sees the logical type.
  OpContext context = graph.context(node);
  for (TensorType& t : context.inputs) t.channel_block = 1;
  Result<std::vector<TensorType>> types = infer_types(context);
  if (!types.ok()) return std::move(types).status().note("while verifying " + where);
  if (static_cast<int32_t>(types->size()) != node.num_outputs)
    return internal_error("{} has {} outputs, inference says {}", where, node.num_outputs, types->size());
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    TensorType have = graph.type(node.output(i));
    have.channel_block = 1;
    if (have != (*types)[i])
      return internal_error("{} output {}: expected {} by inference, got {}", where, i, to_string((*types)[i]),
                            to_string(have));
  }
  return {};
}

}  // namespace

Status verify(const Graph& graph) {
  if (!graph.has_registry()) return internal_error("the graph does not say what registry its ops come from");
  std::vector<bool> made(static_cast<size_t>(graph.num_values()));
  std::set<std::string> names;
  for (const Input& input : graph.inputs()) {
    if (!names.insert(input.name).second) return invalid("two inputs are called '{}'; names must differ", input.name);
    made[input.value.id] = true;
  }
  for (const Node& node : graph.nodes()) {
    DS_TRY(verify_node(graph, node, made));
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      if (made[node.output(i).id]) return internal_error("%{} is made twice", node.output(i).id);
      made[node.output(i).id] = true;
    }
  }
  names.clear();
  for (const Output& output : graph.outputs()) {
    if (!names.insert(output.name).second)
      return invalid("two outputs are called '{}'; names must differ", output.name);
    if (!output.value.defined() || !made[output.value.id])
      return internal_error("output '{}' is not made by any node", output.name);
  }
  std::set<int32_t> updated;
  for (const Update& update : graph.updates()) {
    const Input& input = graph.inputs()[update.input];
    if (input.kind != InputKind::kState) return invalid("input '{}' is updated but is not state", input.name);
    if (!updated.insert(update.input).second) return invalid("state '{}' is updated twice", input.name);
    if (!made[update.value.id]) return internal_error("the update of '{}' is not made by any node", input.name);
    if (graph.type(update.value) != graph.type(input.value))
      return invalid("update of state '{}': expected {}, got {}", input.name, to_string(graph.type(input.value)),
                     to_string(graph.type(update.value)));
  }
  return {};
}

}  // namespace deepseek::graph
