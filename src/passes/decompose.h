// Replaces composite ops by their decompositions, repeatedly, where `should` says so.
// Given:  %2 = gelu(%1)            Result: %2 = mul(%1, 0.5); %3 = ...
// Test: tests/passes/golden_test.cc
#pragma once

#include <functional>

#include "passes/driver.h"

namespace deepseek::passes {

Result<graph::Graph> decompose(const graph::Graph& graph,
                               const std::function<bool(const graph::Graph&, const graph::Node&)>& should);

// Composites that the target has no kernel for; element-wise ones stay, as loops join them.
Result<graph::Graph> decompose_composites(const graph::Graph& graph, const PassContext& context);
// Norms that are a few element-wise operations to the target (Target::opens_norm), so that they join the loops around.
Result<graph::Graph> decompose_norms(const graph::Graph& graph, const PassContext& context);

// One op's decomposition as a graph of its own: inputs "0", "1", ..., outputs "0", "1", ...
Result<graph::Graph> decomposition_graph(const graph::OpContext& context);

}  // namespace deepseek::passes
