// The op registry: every family registers itself by an explicit call, in registry.cc's list.
// Test: tests/ops/samples_test.cc
#pragma once

#include "graph/op_def.h"

namespace deepseek::ops {

// All built-in ops; built once, then immutable.
const graph::OpRegistry& registry();

Status register_constant(graph::OpRegistry& registry);
Status register_elementwise(graph::OpRegistry& registry);
Status register_activation(graph::OpRegistry& registry);
Status register_reduce(graph::OpRegistry& registry);
Status register_shape(graph::OpRegistry& registry);
Status register_index(graph::OpRegistry& registry);
Status register_matmul(graph::OpRegistry& registry);
Status register_conv(graph::OpRegistry& registry);
Status register_blocked_conv(graph::OpRegistry& registry);
Status register_depthwise_conv(graph::OpRegistry& registry);
Status register_pool(graph::OpRegistry& registry);
Status register_norm(graph::OpRegistry& registry);
Status register_random(graph::OpRegistry& registry);
Status register_attention(graph::OpRegistry& registry);
Status register_rnn(graph::OpRegistry& registry);
Status register_interpolate(graph::OpRegistry& registry);
Status register_loss(graph::OpRegistry& registry);
Status register_ctc(graph::OpRegistry& registry);
Status register_fused(graph::OpRegistry& registry);  // after elementwise: its sample is built of those ops

}  // namespace deepseek::ops
