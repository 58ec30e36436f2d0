// One spatial axis of a convolution, as loops see it. Test: tests/ops/samples_test.cc
#pragma once

#include <algorithm>
#include <cstdint>

namespace deepseek::backends::cpu {

// Where tap k of one axis joins x and y: y[y_first + i] with x[x_first + i * stride], for i in [0, count).
struct Overlap {
  int64_t tap = 0, x_first = 0, y_first = 0, count = 0;
};

struct Axis {
  int64_t x = 1, y = 1, kernel = 1, stride = 1, low = 0, dilation = 1;

  Overlap overlap(int64_t tap) const {
    const int64_t shift = tap * dilation - low;
    const int64_t first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    const int64_t last = x - 1 - shift < 0 ? -1 : std::min(y - 1, (x - 1 - shift) / stride);
    return {tap, first * stride + shift, first, std::max<int64_t>(0, last - first + 1)};
  }
};

}  // namespace deepseek::backends::cpu
