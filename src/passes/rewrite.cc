#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// `replace` gets the new expressions by old value id.
template <class F>
Result<Graph> copy_nodes(const Graph& graph, const OpRegistry& registry, const F& replace) {
  Builder builder(registry);
  std::vector<Expr> map(static_cast<size_t>(graph.num_values()));
  bool changed = false;
  for (const Input& input : graph.inputs())
    map[input.value.id] = builder.input(input.name, graph.type(input.value), input.kind);
  for (const Node& node : graph.nodes()) {
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(map[v.id]);
    builder.set_scope(node.scope);
    std::optional<std::vector<Expr>> results = replace(builder, node, inputs, map);
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

}  // namespace

Result<Graph> rewrite(const Graph& graph, const OpRegistry& registry, const Replace& replace) {
  return copy_nodes(graph, registry,
                    [&](Builder& builder, const Node& node, const std::vector<Expr>& inputs, const std::vector<Expr>&) {
                      return replace(builder, graph, node, inputs);
                    });
}

Result<Graph> rewrite(const Graph& graph, const OpRegistry& registry, std::span<const Rule> rules) {
  Graph current = graph;
  // A chain halves in each round, so a graph that needs more has two rules that undo each other.
  constexpr int kMaxRounds = 64;
  std::string last;
  for (int round = 0; round < kMaxRounds; ++round) {
    const Matcher matcher(current);
    const auto apply = [&](Builder& builder, const Node& node, const std::vector<Expr>&,
                           const std::vector<Expr>& rewritten) -> std::optional<std::vector<Expr>> {
      if (node.num_outputs != 1) return std::nullopt;
      for (const Rule& rule : rules) {
        const std::optional<Match> match = matcher.match(rule.pattern, node.output());
        if (!match) continue;
        const Expr result = rule.replace({builder, current, node, *match, rewritten});
        if (!result.defined()) continue;
        last = rule.name;
        if (result.type() != current.type(node.output()))
          builder.fail(internal_error("rule '{}' replaces [{}] node '{}': expected {}, got {}", rule.name,
                                      node.op_name(), node.scope, to_string(current.type(node.output())),
                                      to_string(result.type())));
        return std::vector<Expr>{result};
      }
      return std::nullopt;
    };
    DS_ASSIGN(Graph next, copy_nodes(current, registry, apply));
    if (next.same_as(current)) return current;
    current = std::move(next);
  }
  return internal_error("rewriting does not end after {} rounds; the last rule was '{}'", kMaxRounds, last);
}

}  // namespace deepseek::passes
