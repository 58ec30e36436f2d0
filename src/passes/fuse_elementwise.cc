#include "passes/fuse_elementwise.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "passes/contraction.h"
#include "passes/decompose.h"
#include "passes/predicates.h"
#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// The iteration space of the group that `leader` ends.
const Dims& dims(const Graph& graph, const Node& leader) {
  return graph.type(is_sum(leader) ? leader.inputs[0] : leader.output()).dims;
}

void join_loops(Contraction& groups) {
  const Graph& graph = groups.graph();
  for (int32_t n = static_cast<int32_t>(graph.nodes().size()); n-- > 0;) {
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    if (!is_loop_part(graph, node) || is_sum(node)) continue;
    const Value y = node.output();
    for (int32_t user : groups.users(y)) {
      const int32_t g = groups.group(user);
      const Node& leader = graph.nodes()[static_cast<size_t>(g)];
      if (!is_loop_part(graph, leader) || dims(graph, leader) != graph.type(y).dims) continue;
      // A broadcast is not memory, so it can't leave the group.
      if (node.op_name() == "broadcast_to" && groups.escapes(y, g)) continue;
      if (!groups.may_join(n, g)) continue;
      groups.join(n, g);
      break;
    }
  }
}

// Whether reading the node's operand and computing again costs no more than reading its result.
bool is_cheap(const Graph& graph, const Node& node) {
  static const std::set<std::string> kCheap = {"add", "sub", "mul", "neg", "square", "relu", "abs"};
  if (!kCheap.contains(node.op_name())) return false;
  std::set<int32_t> large;
  for (Value v : node.inputs) {
    if (graph.type(v).num_elements() > 1) large.insert(v.id);
    if (graph.type(v).num_bytes() > graph.type(node.output()).num_bytes()) return false;
  }
  return large.size() == 1;
}

// A cheap node whose result several loops read, and nobody else, such as the square of a gradient that its norm and the
// optimiser want: each loop computes it for itself, so that it is never in memory. The same graph if there is none.
Result<Graph> unshare(const Graph& graph, const Contraction& groups) {
  std::vector<bool> copied(graph.nodes().size());
  for (size_t n = 0; n < copied.size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (!is_loop_part(graph, node) || is_sum(node) || !is_cheap(graph, node)) continue;
    const std::vector<int32_t>& users = groups.users(node.output());
    copied[n] = !groups.returned(node.output()) && groups.escapes(node.output(), groups.group(static_cast<int32_t>(n)));
    for (int32_t user : users) {
      const Node& reader = graph.nodes()[static_cast<size_t>(user)];
      copied[n] = copied[n] && is_loop_part(graph, reader) && dims(graph, reader) == graph.type(node.output()).dims;
    }
  }
  if (std::find(copied.begin(), copied.end(), true) == copied.end()) return graph;
  std::map<int32_t, std::vector<Expr>> inputs_of;      // of copied nodes, by number
  std::map<std::pair<int32_t, int32_t>, Expr> copies;  // by value and by the group that reads it
  const auto number = [&](const Node& node) { return static_cast<int32_t>(&node - graph.nodes().data()); };
  const auto replace = [&](Builder& builder, const Graph&, const Node& node,
                           const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
    const int32_t group = groups.group(number(node));
    const std::function<std::vector<Expr>(const Node&, std::vector<Expr>)> own = [&](const Node& of,
                                                                                     std::vector<Expr> operands) {
      for (size_t i = 0; i < operands.size(); ++i) {
        const Node* producer = graph.producer(of.inputs[i]);
        if (producer == nullptr || !copied[static_cast<size_t>(number(*producer))]) continue;
        Expr& copy = copies[{of.inputs[i].id, group}];
        if (!copy.defined())
          copy = builder.op(producer->op_name(), own(*producer, inputs_of.at(number(*producer))), producer->attrs);
        operands[i] = copy;
      }
      return operands;
    };
    if (copied[static_cast<size_t>(number(node))]) {  // dead once its readers have copies
      inputs_of[number(node)] = inputs;
      return std::nullopt;
    }
    return builder.emit(node.op_name(), own(node, inputs), node.attrs);
  };
  return rewrite(graph, replace);
}

}  // namespace

Result<Graph> fuse_elementwise(const Graph& original, const PassContext& context) {
  DS_ASSIGN(const Graph graph, decompose(original, [&](const Graph& g, const Node& node) {
              return node.op->traits.elementwise && !context.target.is_loop_op(g, node);
            }));
  Contraction groups(graph);
  join_loops(groups);
  DS_ASSIGN(const Graph unshared, unshare(graph, groups));
  if (unshared.same_as(graph)) return groups.build();
  Contraction again(unshared);
  join_loops(again);
  return again.build();
}

}  // namespace deepseek::passes
