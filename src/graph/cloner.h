// Copies a graph into a builder node by node, so that a pass need only say what it does otherwise.
//   Cloner cloner(builder, graph);
//   cloner.inputs();
//   for (const Node& node : graph.nodes())
//     if (wanted(node)) cloner.set(node, replacement(cloner.operands(node))); else cloner.copy(node);
//   cloner.results();
// Errors stick to the builder. Test: tests/graph/cloner_test.cc
#pragma once

#include <vector>

#include "graph/builder.h"

namespace deepseek::graph {

class Cloner {
 public:
  // Both outlive the cloner.
  Cloner(Builder& builder, const Graph& graph)
      : builder_(builder), graph_(graph), map_(static_cast<size_t>(graph.num_values())) {}

  // The graph's inputs, as inputs of the same names, types and kinds.
  void inputs();
  // Every node that has a value without a new one yet, in order; new values that are there stay. The scope is empty
  // afterwards.
  void nodes();
  // The graph's outputs and updates. The scope is empty afterwards.
  void results();

  // The new form of a value of the graph; undefined before it is made.
  Expr at(Value v) const { return map_[static_cast<size_t>(v.id)]; }
  Expr& operator[](Value v) { return map_[static_cast<size_t>(v.id)]; }
  std::vector<Expr> operands(const Node& node) const { return at(node.inputs); }
  std::vector<Expr> at(const std::vector<Value>& values) const;
  const std::vector<Expr>& values() const { return map_; }  // by value id

  // Emits the node in its scope, with other operands or attributes where given, and sets its outputs.
  std::vector<Expr> copy(const Node& node) { return copy(node, operands(node), node.attrs); }
  std::vector<Expr> copy(const Node& node, std::vector<Expr> operands, Attrs attrs);
  // Takes these for the node's outputs.
  void set(const Node& node, const std::vector<Expr>& outputs);

 private:
  Builder& builder_;
  const Graph& graph_;
  std::vector<Expr> map_;
};

// A graph with one node alone: inputs "0", "1", ... for its operands, outputs "0", "1", ... for those `used` names (by
// default all).
Result<Graph> graph_of(const OpContext& context, const std::vector<bool>& used = {});

}  // namespace deepseek::graph
