// Groups element-wise nodes into one loop over memory: a node joins its users' group if all of them are in one group of
// the same shape. A value of the group that the graph also returns becomes a further output of the group.
// Given:  %2 = add(%0, %1); %3 = relu(%2); output %3
// Result: %2 = fused(%0, %1) {body=graph {add, relu}}; output %2
// Test: tests/passes/golden_test.cc
#pragma once

#include "graph/graph.h"

namespace deepseek::passes {

Result<graph::Graph> fuse_elementwise(const graph::Graph& graph, const graph::OpRegistry& registry);

}  // namespace deepseek::passes
