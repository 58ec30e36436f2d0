// The layers without a family of their own; conv.h, norm.h, recurrent.h and attention.h hold the others. Parameter
// names, shapes and initial distributions are PyTorch's. A constructor's bad argument shows in status() and fails the
// trace. Test: tests/nn/layers_test.cc
#pragma once

#include <functional>
#include <optional>

#include "nn/conv.h"
#include "nn/module.h"
#include "nn/norm.h"

namespace deepseek::nn {

// y = x W^T + b; weight [out, in], bias [out]. Both start as U(-1/sqrt(in), 1/sqrt(in)).
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool bias = true);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"in_features", &in_, Setting::kFixed},
            {"out_features", &out_, Setting::kFixed},
            {"bias", &bias_, Setting::kHidden}};
  }

 private:
  int64_t in_, out_;
  bool bias_;
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
// Windows over the spatial axes of [N, C, ...]; an empty stride means the kernel, an empty padding none.
ModulePtr max_pool(Dims kernel, Dims stride = {}, Dims padding = {});
ModulePtr avg_pool(Dims kernel, Dims stride = {}, Dims padding = {}, bool count_include_pad = true);
ModulePtr adaptive_avg_pool(Dims output_size);  // [N, C, ...] -> [N, C, output_size...]
ModulePtr global_average_pool();                // [N, C, ...] -> [N, C]
ModulePtr flatten();                            // [N, ...] -> [N, product]
// Resizes the spatial axes by whole factors; `mode` is "nearest" or "linear" (bilinear, trilinear).
ModulePtr upsample(Dims factors, const std::string& mode = "nearest", bool align_corners = false);

// Rows of `weight` [rows, width] by integer index; weights start as N(0, 1). The row `padding` starts as 0 and takes no
// gradient.
class Embedding : public Module {
 public:
  Embedding(int64_t rows, int64_t width, std::optional<int64_t> padding = {});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"num_embeddings", &rows_, Setting::kFixed},
            {"embedding_dim", &width_, Setting::kFixed},
            {"padding_idx", &padding_}};
  }

 private:
  int64_t rows_, width_;
  std::optional<int64_t> padding_;
};

// Zeroes elements with probability `rate` in training and scales the rest by 1 / (1 - rate).
class Dropout : public Module {
 public:
  explicit Dropout(double rate) : rate_(rate) {
    require(rate >= 0 && rate < 1, "Dropout: expected a probability in [0, 1), got {}", rate);
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override { return {{"p", &rate_}}; }

 private:
  double rate_;
};

// Stochastic depth (arXiv 1603.09382), also called drop connect or drop path: zeroes whole samples [N, ...] with
// probability `rate` in training and scales the rest by 1 / (1 - rate). It ends a residual branch.
class StochasticDepth : public Module {
 public:
  explicit StochasticDepth(double rate) : rate_(rate) {
    require(rate >= 0 && rate < 1, "StochasticDepth: expected a probability in [0, 1), got {}", rate);
  }
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
