#include "nn/conv.h"

#include <algorithm>
#include <cmath>

#include "ops/dsl.h"

namespace deepseek::nn {

namespace {

Dims per_axis(const Dims& given, size_t axes) { return given.size() == 1 ? Dims(axes, given[0]) : given; }

bool all_positive(const Dims& dims) {
  return !dims.empty() && std::all_of(dims.begin(), dims.end(), [](int64_t d) { return d >= 1; });
}

graph::Attrs window_attrs(const ConvOptions& options, size_t axes) {
  const Dims low = per_axis(options.padding, axes);
  return {{"stride", per_axis(options.stride, axes)},
          {"padding_low", low},
          {"padding_high", options.padding_high.empty() ? low : per_axis(options.padding_high, axes)},
          {"dilation", per_axis(options.dilation, axes)},
          {"groups", options.groups}};
}

// Sets the padding of x [N, C, ...] that gives ceil(size / stride) elements.
void pad_same(graph::Attrs& attrs, const Dims& kernel, Expr x) {
  const Dims stride = attrs.get<Dims>("stride"), dilation = attrs.get<Dims>("dilation");
  if (x.rank() != static_cast<int64_t>(kernel.size()) + 2 || stride.size() != kernel.size() || !all_positive(stride) ||
      dilation.size() != kernel.size())
    return;  // the op refuses them
  Dims low, high;
  for (size_t i = 0; i < kernel.size(); ++i) {
    const int64_t size = x.dim(static_cast<int64_t>(i) + 2), out = (size + stride[i] - 1) / stride[i];
    const int64_t zeros = std::max<int64_t>(0, (out - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - size);
    low.push_back(zeros / 2);
    high.push_back(zeros - zeros / 2);
  }
  attrs.set("padding_low", low);
  attrs.set("padding_high", high);
}

// [C] as [1, C, 1, ...].
Expr per_channel(Expr v, int64_t rank) {
  Dims dims(static_cast<size_t>(rank), 1);
  if (rank > 1) dims[1] = v.dim(0);
  return ops::reshape(v, dims);
}

}  // namespace

Conv::Conv(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options)
    : in_(in_channels), out_(out_channels), kernel_(std::move(kernel)), options_(std::move(options)) {
  const int64_t groups = options_.groups;
  if (!require(in_channels >= 1 && out_channels >= 1 && all_positive(kernel_),
               "Conv: expected channels and kernel sizes >= 1, got in_channels {}, out_channels {}, kernel {}",
               in_channels, out_channels, graph::to_string(kernel_)) ||
      !require(groups >= 1 && in_channels % groups == 0 && out_channels % groups == 0,
               "Conv: expected groups to divide in_channels {} and out_channels {}, got {}", in_channels, out_channels,
               groups) ||
      !require_possible("Conv", {in_channels, out_channels}))
    return;
  Dims dims = {out_channels, in_channels / groups};
  dims.insert(dims.end(), kernel_.begin(), kernel_.end());
  const double bound = 1 / std::sqrt(static_cast<double>(graph::product(dims)) / static_cast<double>(out_channels));
  register_parameter("weight", dims, default_initializer().uniform(bound));
  if (options_.bias) register_parameter("bias", {out_channels}, default_initializer().uniform(bound));
}

std::vector<Expr> Conv::forward(Trace& trace, const std::vector<Expr>& inputs) {
  graph::Attrs attrs = window_attrs(options_, kernel_.size());
  if (options_.same_padding) pad_same(attrs, kernel_, inputs[0]);
  Expr y = trace.builder().op("conv", {inputs[0], trace.state(*this, "weight")}, std::move(attrs));
  if (options_.bias) y = y + per_channel(trace.state(*this, "bias"), y.rank());
  return {y};
}

ConvTranspose::ConvTranspose(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options)
    : in_(in_channels), out_(out_channels), kernel_(std::move(kernel)), options_(std::move(options)) {
  const int64_t groups = options_.groups;
  if (!require(in_channels >= 1 && out_channels >= 1 && all_positive(kernel_),
               "ConvTranspose: expected channels and kernel sizes >= 1, got in_channels {}, out_channels {}, kernel {}",
               in_channels, out_channels, graph::to_string(kernel_)) ||
      !require(groups >= 1 && in_channels % groups == 0 && out_channels % groups == 0,
               "ConvTranspose: expected groups to divide in_channels {} and out_channels {}, got {}", in_channels,
               out_channels, groups) ||
      !require_possible("ConvTranspose", {in_channels, out_channels}))
    return;
  Dims dims = {in_channels, out_channels / groups};
  dims.insert(dims.end(), kernel_.begin(), kernel_.end());
  const double bound = 1 / std::sqrt(static_cast<double>(graph::product(dims)) / static_cast<double>(in_channels));
  register_parameter("weight", dims, default_initializer().uniform(bound));
  if (options_.bias) register_parameter("bias", {out_channels}, default_initializer().uniform(bound));
}

std::vector<Expr> ConvTranspose::forward(Trace& trace, const std::vector<Expr>& inputs) {
  graph::Attrs attrs = window_attrs(options_, kernel_.size());
  attrs.set("output_padding", per_axis(options_.output_padding, kernel_.size()));
  Expr y = trace.builder().op("conv_transpose", {inputs[0], trace.state(*this, "weight")}, std::move(attrs));
  if (options_.bias) y = y + per_channel(trace.state(*this, "bias"), y.rank());
  return {y};
}

}  // namespace deepseek::nn
