// Runs a graph by its ops' reference kernels in double precision: the meaning of a graph, and the oracle of all tests.
// Test: tests/ops/samples_test.cc
#pragma once

#include <vector>

#include "graph/graph.h"

namespace deepseek::ops {

// `inputs` in the order of graph.inputs(). Returns the outputs, then the new values of the updates. With `round`,
// floats are rounded to each value's dtype after every node; without it they stay double, for finite differences.
Result<std::vector<graph::RefTensor>> evaluate_reference(const graph::Graph& graph,
                                                         const std::vector<graph::RefTensor>& inputs,
                                                         bool round = false);
// One node, by its kernel or its decomposition.
Result<std::vector<graph::RefTensor>> evaluate_node(const graph::OpContext& context,
                                                    std::vector<graph::RefTensor> inputs,
                                                    const std::vector<graph::TensorType>& outputs, bool round = false);

}  // namespace deepseek::ops
