// Computes what depends on constants alone, by the reference kernels; results of more than 65536 elements, and those
// that only repeat or rearrange a constant, stay as they are.
// Given:  %0 = constant 2; %1 = constant 3; %2 = pow(%0, %1); output %2
// Result: %0 = constant 8; output %0
// Test: tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

Result<graph::Graph> fold_constants(const graph::Graph& graph, const PassContext& context = {});

}  // namespace deepseek::passes
