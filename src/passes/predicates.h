// What kind of work a node is, asked in one place. Test: tests/passes/golden_test.cc, by the passes that ask
#pragma once

#include "graph/graph.h"

namespace deepseek::passes {

// A new shape over the same bytes.
inline bool is_view(const graph::Node& node) { return node.op->traits.view; }

inline bool is_sum(const graph::Node& node) { return node.op_name() == "sum" || node.op_name() == "mean"; }

// What an element-wise loop may hold: an element-wise node with one result that draws nothing, or a sum of f32.
inline bool is_loop_part(const graph::Graph& graph, const graph::Node& node) {
  if (is_sum(node)) {
    const graph::TensorType& x = graph.type(node.inputs[0]);
    return x.dtype == DType::kF32 && x.num_elements() > 0;
  }
  return node.op->traits.elementwise && !node.op->traits.random && node.num_outputs == 1;
}

}  // namespace deepseek::passes
