// Computes in a low float type what may be: each op as its record's `precision` says (graph/op_def.h).
// Given:  %2 = matmul(%x, %w) : f32[4,8]; output %2
// Result: %2 = cast(%x) : bf16[..]; %3 = cast(%w) : bf16[..]; %4 = matmul(%2, %3) : bf16[4,8]; %5 = cast(%4) : f32[4,8]
// Invariant: inputs, outputs and updates keep their types. So parameters stay f32 and are cast once per run, and as
// autodiff goes through the casts, gradients come back in f32: run it before autodiff.
// Test: tests/passes/golden_test.cc, tests/passes/mixed_precision_test.cc
#pragma once

#include "graph/graph.h"

namespace deepseek::passes {

// `low` is kBF16 or kF16. Only f32 is lowered; f64 stays.
Result<graph::Graph> mixed_precision(const graph::Graph& graph, DType low);

}  // namespace deepseek::passes
