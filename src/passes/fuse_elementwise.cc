#include "passes/fuse_elementwise.h"

#include <algorithm>
#include <map>

#include "graph/builder.h"
#include "passes/decompose.h"

namespace deepseek::passes {

using namespace graph;

namespace {

bool fusible(const Node& node) {
  return node.op->traits.elementwise && !node.op->traits.random && node.num_outputs == 1;
}

}  // namespace

Result<Graph> fuse_elementwise(const Graph& original, const OpRegistry& registry) {
  // Composites open up first, so that their parts fuse with their neighbours.
  DS_ASSIGN(const Graph graph,
            decompose(original, registry, [](const Graph&, const Node& node) { return node.op->traits.elementwise; }));
  const size_t count = graph.nodes().size();
  std::vector<std::vector<int32_t>> users(static_cast<size_t>(graph.num_values()));
  for (size_t n = 0; n < count; ++n)
    for (Value v : graph.nodes()[n].inputs) users[v.id].push_back(static_cast<int32_t>(n));
  std::vector<bool> returned(static_cast<size_t>(graph.num_values()));
  for (const Output& o : graph.outputs()) returned[o.value.id] = true;
  for (const Update& u : graph.updates()) returned[u.value.id] = true;

  // group[n]: the last node of n's group, or -1. Constants go into each group that reads them.
  std::vector<int32_t> group(count, -1), size(count);
  for (size_t n = count; n-- > 0;) {
    const Node& node = graph.nodes()[n];
    if (!fusible(node)) continue;
    const Value y = node.output();
    int32_t target = -1;
    for (int32_t user : users[y.id]) {
      const int32_t g = group[user];
      const bool same_shape = g >= 0 && graph.type(graph.nodes()[g].output()).dims == graph.type(y).dims;
      target = !same_shape || (target >= 0 && target != g) ? -2 : target == -2 ? -2 : g;
    }
    // broadcast_to never writes memory of its own inside a group, so it can't also be returned.
    if (returned[y.id] && node.op_name() == "broadcast_to" && target >= 0) target = -2;
    group[n] = target >= 0 ? target : static_cast<int32_t>(n);
    ++size[group[n]];
  }

  Builder builder(registry);
  std::vector<Expr> map(static_cast<size_t>(graph.num_values()));
  for (const Input& input : graph.inputs())
    map[input.value.id] = builder.input(input.name, graph.type(input.value), input.kind);
  bool changed = false;
  for (size_t n = 0; n < count; ++n) {
    const Node& node = graph.nodes()[n];
    if (group[n] >= 0 && group[n] != static_cast<int32_t>(n)) continue;  // emitted with its group
    builder.set_scope(node.scope);
    if (group[n] < 0 || size[n] < 2) {
      std::vector<Expr> inputs;
      for (Value v : node.inputs) inputs.push_back(map[v.id]);
      const std::vector<Expr> results = builder.emit(node.op_name(), std::move(inputs), node.attrs);
      for (size_t i = 0; i < results.size(); ++i) map[node.output(static_cast<int32_t>(i)).id] = results[i];
      continue;
    }
    changed = true;
    Builder body(registry);
    std::map<int32_t, Expr> inside;
    std::vector<Expr> args;
    std::vector<Value> results;
    const auto operand = [&](Value v) {
      if (auto it = inside.find(v.id); it != inside.end()) return it->second;
      const Node* producer = graph.producer(v);
      if (producer != nullptr && producer->op_name() == "constant" && graph.type(v).num_elements() == 1)
        return inside[v.id] = body.constant(producer->attrs.get<Tensor>("value"));
      args.push_back(map[v.id]);
      return inside[v.id] = body.input(std::to_string(args.size() - 1), graph.type(v));
    };
    for (size_t m = 0; m <= n; ++m) {
      if (group[m] != static_cast<int32_t>(n)) continue;
      const Node& member = graph.nodes()[m];
      std::vector<Expr> inputs;
      for (Value v : member.inputs) inputs.push_back(operand(v));
      inside[member.output().id] = body.op(member.op_name(), std::move(inputs), member.attrs);
      if (m == n || returned[member.output().id]) results.push_back(member.output());
    }
    for (size_t i = 0; i < results.size(); ++i) body.output(std::to_string(i), inside[results[i].id]);
    DS_ASSIGN(Graph fused, body.finish());
    const std::vector<Expr> out =
        builder.emit("fused", args, {{"body", std::make_shared<const Graph>(std::move(fused))}});
    for (size_t i = 0; i < results.size(); ++i) map[results[i].id] = out[i];
  }
  if (!changed) return graph;
  for (const Output& output : graph.outputs()) builder.output(output.name, map[output.value.id]);
  for (const Update& update : graph.updates())
    builder.update(map[graph.inputs()[update.input].value.id], map[update.value.id]);
  return builder.finish();
}

}  // namespace deepseek::passes
