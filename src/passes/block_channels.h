// Keeps activations with blocked channels ([N, C/b, spatial..., b], see ops/blocked_conv.h) from one convolution to the
// next: the chosen convolutions become blocked ones, and element-wise ops, norms, pools and reductions between them
// work on the blocked tensor as it is. A value is put back in order only where something needs it so.
// Given:  %2 = conv(%0, %1); %3 = relu(%2); %5 = conv(%3, %4)
// Result: %2 = blocked_conv(block(%0), ...); %3 = relu(%2); %5 = blocked_conv(%3, ...); unblock(%5)
// Test: tests/passes/block_channels_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

// In the blocks that the target asks for (Target::channel_blocks).
Result<graph::Graph> block_channels(const graph::Graph& graph, const PassContext& context);

}  // namespace deepseek::passes
