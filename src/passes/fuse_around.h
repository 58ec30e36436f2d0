// Joins a heavy op with the element-wise loop that reads its first output, or makes its first input, so that the loop
// works on what is still in cache. What joins is a `fused` node whose body has the heavy op in its middle.
// Given:  %5 = batch_norm(%0, ...); %10 = fused(%5, %9) {body=graph {add, relu}}
// Result: %5 = fused(%0, ..., %9) {body=graph {batch_norm, add, relu}}
// Test: tests/passes/golden_test.cc
#pragma once

#include <functional>

#include "graph/graph.h"

namespace deepseek::passes {

// What a backend offers: loops after an op, before it.
struct Around {
  bool after = false, before = false;
};
using ChooseAround = std::function<Around(const graph::Node&)>;
// Whether it has a fast kernel for a body.
using TakesBody = std::function<bool(const graph::Graph& body)>;

Result<graph::Graph> fuse_around(const graph::Graph& graph, const ChooseAround& choose, const TakesBody& takes);

}  // namespace deepseek::passes
