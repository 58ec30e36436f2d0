// Where the operands of a blocked convolution are among those of its node, and the loop after it.
// Test: tests/backends_cpu/kernels_test.cc
#pragma once

#include <optional>

#include "backends/cpu/anchored.h"

namespace deepseek::backends::cpu {

struct ConvPlace {
  std::optional<Loop> after;
  int x = 0, weights = 1, result = 0;
};

// The body's nodes after the convolution, which writes to an output of the node: its own if others read it too, else
// that which the loop overwrites in place. `block` is that of the result.
Result<ConvPlace> place_of(const Anchored& a, int64_t block, Purpose purpose);

}  // namespace deepseek::backends::cpu
