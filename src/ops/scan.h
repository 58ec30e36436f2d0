// scan: one body graph, run along the leading axis with carried values. The body's inputs are carries, slices of the
// xs, consts; its outputs are new carries, then what is stacked. Test: tests/ops/scan_test.cc
#pragma once

#include <vector>

#include "graph/builder.h"

namespace deepseek::ops {

struct ScanResult {
  std::vector<graph::Expr> carries, ys, saved;  // undefined after an error
};

// Emits one scan. `saved` (the carries before each step, stacked) is filled with save_carries.
ScanResult scan(graph::Builder& builder, graph::Graph body, const std::vector<graph::Expr>& carries,
                const std::vector<graph::Expr>& xs, const std::vector<graph::Expr>& consts, bool reverse = false,
                bool save_carries = false);

// scan's record; its sample bodies are built on `registry`, which must hold the element-wise ops and matmul.
Status register_scan(graph::OpRegistry& registry);

}  // namespace deepseek::ops
