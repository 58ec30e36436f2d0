#include "nn/norm.h"

#include <algorithm>

#include "ops/dsl.h"

namespace deepseek::nn {

namespace {

constexpr const char* kMean = "running_mean";
constexpr const char* kVar = "running_var";
constexpr const char* kCount = "num_batches_tracked";

bool all_positive(const Dims& dims) {
  return !dims.empty() && std::all_of(dims.begin(), dims.end(), [](int64_t d) { return d >= 1; });
}

Expr full(Trace& trace, Dims dims, double value) {
  return trace.builder().constant(Tensor::full(DType::kF32, std::move(dims), value));
}

// A parameter, or the constant in its place where the layer has none.
Expr state_or(Trace& trace, const Module& module, bool has, const char* name, const Dims& dims, double value) {
  return has ? trace.state(module, name) : full(trace, dims, value);
}

// Moves the running mean and variance towards the batch's by `weight`.
void track(Trace& trace, const Module& module, Expr weight, Expr mean, Expr var) {
  Expr running_mean = trace.state(module, kMean), running_var = trace.state(module, kVar);
  trace.update(module, kMean, running_mean + (mean - running_mean) * weight);
  trace.update(module, kVar, running_var + (var - running_var) * weight);
}

}  // namespace

BatchNorm::BatchNorm(int64_t channels, RunningOptions options) : channels_(channels), options_(options) {
  if (!require(channels >= 1, "BatchNorm: expected channels >= 1, got {}", channels) ||
      !require_possible("BatchNorm", {channels}))
    return;
  if (options_.affine) {
    register_parameter("weight", {channels}, filled(1));
    register_parameter("bias", {channels}, filled(0));
  }
  if (options_.track) {
    register_buffer(kMean, Tensor::zeros(DType::kF32, {channels}));
    register_buffer(kVar, Tensor::full(DType::kF32, {channels}, 1));
    register_buffer(kCount, Tensor::zeros(DType::kI64, {}));
  }
}

std::vector<Expr> BatchNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  const bool tracks = options_.track;
  const std::vector<Expr> args = {inputs[0], state_or(trace, *this, options_.affine, "weight", {channels_}, 1),
                                  state_or(trace, *this, options_.affine, "bias", {channels_}, 0),
                                  state_or(trace, *this, tracks, kMean, {channels_}, 0),
                                  state_or(trace, *this, tracks, kVar, {channels_}, 1)};
  if (tracks && !trace.training(*this))
    return {trace.builder().op("batch_norm_inference", args, {{"epsilon", options_.epsilon}})};
  // With momentum 1 the op hands out the batch's own statistics.
  const std::vector<Expr> out = trace.builder().emit(
      "batch_norm", args, {{"epsilon", options_.epsilon}, {"momentum", options_.momentum.value_or(1)}});
  if (!tracks) return {out[0]};
  Expr count = trace.state(*this, kCount) + 1;
  trace.update(*this, kCount, count);
  if (options_.momentum) {
    trace.update(*this, kMean, out[3]);
    trace.update(*this, kVar, out[4]);
  } else {
    track(trace, *this, 1.0 / ops::cast(count, DType::kF32), out[3], out[4]);
  }
  return {out[0]};
}

InstanceNorm::InstanceNorm(int64_t channels, RunningOptions options) : channels_(channels), options_(options) {
  if (!require(channels >= 1, "InstanceNorm: expected channels >= 1, got {}", channels) ||
      !require_possible("InstanceNorm", {channels}))
    return;
  if (options_.affine) {
    register_parameter("weight", {channels}, filled(1));
    register_parameter("bias", {channels}, filled(0));
  }
  if (options_.track) {
    register_buffer(kMean, Tensor::zeros(DType::kF32, {channels}));
    register_buffer(kVar, Tensor::full(DType::kF32, {channels}, 1));
    register_buffer(kCount, Tensor::zeros(DType::kI64, {}));
  }
}

std::vector<Expr> InstanceNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  Expr x = inputs[0];
  Expr weight = state_or(trace, *this, options_.affine, "weight", {channels_}, 1);
  Expr bias = state_or(trace, *this, options_.affine, "bias", {channels_}, 0);
  if (options_.track && !trace.training(*this))
    return {trace.builder().op("batch_norm_inference",
                               {x, weight, bias, trace.state(*this, kMean), trace.state(*this, kVar)},
                               {{"epsilon", options_.epsilon}})};
  if (options_.track && x.rank() > 2) {
    Dims spatial;
    double n = 1;
    for (int64_t i = 2; i < x.rank(); ++i) {
      spatial.push_back(i);
      n *= static_cast<double>(x.dim(i));
    }
    Expr sample = ops::cast(x, DType::kF32), mean = ops::mean(sample, spatial, true);
    Expr var = ops::mean(ops::sum(ops::square(sample - mean), spatial), {0}) / (n - 1);
    track(trace, *this, trace.builder().scalar(DType::kF32, options_.momentum.value_or(0)),
          ops::reshape(ops::mean(mean, {0}), {channels_}), var);
  }
  return {trace.builder().op("instance_norm", {x, weight, bias}, {{"epsilon", options_.epsilon}})};
}

LayerNorm::LayerNorm(Dims shape, double epsilon, bool affine, bool bias)
    : shape_(std::move(shape)), epsilon_(epsilon), affine_(affine), bias_(affine && bias) {
  if (!require(all_positive(shape_), "LayerNorm: expected a shape of sizes >= 1, got {}", graph::to_string(shape_)))
    return;
  if (affine_) register_parameter("weight", shape_, filled(1));
  if (bias_) register_parameter("bias", shape_, filled(0));
}

std::vector<Expr> LayerNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {trace.builder().op("layer_norm",
                             {inputs[0], state_or(trace, *this, affine_, "weight", shape_, 1),
                              state_or(trace, *this, bias_, "bias", shape_, 0)},
                             {{"axes_count", static_cast<int64_t>(shape_.size())}, {"epsilon", epsilon_}})};
}

RMSNorm::RMSNorm(Dims shape, double epsilon, bool affine)
    : shape_(std::move(shape)), epsilon_(epsilon), affine_(affine) {
  if (!require(all_positive(shape_), "RMSNorm: expected a shape of sizes >= 1, got {}", graph::to_string(shape_)))
    return;
  if (affine_) register_parameter("weight", shape_, filled(1));
}

std::vector<Expr> RMSNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {trace.builder().op("rms_norm", {inputs[0], state_or(trace, *this, affine_, "weight", shape_, 1)},
                             {{"axes_count", static_cast<int64_t>(shape_.size())}, {"epsilon", epsilon_}})};
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double epsilon, bool affine)
    : groups_(groups), channels_(channels), epsilon_(epsilon), affine_(affine) {
  if (!require(groups >= 1 && channels >= 1 && channels % groups == 0,
               "GroupNorm: expected groups to divide the channels, got groups {} and channels {}", groups, channels) ||
      !require_possible("GroupNorm", {channels}))
    return;
  if (!affine_) return;
  register_parameter("weight", {channels}, filled(1));
  register_parameter("bias", {channels}, filled(0));
}

std::vector<Expr> GroupNorm::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {trace.builder().op("group_norm",
                             {inputs[0], state_or(trace, *this, affine_, "weight", {channels_}, 1),
                              state_or(trace, *this, affine_, "bias", {channels_}, 0)},
                             {{"groups", groups_}, {"epsilon", epsilon_}})};
}

}  // namespace deepseek::nn
