#include "passes/fuse_horizontal.h"

#include <algorithm>
#include <map>

#include "passes/contraction.h"
#include "passes/predicates.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// A loop, whether it is one node yet or several.
bool is_whole_loop(const Graph& graph, const Node& node) {
  if (node.op_name() != "fused") return is_loop_part(graph, node);
  const Graph& body = *node.attrs.get<GraphRef>("body");
  return std::all_of(body.nodes().begin(), body.nodes().end(),
                     [&](const Node& n) { return n.op_name() == "constant" || is_loop_part(body, n); });
}

// Of the iteration space.
int64_t elements(const Graph& graph, const Node& node) {
  int64_t most = 0;
  for (Value v : node.inputs) most = std::max(most, graph.type(v).num_elements());
  for (int32_t i = 0; i < node.num_outputs; ++i) most = std::max(most, graph.type(node.output(i)).num_elements());
  return most;
}

}  // namespace

Result<Graph> fuse_horizontal(const Graph& graph, const PassContext& context) {
  Contraction groups(graph);
  const auto count = static_cast<int32_t>(graph.nodes().size());
  // The longest way from a node to the end. What is equally far does not depend on each other.
  std::vector<int32_t> far(static_cast<size_t>(count));
  std::map<int32_t, std::vector<int32_t>> loops;  // by that distance
  for (int32_t n = count; n-- > 0;) {
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    for (int32_t i = 0; i < node.num_outputs; ++i)
      for (int32_t user : groups.users(node.output(i)))
        far[static_cast<size_t>(n)] = std::max(far[static_cast<size_t>(n)], far[static_cast<size_t>(user)] + 1);
    if (is_whole_loop(graph, node) && elements(graph, node) <= kMostAlone)
      loops[far[static_cast<size_t>(n)]].push_back(n);
  }
  // Where a node's results are read first: it must not wait for what comes later.
  const auto deadline = [&](int32_t n) {
    int32_t first = count;
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    for (int32_t i = 0; i < node.num_outputs; ++i)
      for (int32_t user : groups.users(node.output(i))) first = std::min(first, user);
    return first;
  };
  for (auto& [distance, nodes] : loops) {
    std::sort(nodes.begin(), nodes.end());
    for (size_t begin = 0, end = 0; begin < nodes.size(); begin = end) {
      int64_t sum = 0;
      int32_t first = count;
      for (; end < nodes.size(); ++end) {
        sum += elements(graph, graph.nodes()[static_cast<size_t>(nodes[end])]);
        if (end > begin && (sum > kMostJoined || nodes[end] >= first)) break;
        first = std::min(first, deadline(nodes[end]));
      }
      if (end - begin < 2) continue;
      const std::vector<int32_t> members(nodes.begin() + static_cast<std::ptrdiff_t>(begin),
                                         nodes.begin() + static_cast<std::ptrdiff_t>(end));
      const Result<Graph> body = groups.body(members);
      if (!body.ok() || !context.target.takes_body(*body)) continue;
      for (size_t i = 0; i + 1 < members.size(); ++i) groups.join(members[i], members.back());
      const auto size = [&](int32_t n) { return elements(graph, graph.nodes()[static_cast<size_t>(n)]); };
      groups.set_scope(members.back(), *std::max_element(members.begin(), members.end(),
                                                         [&](int32_t a, int32_t b) { return size(a) < size(b); }));
    }
  }
  return groups.build();
}

}  // namespace deepseek::passes
