// Gradients within limits, by element and by their global norm. Test: tests/python/test_parity.py,
// tests/python/test_trainer.py
#pragma once

#include <vector>

#include "graph/builder.h"

namespace deepseek::train {

// Clips each element to [-clip_value, clip_value], then scales all so that their L2 norm together is at most clip_norm;
// 0 leaves either out. Returns the norm after the first, f32[].
graph::Expr clip_gradients(graph::Builder& builder, std::vector<graph::Expr>& grads, double clip_value,
                           double clip_norm);

}  // namespace deepseek::train
