#include "passes/rewrite.h"

#include "graph/cloner.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// `replace` gets the new expressions by old value id.
template <class F>
Result<Graph> copy_nodes(const Graph& graph, const F& replace) {
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  bool changed = false;
  for (const Node& node : graph.nodes()) {
    const std::vector<Expr> inputs = cloner.operands(node);
    builder.set_scope(node.scope);
    std::optional<std::vector<Expr>> results = replace(builder, node, inputs, cloner.values());
    if (results) {
      changed = true;
      cloner.set(node, *results);
    } else {
      cloner.copy(node, inputs, node.attrs);
    }
    DS_TRY(builder.status());
  }
  if (!changed) return graph;
  cloner.results();
  return builder.finish();
}

}  // namespace

Result<Graph> rewrite(const Graph& graph, const Replace& replace) {
  return copy_nodes(graph, [&](Builder& builder, const Node& node, const std::vector<Expr>& inputs,
                               const std::vector<Expr>&) { return replace(builder, graph, node, inputs); });
}

Result<Graph> rewrite(const Graph& graph, std::span<const Rule> rules) {
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
    DS_ASSIGN(Graph next, copy_nodes(current, apply));
    if (next.same_as(current)) return current;
    current = std::move(next);
  }
  return internal_error("rewriting does not end after {} rounds; the last rule was '{}'", kMaxRounds, last);
}

}  // namespace deepseek::passes
