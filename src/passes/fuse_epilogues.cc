#include "passes/fuse_epilogues.h"

#include <algorithm>

#include "passes/contraction.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// A loop over exactly these dims, without sums.
bool is_loop(const Graph& graph, const Node& node, const Dims& dims) {
  if (node.op_name() != "fused" && (!node.op->traits.elementwise || node.op->traits.random)) return false;
  for (int32_t i = 0; i < node.num_outputs; ++i)
    if (graph.type(node.output(i)).dims != dims) return false;
  return true;
}

class Joiner {
 public:
  Joiner(const Graph& graph, const Target& target)
      : graph_(graph), target_(target), groups_(graph), anchor_(graph.nodes().size()) {
    for (size_t n = 0; n < anchor_.size(); ++n) {
      const FusedLoops loops = target.fused_loops(graph.nodes()[n]);
      anchor_[n] = loops.epilogue || loops.prologue;
    }
    for (size_t n = 0; n < anchor_.size(); ++n) {
      const FusedLoops loops = target.fused_loops(graph.nodes()[n]);
      if (loops.prologue) join_prologue(static_cast<int32_t>(n));
      if (loops.epilogue) join_epilogue(static_cast<int32_t>(n));
    }
  }
  Result<Graph> build() const { return groups_.build(); }

 private:
  bool is_free(int32_t n) const { return !anchor_[static_cast<size_t>(n)] && groups_.members(n).size() == 1; }

  // Joins group a, whose values group b reads, to b, if that is legal and there is a kernel.
  bool join(int32_t a, int32_t b) {
    if (!groups_.may_join(a, b)) return false;
    std::vector<int32_t> nodes = groups_.members(a);
    nodes.insert(nodes.end(), groups_.members(b).begin(), groups_.members(b).end());
    std::sort(nodes.begin(), nodes.end());
    const Result<Graph> body = groups_.body(nodes);
    if (!body.ok() || !target_.takes_body(*body)) return false;
    groups_.join(a, b);
    return true;
  }

  void join_prologue(int32_t n) {
    const Value x = graph_.nodes()[static_cast<size_t>(n)].inputs[0];
    const Node* producer = graph_.producer(x);
    if (producer == nullptr || !is_loop(graph_, *producer, graph_.type(x).dims)) return;
    const int32_t p = static_cast<int32_t>(producer - graph_.nodes().data());
    if (is_free(p)) join(p, groups_.group(n));
  }

  void join_epilogue(int32_t n) {
    const Value y = graph_.nodes()[static_cast<size_t>(n)].output();
    for (int32_t user : groups_.users(y))
      if (is_free(user) && is_loop(graph_, graph_.nodes()[static_cast<size_t>(user)], graph_.type(y).dims) &&
          join(groups_.group(n), user)) {
        anchor_[static_cast<size_t>(user)] = true;  // the group's name now
        return;
      }
  }

  const Graph& graph_;
  const Target& target_;
  Contraction groups_;
  std::vector<bool> anchor_;  // by node: not to be taken in by others
};

}  // namespace

Result<Graph> fuse_epilogues(const Graph& graph, const PassContext& context) {
  return Joiner(graph, context.target).build();
}

}  // namespace deepseek::passes
