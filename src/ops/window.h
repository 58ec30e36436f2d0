// Sliding windows over spatial axes: what convolution and pooling share.
// Every list of a Window has one entry per spatial axis. Test: tests/ops/conv_test.cc, tests/ops/samples_test.cc
#pragma once

#include <algorithm>

#include "ops/common.h"

namespace deepseek::ops {

struct Window {
  Dims kernel, stride, padding_low, padding_high, dilation;

  // Distance from the first to the last element that a window touches on one axis, plus one.
  int64_t extent(size_t axis) const { return (kernel[axis] - 1) * dilation[axis] + 1; }
  // Number of windows per axis. ceil_mode lets the last one hang over the end as long as it starts inside the input or
  // the padding before it (PyTorch's rule). An error where no window fits.
  Result<Dims> output_dims(const Dims& input, bool ceil_mode = false) const;
  // Row-major offset in `input` of element `tap` of window `at`; -1 in the padding.
  int64_t source(const Dims& at, const Dims& tap, const Dims& input) const {
    int64_t offset = 0;
    for (size_t i = 0; i < input.size(); ++i) {
      const int64_t p = at[i] * stride[i] - padding_low[i] + tap[i] * dilation[i];
      if (p < 0 || p >= input[i]) return -1;
      offset = offset * input[i] + p;
    }
    return offset;
  }
};

enum class EmptyStride { kOnes, kKernel };

// Reads stride, padding_low, padding_high and (where the op has it) dilation; empty lists take their defaults.
Result<Window> read_window(const OpContext& c, Dims kernel, EmptyStride empty_stride);
// `x` must be a float [N, C, spatial...] with 1 to 3 spatial axes; returns those.
Result<Dims> spatial_dims(const Dims& x);

std::vector<AttrSpec> window_attrs(EmptyStride empty_stride, bool dilation);

}  // namespace deepseek::ops
