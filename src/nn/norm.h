// Normalisation layers. Parameter names and shapes are PyTorch's; weights start as 1, biases as 0.
// Test: tests/nn/layers_test.cc
#pragma once

#include <optional>

#include "nn/module.h"

namespace deepseek::nn {

struct RunningOptions {
  double epsilon = 1e-5;
  std::optional<double> momentum = 0.1;  // weight of the batch; none: the plain mean of all batches so far
  bool affine = true;                    // weight and bias
  bool track = true;                     // running statistics; without them evaluation uses the batch's too
};

// Over [N, C, ...]; weight and bias [C], buffers running_mean, running_var [C] and num_batches_tracked i64[].
class BatchNorm : public Module {
 public:
  explicit BatchNorm(int64_t channels, RunningOptions options = {});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"num_features", &channels_, Setting::kFixed},
            {"eps", &options_.epsilon},
            {"momentum", &options_.momentum},
            {"affine", &options_.affine, Setting::kFixed},
            {"track_running_stats", &options_.track, Setting::kFixed}};
  }

 private:
  int64_t channels_;
  RunningOptions options_;
};

// Per sample and channel of [N, C, spatial...]. The running statistics follow the means of the samples' ones; as in
// PyTorch nothing counts the batches, and without a momentum they stay.
class InstanceNorm : public Module {
 public:
  explicit InstanceNorm(int64_t channels, RunningOptions options = {.affine = false, .track = false});
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"num_features", &channels_, Setting::kFixed},
            {"eps", &options_.epsilon},
            {"momentum", &options_.momentum},
            {"affine", &options_.affine, Setting::kFixed},
            {"track_running_stats", &options_.track, Setting::kFixed}};
  }

 private:
  int64_t channels_;
  RunningOptions options_;
};

// Over the trailing axes `shape`; weight and bias of that shape.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(Dims shape, double epsilon = 1e-5, bool affine = true, bool bias = true);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"normalized_shape", &shape_, Setting::kFixed},
            {"eps", &epsilon_},
            {"elementwise_affine", &affine_, Setting::kFixed},
            {"bias", &bias_, Setting::kHidden}};
  }

 private:
  Dims shape_;
  double epsilon_;
  bool affine_, bias_;
};

// Over the trailing axes `shape`, without a mean; weight of that shape.
class RMSNorm : public Module {
 public:
  explicit RMSNorm(Dims shape, double epsilon, bool affine = true);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"normalized_shape", &shape_, Setting::kFixed},
            {"eps", &epsilon_},
            {"elementwise_affine", &affine_, Setting::kFixed}};
  }

 private:
  Dims shape_;
  double epsilon_;
  bool affine_;
};

// Per sample of [N, C, ...] over sets of C / groups channels; weight and bias [C].
class GroupNorm : public Module {
 public:
  GroupNorm(int64_t groups, int64_t channels, double epsilon = 1e-5, bool affine = true);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"num_groups", &groups_},
            {"num_channels", &channels_, Setting::kFixed},
            {"eps", &epsilon_},
            {"affine", &affine_, Setting::kFixed}};
  }

 private:
  int64_t groups_, channels_;
  double epsilon_;
  bool affine_;
};

}  // namespace deepseek::nn
