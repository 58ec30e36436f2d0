#include "train/clip.h"

#include "ops/dsl.h"

namespace deepseek::train {

using namespace graph;

Expr clip_gradients(Builder& builder, std::vector<Expr>& grads, double clip_value, double clip_norm) {
  builder.set_scope("clip");
  if (clip_value > 0)
    for (Expr& g : grads)
      g = ops::maximum(ops::minimum(g, ops::constant_like(g, clip_value)), ops::constant_like(g, -clip_value));
  Expr squares = builder.scalar(DType::kF32, 0);
  for (Expr g : grads) squares = squares + ops::sum(g * g);
  Expr norm = ops::sqrt(squares);
  if (clip_norm > 0) {
    // min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_.
    Expr scale = ops::minimum(ops::constant_like(norm, 1), clip_norm / (norm + 1e-6));
    for (Expr& g : grads) g = g * scale;
  }
  return norm;
}

}  // namespace deepseek::train
