// Inputs that take a value for good become constants, so that the passes and the backend may compute ahead with them.
// Given:  %0 = input "x"; %1 = state "w"; %2 = matmul(%0, %1)      with w = <tensor>
// Result: %0 = input "x"; %1 = constant() {value=<tensor>}; %2 = matmul(%0, %1)
// Test: tests/passes/bind_inputs_test.cc
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"
#include "graph/tensor.h"

namespace deepseek::passes {

// Errors: a name that is no input, another type, a state that the graph updates.
Result<graph::Graph> bind_inputs(const graph::Graph& graph, const std::map<std::string, graph::Tensor>& values);

}  // namespace deepseek::passes
