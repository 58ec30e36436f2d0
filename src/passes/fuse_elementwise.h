// Groups element-wise nodes, and sums of what they give, into one loop over memory: a node joins the group of one of
// its users that has its shape, unless a value would then have to flow out of the group and back. What others read too,
// and what the graph returns, are further outputs of the group.
// Given:  %2 = add(%0, %1); %3 = relu(%2); output %3
// Result: %2 = fused(%0, %1) {body=graph {add, relu}}; output %2
// Test: tests/passes/golden_test.cc
#pragma once

#include <functional>

#include "graph/graph.h"

namespace deepseek::passes {

// `is_whole`: element-wise composites that the loop computes as one operation; others open up first, so that their
// parts fuse with their neighbours.
using IsWhole = std::function<bool(const graph::Graph&, const graph::Node&)>;

Result<graph::Graph> fuse_elementwise(const graph::Graph& graph, const graph::OpRegistry& registry,
                                      const IsWhole& is_whole = {});

}  // namespace deepseek::passes
