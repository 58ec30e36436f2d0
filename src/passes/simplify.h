// Leaves out work that changes nothing, by rules (src/graph/pattern.h): copies that undo each other, x * 1, a
// transposed factor of a matrix product. Results keep their bits, but for the sign of a zero (-0 + 0 is 0).
// Given:  %2 = transpose(%1) {permutation=[1,0]}; %3 = matmul(%0, %2)
// Result: %2 = matmul(%0, %1) {transpose_b=true}
// Test: tests/passes/golden/simplify
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

Result<graph::Graph> simplify(const graph::Graph& graph, const PassContext& context = {});

}  // namespace deepseek::passes
