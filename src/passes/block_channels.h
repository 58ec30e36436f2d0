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

// The block for a conv, conv_input_grad or conv_weight_grad node, dividing both its numbers of channels; 0 leaves it.
using ChooseBlock = std::function<int64_t(const graph::Graph&, const graph::Node&)>;
Result<graph::Graph> block_channels(const graph::Graph& graph, const graph::OpRegistry& registry,
                                    const ChooseBlock& choose);

}  // namespace deepseek::passes
