// What a backend tells passes about the device they prepare a graph for. The defaults are those of a backend that takes
// every op whole and joins nothing. Test: tests/passes/driver_test.cc
#pragma once

#include "graph/graph.h"

namespace deepseek::passes {

// Blocks of the channels of a convolution's x and y, which they divide. What reads several tensors of one number of
// channels finds them in the same block if the choice depends on that number alone.
struct ChannelBlocks {
  int64_t x = 0, y = 0;
};

// Element-wise loops that a kernel does beside its op, on what is still in cache: after it, over its first output;
// before it, over its first input.
struct FusedLoops {
  bool epilogue = false, prologue = false;
};

class Target {
 public:
  virtual ~Target() = default;
  // Whether it has a kernel for the node, so that a composite need not be taken apart.
  virtual bool takes(const graph::Graph& graph, const graph::Node& node) const { return true; }
  // Whether it has a fast kernel for a `fused` node of this body.
  virtual bool takes_body(const graph::Graph& body) const { return false; }
  // Whether a loop computes the element-wise composite as one operation; others open up, so that their parts fuse.
  virtual bool is_loop_op(const graph::Graph& graph, const graph::Node& node) const { return false; }
  // For a conv, conv_input_grad or conv_weight_grad; zeros leave it as it is.
  virtual ChannelBlocks channel_blocks(const graph::Graph& graph, const graph::Node& node) const { return {}; }
  virtual FusedLoops fused_loops(const graph::Node& node) const { return {}; }
  // Whether the node is only a few element-wise operations for it, which are better joined with the loop around them.
  virtual bool opens_norm(const graph::Node& node) const { return false; }
};

// That of the defaults.
const Target& plain_target();

}  // namespace deepseek::passes
