#include "nn/layers.h"

#include <algorithm>
#include <cmath>

#include "ops/dsl.h"

namespace deepseek::nn {

Linear::Linear(int64_t in_features, int64_t out_features, bool bias)
    : in_(in_features), out_(out_features), bias_(bias) {
  if (!require(in_features >= 1 && out_features >= 1,
               "Linear: expected in_features and out_features >= 1, got {} and {}", in_features, out_features) ||
      !require_possible("Linear", {in_features, out_features}))
    return;
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  register_parameter("weight", {out_features, in_features}, default_initializer().uniform(bound));
  if (bias) register_parameter("bias", {out_features}, default_initializer().uniform(bound));
}

std::vector<Expr> Linear::forward(Trace& trace, const std::vector<Expr>& inputs) {
  Expr y = ops::matmul(inputs[0], trace.state(*this, "weight"), false, true);
  if (bias_) y = y + trace.state(*this, "bias");
  return {y};
}

ModulePtr activation(const std::string& op, graph::Attrs attrs) {
  return std::make_shared<Lambda>([op, attrs](Trace& trace, Expr x) { return trace.builder().op(op, {x}, attrs); });
}

ModulePtr max_pool(Dims kernel, Dims stride, Dims padding) {
  return std::make_shared<Lambda>([=](Trace& trace, Expr x) {
    return trace.builder().op(
        "max_pool", {x}, {{"kernel", kernel}, {"stride", stride}, {"padding_low", padding}, {"padding_high", padding}});
  });
}

ModulePtr avg_pool(Dims kernel, Dims stride, Dims padding, bool count_include_pad) {
  return std::make_shared<Lambda>([=](Trace& trace, Expr x) {
    return trace.builder().op("avg_pool", {x},
                              {{"kernel", kernel},
                               {"stride", stride},
                               {"padding_low", padding},
                               {"padding_high", padding},
                               {"count_include_pad", count_include_pad}});
  });
}

ModulePtr adaptive_avg_pool(Dims output_size) {
  return std::make_shared<Lambda>([=](Trace& trace, Expr x) {
    return trace.builder().op("adaptive_avg_pool", {x}, {{"output_size", output_size}});
  });
}

ModulePtr upsample(Dims factors, const std::string& mode, bool align_corners) {
  return std::make_shared<Lambda>([=](Trace& trace, Expr x) {
    Dims size;
    for (size_t i = 0; i < factors.size(); ++i) size.push_back(x.dim(static_cast<int64_t>(i) + 2) * factors[i]);
    return trace.builder().op("interpolate", {x}, {{"size", size}, {"mode", mode}, {"align_corners", align_corners}});
  });
}

ModulePtr global_average_pool() {
  return std::make_shared<Lambda>([](Trace&, Expr x) {
    Dims axes;
    for (int64_t i = 2; i < x.rank(); ++i) axes.push_back(i);
    return axes.empty() ? x : ops::mean(x, axes);
  });
}

ModulePtr flatten() {
  return std::make_shared<Lambda>([](Trace&, Expr x) { return ops::reshape(x, {x.dim(0), -1}); });
}

Embedding::Embedding(int64_t rows, int64_t width, std::optional<int64_t> padding)
    : rows_(rows), width_(width), padding_(padding) {
  if (!require_possible("Embedding", {rows, width})) return;
  const int64_t row = padding ? *padding + (*padding < 0 ? rows : 0) : -1;
  if (!require(rows >= 1 && width >= 1, "Embedding: expected num_embeddings and embedding_dim >= 1, got {} and {}",
               rows, width) ||
      !require(!padding || (row >= 0 && row < rows), "Embedding: expected padding_idx in [-{}, {}), got {}", rows, rows,
               padding.value_or(0)))
    return;
  register_parameter("weight", {rows, width}, [&](Dims dims) {
    Tensor weight = default_initializer().normal(std::move(dims), 0, 1);
    if (padding) std::fill_n(weight.as<float>() + row * width, width, 0.0f);
    return weight;
  });
}

std::vector<Expr> Embedding::forward(Trace& trace, const std::vector<Expr>& inputs) {
  const int64_t row = padding_ ? *padding_ + (*padding_ < 0 ? rows_ : 0) : -1;
  if (padding_ && (row < 0 || row >= rows_))
    trace.builder().fail(invalid("Embedding: expected padding_idx in [-{}, {}), got {}", rows_, rows_, *padding_));
  return {trace.builder().op("embedding", {trace.state(*this, "weight"), inputs[0]}, {{"padding_idx", row}})};
}

std::vector<Expr> Dropout::forward(Trace& trace, const std::vector<Expr>& inputs) {
  if (!trace.training(*this) || rate_ == 0) return {inputs[0]};
  return {trace.builder().op("dropout", {inputs[0], trace.random_state()},
                             {{"rate", rate_}, {"stream", trace.next_stream()}})};
}

std::vector<Expr> StochasticDepth::forward(Trace& trace, const std::vector<Expr>& inputs) {
  Expr x = inputs[0];
  if (!trace.training(*this) || rate_ == 0) return {x};
  Dims dims(static_cast<size_t>(x.rank()), 1);
  if (!dims.empty()) dims[0] = x.dim(0);
  Expr ones = trace.builder().constant(Tensor::full(x.dtype(), dims, 1));
  return {x * trace.builder().op("dropout", {ones, trace.random_state()},
                                 {{"rate", rate_}, {"stream", trace.next_stream()}})};
}

std::vector<Expr> Sequential::forward(Trace& trace, const std::vector<Expr>& inputs) {
  std::vector<Expr> values = inputs;
  for (const auto& [name, child] : children()) values = child->call(trace, values);
  return values;
}

}  // namespace deepseek::nn
