// Convolution layers. Parameter names, shapes and initial distributions are PyTorch's. Test: tests/nn/layers_test.cc
#pragma once

#include "nn/module.h"

namespace deepseek::nn {

struct ConvOptions {
  Dims stride = {1}, padding = {0}, dilation = {1};  // one entry stands for all axes
  int64_t groups = 1;
  bool bias = true;
  Dims padding_high = {};     // after each axis; empty means as before it, that is `padding`
  bool same_padding = false;  // Conv only: pads such that y has ceil(size / stride) elements per axis, as TensorFlow's
                              // "same": an odd number has the larger half at the end. `padding` is ignored
  Dims output_padding = {};   // ConvTranspose only: elements added at the end of each axis; empty means none
};

// Convolution of [N, in, ...] over kernel.size() spatial axes; weight [out, in/groups, kernel...], bias [out]. Both
// start as U(-b, b), b = 1 / sqrt(in/groups * product(kernel)).
class Conv : public Module {
 public:
  Conv(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options = {});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"in_channels", &in_, Setting::kFixed},
            {"out_channels", &out_, Setting::kFixed},
            {"kernel_size", &kernel_, Setting::kFixed},
            {"stride", &options_.stride},
            {"padding", &options_.padding},
            {"padding_high", &options_.padding_high},
            {"same_padding", &options_.same_padding, Setting::kHidden},
            {"dilation", &options_.dilation},
            {"groups", &options_.groups, Setting::kFixed},
            {"bias", &options_.bias, Setting::kHidden}};
  }

 private:
  int64_t in_, out_;
  Dims kernel_;
  ConvOptions options_;
};

// The adjoint of a convolution as a layer; weight [in, out/groups, kernel...], bias [out]. Both start as U(-b, b),
// b = 1 / sqrt(out/groups * product(kernel)).
class ConvTranspose : public Module {
 public:
  ConvTranspose(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options = {});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"in_channels", &in_, Setting::kFixed},
            {"out_channels", &out_, Setting::kFixed},
            {"kernel_size", &kernel_, Setting::kFixed},
            {"stride", &options_.stride},
            {"padding", &options_.padding},
            {"output_padding", &options_.output_padding},
            {"dilation", &options_.dilation},
            {"groups", &options_.groups, Setting::kFixed},
            {"bias", &options_.bias, Setting::kHidden}};
  }

 private:
  int64_t in_, out_;
  Dims kernel_;
  ConvOptions options_;
};

}  // namespace deepseek::nn
