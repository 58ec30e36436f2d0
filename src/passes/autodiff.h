// Reverse-mode differentiation, graph to graph.
// Given:  input x, state w; output loss = f(x, w)
// Result: the same, and one output "grad:w" of w's type per parameter asked for.
// Forward values that gradients need stay values of the graph; the memory planner keeps them alive. Inside a body, such
// as scan's, those that are more than element-wise work away become results of the node for this purpose.
// Test: tests/passes/golden_test.cc, and every op sample against central differences (tests/ops/samples_test.cc).
#pragma once

#include <string>
#include <vector>

#include "graph/builder.h"

namespace deepseek::passes {

// `loss` names a scalar float output; `parameters` name float inputs. A parameter that does not reach the loss gets
// zeros.
Result<graph::Graph> autodiff(const graph::Graph& graph, const std::string& loss,
                              const std::vector<std::string>& parameters);

// The vector-Jacobian product of a whole graph: inputs are the graph's inputs, then one "grad:<output>" per float
// output; outputs are one "grad:<input>" per float input. The values of the last `saved` outputs come in between as
// inputs of these names, rather than being computed, and have no gradient.
Result<graph::Graph> vjp(const graph::Graph& graph, size_t saved = 0);

}  // namespace deepseek::passes
