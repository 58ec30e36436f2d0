#include "ops/registry.h"

#include <fmt/core.h>

#include <cstdlib>

#include "base/console.h"

namespace deepseek::ops {

const graph::OpRegistry& registry() {
  static const graph::OpRegistry* const instance = [] {
    auto* r = new graph::OpRegistry;
    for (auto* family : {register_constant, register_elementwise, register_activation, register_reduce, register_shape,
                         register_index, register_matmul, register_conv, register_blocked_conv, register_depthwise_conv,
                         register_pool, register_norm, register_fused, register_random, register_attention,
                         register_rnn, register_interpolate, register_loss, register_ctc}) {
      if (Status s = family(*r); !s.ok()) {
        // A contradictory record is a bug of ours that every test would hit; there is no caller to tell.
        print_err("{}\n", s.to_string());
        std::abort();
      }
    }
    return r;
  }();
  return *instance;
}

}  // namespace deepseek::ops
