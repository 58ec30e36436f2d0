// Reverse-mode differentiation, graph to graph.
// Given:  input x, state w; output loss = f(x, w)
// Result: the same, and one output "grad:w" of w's type per parameter asked for.
// Forward values that gradients need stay values of the graph; the memory planner keeps them alive.
// Test: tests/passes/golden_test.cc, and every op sample against central differences (tests/ops/samples_test.cc).
#pragma once

#include <string>
#include <vector>

#include "graph/builder.h"

namespace deepseek::passes {

// `loss` names a scalar float output; `parameters` name float inputs. A parameter that does not reach the loss gets
// zeros.
Result<graph::Graph> autodiff(const graph::Graph& graph, const std::string& loss,
                              const std::vector<std::string>& parameters, const graph::OpRegistry& registry);

// The vector-Jacobian product of a whole graph: inputs are the graph's inputs, then one "grad:<output>" per float
// output; outputs are one "grad:<input>" per float input.
Result<graph::Graph> vjp(const graph::Graph& graph, const graph::OpRegistry& registry);

}  // namespace deepseek::passes
