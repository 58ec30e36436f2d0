// Convolution on tensors with blocked channels: [N, C, spatial...] held as [N, C/b, spatial..., b], so that b channels
// of a pixel are contiguous. passes/block_channels.h puts these ops in the place of conv and its gradients.
// Test: tests/ops/samples_test.cc, tests/passes/block_channels_test.cc
#pragma once

#include "ops/conv.h"

namespace deepseek::ops {

// [N, C, spatial...] <-> [N, C/b, spatial..., b]
Dims blocked_dims(const Dims& plain, int64_t block);
Dims unblocked_dims(const Dims& blocked);
Expr block_channels(Expr x, int64_t block);
Expr unblock_channels(Expr x);
// Weights [A, B, kernel...] <-> [A/a, B/b, kernel..., b, a]
Expr block_weights(Expr w, int64_t a, int64_t b);
Expr unblock_weights(Expr w);

// The geometry of a blocked_conv node or of one of its gradients, and the blocks of its x and y.
struct BlockedConvShape {
  ConvShape conv;
  int64_t x_block = 0, y_block = 0;
};
Result<BlockedConvShape> blocked_conv_geometry(const OpContext& c);

}  // namespace deepseek::ops
