// FLOPs and bytes of a node, from its record. The default, which OpDef::cost may change: the sum over the body of an op
// that has one; else over its decomposition; else one FLOP per element written for element-wise ops and per element
// read for others. Bytes are those of the distinct inputs and of the outputs that somebody reads.
// Test: tests/runtime/cost_test.cc
#pragma once

#include <span>

#include "graph/graph.h"

namespace deepseek::runtime {

// `uses` is graph.use_counts(). The error is one of a decomposition that does not build.
Result<graph::Cost> node_cost(const graph::Graph& graph, const graph::Node& node, std::span<const int32_t> uses);

// The sum of all nodes.
Result<graph::Cost> graph_cost(const graph::Graph& graph);

}  // namespace deepseek::runtime
