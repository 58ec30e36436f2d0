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
// Weights [A, B, kernel...] <-> [A/a, B/b, kernel..., b, a]; `swapped`, as the input's gradient takes them, to
// [B/b, A/a, kernel..., a, b]
Expr block_weights(Expr w, int64_t a, int64_t b, bool swapped = false);
Expr unblock_weights(Expr w);

// The geometry of a blocked_conv node or of one of its gradients, and the blocks of its x and y.
struct BlockedConvShape {
  ConvShape conv;
  int64_t x_block = 0, y_block = 0;
};
Result<BlockedConvShape> blocked_conv_geometry(const OpContext& c);

// Of depthwise_conv and its gradients, whose weights are [1, C/b, kernel..., b].
Result<BlockedConvShape> depthwise_conv_geometry(const OpContext& c);
// conv's depthwise weights [C, 1, kernel...] <-> [1, C/b, kernel..., b]
Dims depthwise_weight_dims(const Dims& w, int64_t block);
Expr block_depthwise_weights(Expr w, int64_t block);
Expr unblock_depthwise_weights(Expr w);

}  // namespace deepseek::ops
