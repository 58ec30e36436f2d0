#include "passes/rematerialize_norms.h"

#include <algorithm>
#include <map>

#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

struct Norm {
  const Node* forward = nullptr;
  std::vector<Expr> inputs, outputs;  // as rewritten
  Expr copy;                          // its first output
};

class Rematerializer {
 public:
  Rematerializer(const Graph& graph, const Target& target) : graph_(graph), uses_(graph.use_counts()) {
    for (const Node& node : graph.nodes()) {
      if (!target.fused_loops(node).prologue) continue;
      const Node* norm = forward_of(node);
      if (norm == nullptr) continue;
      const size_t n = norms_.size();
      norms_.push_back({norm, {}, {}, {}});
      find_readers(node.inputs[0], n);
    }
  }
  bool any() const { return !readers_.empty(); }

  std::optional<std::vector<Expr>> replace(Builder& builder, const Node& node, const std::vector<Expr>& inputs) {
    std::optional<std::vector<Expr>> results;
    for (Norm& norm : norms_) {
      if (norm.forward != &node) continue;
      if (!results) results = builder.emit(node.op_name(), inputs, node.attrs);
      norm.inputs = inputs;
      norm.outputs = *results;
    }
    const auto reader = readers_.find(&node);
    if (reader == readers_.end()) return results;
    Norm& norm = norms_[reader->second];
    if (!norm.copy.defined()) norm.copy = make_copy(norm);
    std::vector<Expr> changed = inputs;
    for (size_t i = 0; i < changed.size(); ++i)
      if (node.inputs[i] == norm.forward->output()) changed[i] = norm.copy;
    return builder.emit(node.op_name(), changed, node.attrs);
  }

 private:
  // The node whose gradient it is: that which gave its mean, if it has the gradient's x.
  const Node* forward_of(const Node& gradient) const {
    const Node* norm = gradient.inputs.size() < 4 ? nullptr : graph_.producer(gradient.inputs[3]);
    return norm != nullptr && norm->op->rematerialize && norm->inputs[0] == gradient.inputs[1] ? norm : nullptr;
  }

  // Readers of the norm's result among the nodes that will be the loop that makes `v`.
  void find_readers(Value v, size_t norm) {
    const Value result = norms_[norm].forward->output();
    const Node* node = graph_.producer(v);
    if (node == nullptr || !node->op->traits.elementwise || node->num_outputs != 1) return;
    if (uses_[static_cast<size_t>(v.id)] != 1 || graph_.type(v).dims != graph_.type(result).dims) return;
    for (Value in : node->inputs) {
      if (in == result)
        readers_.emplace(node, norm);
      else
        find_readers(in, norm);
    }
  }

  Expr make_copy(const Norm& norm) const {
    OpContext context = graph_.context(*norm.forward);
    std::vector<Expr> in(norm.inputs.size()), out(norm.outputs.size());
    const Rematerialize& way = *norm.forward->op->rematerialize;
    for (int32_t i : way.inputs) in[static_cast<size_t>(i)] = norm.inputs[static_cast<size_t>(i)];
    for (int32_t i : way.outputs) out[static_cast<size_t>(i)] = norm.outputs[static_cast<size_t>(i)];
    return way.fn(context, in, out);
  }

  const Graph& graph_;
  std::vector<int32_t> uses_;
  std::vector<Norm> norms_;
  std::map<const Node*, size_t> readers_;
};

}  // namespace

Result<Graph> rematerialize_norms(const Graph& graph, const PassContext& context) {
  Rematerializer pass(graph, context.target);
  if (!pass.any()) return graph;
  return rewrite(graph, [&](Builder& builder, const Graph&, const Node& node, const std::vector<Expr>& inputs) {
    return pass.replace(builder, node, inputs);
  });
}

}  // namespace deepseek::passes
