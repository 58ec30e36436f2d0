// Makes one `fused` node of small element-wise loops that do not depend on each other, such as the optimiser's updates
// of many parameters: what it costs to start a loop on all threads is then paid once. The body has a component for
// each. Loops join that are equally far from the end of the graph, which rules out cycles; nobody waits for a result
// longer than before. Large loops stay alone, because they gain nothing and would keep their inputs alive until the
// last of them is there.
// Given:  %3 = fused(%0) {body=graph {..}}; %4 = fused(%1) {body=graph {..}}; output %3, %4
// Result: %3, %4 = fused(%0, %1) {body=graph {.., ..}}
// Test: tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// A loop is at most that large, and all that join have at most kMostJoined elements.
constexpr int64_t kMostAlone = int64_t{1} << 18, kMostJoined = int64_t{1} << 22;

// Where the target has a fast kernel for the joined body.
Result<graph::Graph> fuse_horizontal(const graph::Graph& graph, const PassContext& context);

}  // namespace deepseek::passes
