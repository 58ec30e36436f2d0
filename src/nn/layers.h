// The layers. Parameter names, shapes and initial distributions are PyTorch's. Test: tests/nn/layers_test.cc
#pragma once

#include <functional>

#include "nn/module.h"

namespace deepseek::nn {

// y = x W^T + b; weight [out, in], bias [out]. Both start as U(-1/sqrt(in), 1/sqrt(in)).
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool bias = true);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  bool bias_;
};

struct ConvOptions {
  Dims stride = {1}, padding = {0}, dilation = {1};  // one entry stands for all axes
  int64_t groups = 1;
  bool bias = true;
};

// Convolution over kernel.size() spatial axes; weight [out, in/groups, kernel...], bias [out].
class Conv : public Module {
 public:
  Conv(int64_t in_channels, int64_t out_channels, Dims kernel, ConvOptions options = {});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  Dims kernel_;
  ConvOptions options_;
};

// Over [N, C, ...]; weight and bias [C], buffers running_mean and running_var [C].
class BatchNorm : public Module {
 public:
  explicit BatchNorm(int64_t channels, double epsilon = 1e-5, double momentum = 0.1);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  double epsilon_, momentum_;
};

// Over the trailing axes `shape`; weight and bias of that shape.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(Dims shape, double epsilon = 1e-5);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  int64_t axes_count_;
  double epsilon_;
};

// Any op or expression without parameters as a module: Lambda([](Trace&, Expr x) { return ops::relu(x); }).
class Lambda : public Module {
 public:
  using Function = std::function<Expr(Trace&, Expr)>;
  explicit Lambda(Function function) : function_(std::move(function)) {}
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    return {function_(trace, inputs[0])};
  }

 private:
  Function function_;
};

ModulePtr activation(const std::string& op, graph::Attrs attrs = {});
ModulePtr max_pool(Dims kernel, Dims stride = {}, Dims padding = {});
ModulePtr global_average_pool();  // [N, C, ...] -> [N, C]
ModulePtr flatten();              // [N, ...] -> [N, product]

// Zeroes elements with probability `rate` in training and scales the rest by 1 / (1 - rate).
class Dropout : public Module {
 public:
  explicit Dropout(double rate) : rate_(rate) {}
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  double rate_;
};

// Children "0", "1", ... one after the other.
class Sequential : public Module {
 public:
  Sequential() = default;
  explicit Sequential(const std::vector<ModulePtr>& modules) {
    for (const ModulePtr& m : modules) append(m);
  }
  void append(ModulePtr module) { register_module(std::to_string(children().size()), std::move(module)); }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
};

}  // namespace deepseek::nn
