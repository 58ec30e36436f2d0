// A loop before a norm's gradient that reads the norm's result computes it again from the norm's input and statistics,
// which the gradient reads anyway: the result need not be kept for it, nor read.
// Given:  %5, %6, %7 = batch_norm(%0, %1, %2, ...); %9 = silu_grad(%5, %8); batch_norm_grad(%9, %0, %1, %6, %7)
// Result: ... ; %9 = silu_grad((%0 - %6) * %7 * %1 + %2, %8); batch_norm_grad(%9, %0, %1, %6, %7)
// Test: tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// For the gradients whose kernels have a prologue (Target::fused_loops).
Result<graph::Graph> rematerialize_norms(const graph::Graph& graph, const PassContext& context);

}  // namespace deepseek::passes
