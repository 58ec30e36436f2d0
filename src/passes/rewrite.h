// The loop that most passes share: copy a graph node by node into a builder, replacing some nodes on the way.
#pragma once

#include <functional>
#include <optional>

#include "graph/builder.h"

namespace deepseek::passes {

// Given the node and its already rewritten inputs, returns the expressions that take its outputs' place, or nothing to
// keep the node. Inputs, outputs, updates and name scopes carry over. Returns the same graph if nothing was replaced.
using Replace = std::function<std::optional<std::vector<graph::Expr>>(
    graph::Builder&, const graph::Graph&, const graph::Node&, const std::vector<graph::Expr>& inputs)>;
Result<graph::Graph> rewrite(const graph::Graph& graph, const graph::OpRegistry& registry, const Replace& replace);

}  // namespace deepseek::passes
