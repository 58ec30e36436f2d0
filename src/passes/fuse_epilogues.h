// Joins a heavy op with the element-wise loop that reads its first output (its epilogue), or makes its first input (its
// prologue), so that the loop works on what is still in cache. What joins is a `fused` node whose body has the heavy op in its middle.
// Given:  %5 = batch_norm(%0, ...); %10 = fused(%5, %9) {body=graph {add, relu}}
// Result: %5 = fused(%0, ..., %9) {body=graph {batch_norm, add, relu}}
// Test: tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// Epilogues and prologues of the ops that the target says (Target::fused_loops), where it has a kernel for the body.
Result<graph::Graph> fuse_epilogues(const graph::Graph& graph, const PassContext& context);

}  // namespace deepseek::passes
