// What a graph computes as a number: equal for graphs of the same inputs, nodes, attributes, name scopes, outputs and
// updates, whatever made them; constants count by their bytes. Test: tests/graph/hash_test.cc
#pragma once

#include "base/hash.h"
#include "graph/graph.h"

namespace deepseek::graph {

void add(Hasher& hasher, const TensorType& type);
void add(Hasher& hasher, const Tensor& tensor);
void add(Hasher& hasher, const Graph& graph);

}  // namespace deepseek::graph
