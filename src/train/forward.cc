#include "train/forward.h"

#include <utility>

#include "ops/registry.h"

namespace deepseek::train {

using namespace graph;

namespace {

// Forward pass and loss with outputs "loss" and "prediction".
Result<Graph> forward_graph(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                            bool training) {
  Builder builder(ops::registry());
  Expr input = builder.input(nn::input_name(model, "x"), x);
  Expr target = y ? builder.input(nn::input_name(model, "y"), *y) : Expr();
  nn::Trace trace(builder, model, training);
  Expr prediction = model(trace, input);
  if (y) {
    Scope scope(builder, "loss");
    const Expr value = loss(prediction, target);
    DS_TRY(builder.status());
    if (value.rank() != 0 || !is_float(value.dtype()))
      return invalid("the loss must be a float scalar, got {}; reduce it with mean or sum", to_string(value.type()));
    builder.output("loss", value);
  }
  DS_TRY(builder.status());
  builder.output("prediction", prediction);
  trace.finish();
  return builder.finish();
}

}  // namespace

Result<Graph> ForwardTraces::get(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                                 bool training) {
  if (structure_.update(model))
    for (auto& pair : traces_)
      for (Traces& t : pair) t.clear();
  std::vector<TensorType> types{x};
  if (y != nullptr) types.push_back(*y);
  return traces_[training][y != nullptr].get(types, [&] { return forward_graph(model, x, y, loss, training); });
}

int64_t ForwardTraces::count() const {
  int64_t count = 0;
  for (const auto& pair : traces_)
    for (const Traces& t : pair) count += t.count();
  return count;
}

Result<Graph> evaluation_graph(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                               ForwardTraces* traces) {
  return traces != nullptr ? traces->get(model, x, y, loss, false) : forward_graph(model, x, y, loss, false);
}

}  // namespace deepseek::train
