#include "passes/decompose.h"

#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

Result<Graph> decompose(const Graph& graph, const std::function<bool(const Graph&, const Node&)>& should) {
  Graph current = graph;
  // Decompositions may contain composites; a chain longer than this is a cycle between two decompositions.
  constexpr int kMaxRounds = 16;
  for (int round = 0; round < kMaxRounds; ++round) {
    DS_ASSIGN(Graph next, rewrite(current,
                                  [&](Builder& builder, const Graph& g, const Node& node,
                                      const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
                                    if (!node.op->decompose || !should(g, node)) return std::nullopt;
                                    return node.op->decompose(builder, g.context(node), inputs);
                                  }));
    if (next.same_as(current)) return current;
    current = std::move(next);
  }
  return internal_error("decompositions do not end after {} rounds", kMaxRounds);
}

Result<Graph> decompose_composites(const Graph& graph, const PassContext& context) {
  return decompose(graph, [&](const Graph& g, const Node& node) {
    return !node.op->traits.elementwise && !context.target.takes(g, node);
  });
}

Result<Graph> decompose_norms(const Graph& graph, const PassContext& context) {
  return decompose(graph, [&](const Graph&, const Node& node) { return context.target.opens_norm(node); });
}

Result<Graph> decomposition_graph(const OpContext& context) {
  Builder builder(*context.op->registry);
  std::vector<Expr> inputs;
  for (size_t i = 0; i < context.num_inputs(); ++i) inputs.push_back(builder.input(std::to_string(i), context.in(i)));
  const std::vector<Expr> outputs = context.op->decompose(builder, context, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) builder.output(std::to_string(i), outputs[i]);
  return builder.finish();
}

}  // namespace deepseek::passes
