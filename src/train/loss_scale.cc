#include "train/loss_scale.h"

#include "graph/cloner.h"
#include "ops/dsl.h"
#include "train/forward.h"

namespace deepseek::train {

using namespace graph;

Result<Graph> with_scaled_loss(const Graph& graph) {
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  const Expr scale = builder.state(kLossScale, {DType::kF32, {}});
  cloner.nodes();
  cloner.results();
  builder.set_scope("loss_scale");
  const Expr loss = cloner.at(graph.outputs()[graph.find_output(kLoss)].value);
  builder.output(kScaledLoss, ops::cast(loss, DType::kF32) * scale);
  return builder.finish();
}

// x * 0 is 0 where x is, else NaN, which a sum keeps.
Expr all_finite(Builder& builder, const std::vector<Expr>& tensors) {
  Expr probe = builder.scalar(DType::kF32, 0);
  for (Expr t : tensors) probe = probe + ops::cast(ops::sum(t * 0.0), DType::kF32);
  return ops::equal(probe, builder.scalar(DType::kF32, 0));
}

void write_loss_scale(Builder& builder, const LossScale& s, int64_t interval) {
  const auto& [scale, skipped, good] = s;
  const auto number = [&](double v) { return builder.scalar(DType::kF32, v); };
  builder.set_scope("loss_scale");
  Expr count = builder.state("loss_scale/good", {DType::kF32, {}});
  Expr next = count + 1.0;
  Expr full = ops::greater_equal(next, number(static_cast<double>(interval)));
  Expr grown = ops::select(full, ops::minimum(scale * 2.0, number(kMostLossScale)), scale);
  builder.update(scale, ops::select(good, grown, ops::maximum(scale * 0.5, number(kLeastLossScale))));
  builder.update(count, ops::select(good, ops::select(full, number(0), next), number(0)));
  Expr missed = ops::select(good, number(0), number(1));
  builder.update(skipped, skipped + missed);
  builder.output("skipped", missed);
}

void write_state(Builder& builder, Expr state, Expr value, const LossScale& loss_scale) {
  builder.update(state, loss_scale.good.defined() ? ops::select(loss_scale.good, value, state) : value);
}

}  // namespace deepseek::train
