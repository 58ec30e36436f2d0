// Keeps activations with blocked channels ([N, C/b, spatial..., b], see ops/blocked_conv.h) from one convolution to the
// next: the chosen convolutions become blocked ones, and element-wise ops, norms, pools and reductions between them
// work on the blocked tensor as it is. A value is put back in order only where something needs it so.
// Given:  %2 = conv(%0, %1); %3 = relu(%2); %5 = conv(%3, %4)
// Result: %2 = blocked_conv(block(%0), ...); %3 = relu(%2); %5 = blocked_conv(%3, ...); unblock(%5)
// Test: tests/passes/block_channels_test.cc
#pragma once

#include <functional>

#include "graph/graph.h"

namespace deepseek::passes {

// Blocks of the channels of a convolution's x and y, which they divide. What reads several tensors of one number of
// channels finds them in the same block if the choice depends on that number alone.
struct ChannelBlocks {
  int64_t x = 0, y = 0;
};
// For a conv, conv_input_grad or conv_weight_grad node; zeros leave it as it is.
using ChooseBlock = std::function<ChannelBlocks(const graph::Graph&, const graph::Node&)>;
Result<graph::Graph> block_channels(const graph::Graph& graph, const ChooseBlock& choose);

}  // namespace deepseek::passes
