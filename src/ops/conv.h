// The shape of a convolution, as inference, the reference kernels and the backends see it. One ConvShape describes
// conv and both its gradients; a conv_transpose is described by the convolution whose input gradient it computes.
// Test: tests/ops/conv_test.cc
#pragma once

#include "ops/window.h"

namespace deepseek::ops {

struct ConvShape {
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  Dims input, output;  // spatial sizes
  Window window;       // every list filled in

  Dims x_dims() const { return with_spatial(batch, in_channels, input); }                          // [N, C, ...]
  Dims w_dims() const { return with_spatial(out_channels, in_channels / groups, window.kernel); }  // [O, C/groups, ...]
  Dims y_dims() const { return with_spatial(batch, out_channels, output); }                        // [N, O, ...]

 private:
  static Dims with_spatial(int64_t a, int64_t b, const Dims& spatial) {
    Dims dims = {a, b};
    dims.insert(dims.end(), spatial.begin(), spatial.end());
    return dims;
  }
};

// The convolution of x by w under the window attributes and `groups` of `c`; errors name both shapes.
Result<ConvShape> conv_geometry(const OpContext& c, const Dims& x, const Dims& w);
// The convolution that a conv, conv_transpose, conv_input_grad or conv_weight_grad node belongs to. In a conv_transpose
// the node's input is that convolution's y and its output that convolution's x.
Result<ConvShape> conv_geometry(const OpContext& c);

}  // namespace deepseek::ops
