// The loop that most passes share: copy a graph node by node into a builder, replacing some nodes on the way.
// Test: tests/passes/rewrite_test.cc
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "graph/builder.h"
#include "graph/pattern.h"

namespace deepseek::passes {

// Given the node and its already rewritten inputs, returns the expressions that take its outputs' place, or nothing to
// keep the node. Inputs, outputs, updates and name scopes carry over. Returns the same graph if nothing was replaced.
using Replace = std::function<std::optional<std::vector<graph::Expr>>(
    graph::Builder&, const graph::Graph&, const graph::Node&, const std::vector<graph::Expr>& inputs)>;
Result<graph::Graph> rewrite(const graph::Graph& graph, const Replace& replace);

// What a rule's function sees of the place that its pattern found.
struct Found {
  graph::Builder& builder;
  const graph::Graph& graph;
  const graph::Node& node;  // the root's
  const graph::Match& match;
  const std::vector<graph::Expr>& rewritten;  // by value id of `graph`

  graph::Value value(std::string_view name) const { return match.at(name); }
  graph::Expr at(std::string_view name) const { return rewritten[match.at(name).id]; }  // the captured value
  const graph::TensorType& type() const { return graph.type(node.output()); }           // what must be returned
};

// An op with one output, found by `pattern`, gives way to what `replace` returns; undefined leaves it.
struct Rule {
  std::string name;
  graph::Pattern pattern;
  std::function<graph::Expr(const Found&)> replace;
};

// Applies the first rule that fits at each node, again until none fits.
Result<graph::Graph> rewrite(const graph::Graph& graph, std::span<const Rule> rules);

}  // namespace deepseek::passes
