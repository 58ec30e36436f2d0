// Decides which nodes of a graph run as one `fused` node, keeping the graph free of cycles, and writes the result.
// Test: tests/passes/golden_test.cc, by the passes that use it
#pragma once

#include <map>
#include <vector>

#include "graph/builder.h"

namespace deepseek::passes {

class Contraction {
 public:
  // Every node is a group of its own at first, named by its index.
  explicit Contraction(const graph::Graph& graph);

  const graph::Graph& graph() const { return graph_; }
  int32_t group(int32_t node) const { return group_[static_cast<size_t>(node)]; }
  const std::vector<int32_t>& members(int32_t group) const { return members_[static_cast<size_t>(group)]; }  // in order
  const std::vector<int32_t>& users(graph::Value v) const { return users_[static_cast<size_t>(v.id)]; }      // nodes
  bool returned(graph::Value v) const { return returned_[static_cast<size_t>(v.id)]; }
  // Whether somebody outside of the group reads v, or the graph returns it.
  bool escapes(graph::Value v, int32_t group) const;
  // Whether group b, which reads something of group a, may join it: nothing flows out of a and back into b.
  bool may_join(int32_t a, int32_t b);
  // The joined group has the name of b.
  void join(int32_t a, int32_t b);
  // Whose scope the group's node gets; by default that of b.
  void set_scope(int32_t group, int32_t member) { scope_of_[group] = member; }

  // Groups of several nodes as `fused`, with the bodies of `fused` nodes in them opened up; groups in an order in which
  // each has its inputs, as near to that of their names as that allows. The same graph if no group has two nodes.
  Result<graph::Graph> build() const;
  // The body that a group of nodes would have, without joining anything.
  Result<graph::Graph> body(const std::vector<int32_t>& nodes) const;

 private:
  struct Body {
    graph::Graph graph;
    std::vector<graph::Value> arguments, results;
  };
  const graph::Node& node(int32_t n) const { return graph_.nodes()[static_cast<size_t>(n)]; }
  std::vector<int32_t> order() const;
  Result<Body> make_body(const std::vector<int32_t>& nodes) const;

  graph::Graph graph_;
  std::vector<std::vector<int32_t>> users_;
  std::vector<bool> returned_;
  std::vector<int32_t> group_;
  std::vector<std::vector<int32_t>> members_;
  std::map<int32_t, int32_t> scope_of_;
  std::vector<int32_t> seen_;
  int32_t search_ = 0;
};

}  // namespace deepseek::passes
