// Groups element-wise nodes, and sums of what they give, into one loop over memory: a node joins the group of one of
// its users that has its shape, unless a value would then have to flow out of the group and back. What others read too,
// and what the graph returns, are further outputs of the group.
// Given:  %2 = add(%0, %1); %3 = relu(%2); output %3
// Result: %2 = fused(%0, %1) {body=graph {add, relu}}; output %2
// Test: tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// Element-wise composites that the target's loops do not compute as one operation (Target::is_loop_op) open up first, so
// that their parts fuse with their neighbours.
Result<graph::Graph> fuse_elementwise(const graph::Graph& graph, const PassContext& context = {});

}  // namespace deepseek::passes
