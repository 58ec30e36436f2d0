#include "nn/layers.h"

#include <cmath>

#include "ops/dsl.h"

namespace deepseek::nn {

namespace {

Dims per_axis(const Dims& given, size_t axes) { return given.size() == 1 ? Dims(axes, given[0]) : given; }

// [C] as [1, C, 1, ...].
Expr per_channel(Expr v, int64_t rank) {
  Dims dims(static_cast<size_t>(rank), 1);
  if (rank > 1) dims[1] = v.dim(0);
  return ops::reshape(v, dims);
}

}  // namespace

Linear::Linear(int64_t in_features, int64_t out_features, bool bias) : bias_(bias) {
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  register_parameter("weight", default_initializer().uniform({out_features, in_features}, bound));
  if (bias) register_parameter("bias", default_initializer().uniform({out_features}, bound));
}

std::vector<Expr> Linear::forward(Trace& trace, const std::vector<Expr>& inputs) {
  Expr y = ops::matmul(inputs[0], trace.state(*this, "weight"), false, true);
  if (bias_) y = y + trace.state(*this, "bias");
  return {y};
}

Conv::Conv(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options)
    : kernel_(std::move(kernel)), options_(std::move(options)) {
  Dims dims = {out_channels, in_channels / options_.groups};
  dims.insert(dims.end(), kernel_.begin(), kernel_.end());
  const double bound = 1 / std::sqrt(static_cast<double>(graph::product(dims)) / static_cast<double>(out_channels));
  register_parameter("weight", default_initializer().uniform(dims, bound));
  if (options_.bias) register_parameter("bias", default_initializer().uniform({out_channels}, bound));
}

std::vector<Expr> Conv::forward(Trace& trace, const std::vector<Expr>& inputs) {
  const size_t axes = kernel_.size();
  const Dims padding = per_axis(options_.padding, axes);
  Expr y = trace.builder().op("conv", {inputs[0], trace.state(*this, "weight")},
                              {{"stride", per_axis(options_.stride, axes)},
                               {"padding_low", padding},
                               {"padding_high", padding},
                               {"dilation", per_axis(options_.dilation, axes)},
                               {"groups", options_.groups}});
  if (options_.bias) y = y + per_channel(trace.state(*this, "bias"), y.rank());
  return {y};
}

BatchNorm::BatchNorm(int64_t channels, double epsilon, double momentum) : epsilon_(epsilon), momentum_(momentum) {
  register_parameter("weight", Tensor::full(DType::kF32, {channels}, 1));
  register_parameter("bias", Tensor::zeros(DType::kF32, {channels}));
  register_buffer("running_mean", Tensor::zeros(DType::kF32, {channels}));
  register_buffer("running_var", Tensor::full(DType::kF32, {channels}, 1));
}

std::vector<Expr> BatchNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  const std::vector<Expr> args = {inputs[0], trace.state(*this, "weight"), trace.state(*this, "bias"),
                                  trace.state(*this, "running_mean"), trace.state(*this, "running_var")};
  if (!trace.training()) return {trace.builder().op("batch_norm_inference", args, {{"epsilon", epsilon_}})};
  const std::vector<Expr> out =
      trace.builder().emit("batch_norm", args, {{"epsilon", epsilon_}, {"momentum", momentum_}});
  trace.update(*this, "running_mean", out[3]);
  trace.update(*this, "running_var", out[4]);
  return {out[0]};
}

LayerNorm::LayerNorm(Dims shape, double epsilon) : axes_count_(static_cast<int64_t>(shape.size())), epsilon_(epsilon) {
  register_parameter("weight", Tensor::full(DType::kF32, shape, 1));
  register_parameter("bias", Tensor::zeros(DType::kF32, shape));
}

std::vector<Expr> LayerNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {trace.builder().op("layer_norm", {inputs[0], trace.state(*this, "weight"), trace.state(*this, "bias")},
                             {{"axes_count", axes_count_}, {"epsilon", epsilon_}})};
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

std::vector<Expr> Dropout::forward(Trace& trace, const std::vector<Expr>& inputs) {
  if (!trace.training() || rate_ == 0) return {inputs[0]};
  return {trace.builder().op("dropout", {inputs[0], trace.random_state()},
                             {{"rate", rate_}, {"stream", trace.next_stream()}})};
}

std::vector<Expr> Sequential::forward(Trace& trace, const std::vector<Expr>& inputs) {
  std::vector<Expr> values = inputs;
  for (const auto& [name, child] : children()) values = child->call(trace, values);
  return values;
}

}  // namespace deepseek::nn
