// The shape of a pooling op, as inference, the reference kernels and the backends see it.
// Every window holds at least one element of the input. Test: tests/ops/conv_test.cc
#pragma once

#include "ops/window.h"

namespace deepseek::ops {

struct PoolShape {
  int64_t planes = 0;  // N * C
  Dims input, output;  // spatial sizes
  Window window;       // every list filled in
};

// Geometry of a max_pool, avg_pool or avg_pool_grad node.
Result<PoolShape> pool_geometry(const OpContext& c);
// What avg_pool divides the sum of window `at` by: with count_include_pad the part of the window inside the padded
// input, else the part inside the input (PyTorch's rule).
int64_t avg_pool_divisor(const PoolShape& s, const Dims& at, bool count_include_pad);
// Elements [first, second) that adaptive pooling reduces to element i of `out`, from an axis of `in`.
std::pair<int64_t, int64_t> adaptive_range(int64_t i, int64_t in, int64_t out);

}  // namespace deepseek::ops
