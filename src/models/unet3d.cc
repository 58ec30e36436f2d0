// 3D U-Net: "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", Çiçek, Abdulkadir, Lienkamp,
// Brox, Ronneberger, 2016. As in its successors (nnU-Net, Isensee et al. 2021) both convolutions of a level have the
// level's channels, and instance norm stands for batch norm, as batches of volumes are small.
#include <cmath>

#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

struct Unet3dSizes {
  int64_t inputs, classes;
  Dims channels;  // of each level, from the finest
  double slope;   // of the activation below 0
  bool strided;   // the way down is a stride rather than a pool
};

// 3x3x3 without a bias, which the norm would take away again. Weights start as N(0, 2 / (channels in * 27)), as in the
// first U-Net's paper.
std::shared_ptr<Conv> conv(int64_t in, int64_t out, int64_t stride) {
  auto layer =
      std::make_shared<Conv>(in, out, Dims{3, 3, 3}, ConvOptions{.stride = {stride}, .padding = {1}, .bias = false});
  const double deviation = std::sqrt(2 / static_cast<double>(27 * in));
  layer->register_parameter("weight", {out, in, 3, 3, 3}, default_initializer().normal(0, deviation));
  return layer;
}

std::shared_ptr<InstanceNorm> norm(int64_t channels) {
  return std::make_shared<InstanceNorm>(channels, RunningOptions{.affine = true, .track = false});
}

// Two convolutions, each with norm and activation.
class Level : public Module {
 public:
  Level(int64_t in, int64_t out, int64_t stride, double slope) : slope_(slope) {
    conv1_ = add("conv1", conv(in, out, stride));
    norm1_ = add("norm1", norm(out));
    conv2_ = add("conv2", conv(out, out, 1));
    norm2_ = add("norm2", norm(out));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    const auto activate = [&](Expr x) {
      return slope_ == 0 ? ops::relu(x) : trace.builder().op("leaky_relu", {x}, {{"slope", slope_}});
    };
    Expr x = activate((*norm1_)(trace, (*conv1_)(trace, inputs[0])));
    return {activate((*norm2_)(trace, (*conv2_)(trace, x)))};
  }

 private:
  double slope_;
  std::shared_ptr<Conv> conv1_, conv2_;
  std::shared_ptr<InstanceNorm> norm1_, norm2_;
};

class Unet3d : public Module {
 public:
  explicit Unet3d(const Unet3dSizes& s) {
    auto encoder = add("encoder", std::make_shared<Sequential>());
    auto up = add("up", std::make_shared<Sequential>());
    auto decoder = add("decoder", std::make_shared<Sequential>());
    const size_t levels = s.channels.size();
    int64_t in = s.inputs;
    for (size_t i = 0; i < levels; ++i) {
      down_.push_back(std::make_shared<Level>(in, s.channels[i], i > 0 && s.strided ? 2 : 1, s.slope));
      encoder->append(down_.back());
      in = s.channels[i];
    }
    for (size_t i = levels - 1; i-- > 0;) {
      const int64_t out = s.channels[i];
      up_.push_back(std::make_shared<ConvTranspose>(in, out, Dims{2, 2, 2}, ConvOptions{.stride = {2}}));
      up->append(up_.back());
      merge_.push_back(std::make_shared<Level>(2 * out, out, 1, s.slope));
      decoder->append(merge_.back());
      in = out;
    }
    head_ = add("head", std::make_shared<Conv>(in, s.classes, Dims{1, 1, 1}));
    if (!s.strided) pool_ = add("pool", max_pool({2, 2, 2}));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    std::vector<Expr> skips;
    Expr x = inputs[0];
    for (const auto& level : down_) {
      if (pool_ && !skips.empty()) x = (*pool_)(trace, x);
      skips.push_back(x = (*level)(trace, x));
    }
    for (size_t i = 0; i < up_.size(); ++i) {
      const Expr skip = skips[skips.size() - 2 - i];
      x = (*merge_[i])(trace, ops::concat({skip, (*up_[i])(trace, x)}, 1));
    }
    return {(*head_)(trace, x)};
  }

 private:
  std::vector<std::shared_ptr<Level>> down_, merge_;
  std::vector<std::shared_ptr<ConvTranspose>> up_;  // from the coarsest
  std::shared_ptr<Conv> head_;
  ModulePtr pool_;
};

}  // namespace

Result<ModulePtr> make_unet3d(const std::string& name, const ModelData& data, const Parameters& parameters) {
  DS_TRY(only(parameters, {"channels", "slope", "down"}, name));
  DS_ASSIGN(const Dims channels, integers(parameters, "channels", {32, 64, 128}, 1, 1 << 16));
  DS_ASSIGN(const double slope, number(parameters, "slope", 0, 0, 1));
  DS_ASSIGN(const std::string down, choice(parameters, "down", {"max_pool", "stride"}));
  if (data.input.size() != 4)
    return invalid("model '{}' takes volumes [C, D, H, W], the data has samples of shape {}", name,
                   graph::to_string(data.input));
  if (channels.size() > 16) return invalid("model.channels: expected at most 16 levels, got {}", channels.size());
  const int64_t factor = int64_t{1} << (channels.size() - 1);
  int64_t coarsest = 1;
  for (size_t i = 1; i < 4; ++i) {
    if (data.input[i] % factor != 0)
      return invalid("model '{}' with {} levels halves the sides {} times: expected multiples of {}, got samples of {}",
                     name, channels.size(), channels.size() - 1, factor, graph::to_string(data.input));
    coarsest *= data.input[i] / factor;
  }
  if (coarsest < 2)
    return invalid(
        "model '{}' with {} levels leaves {} voxel of samples {}, where instance norm needs 2; give fewer levels in "
        "model.channels",
        name, channels.size(), coarsest, graph::to_string(data.input));
  return ModulePtr(
      std::make_shared<Unet3d>(Unet3dSizes{data.input[0], data.classes, channels, slope, down == "stride"}));
}

}  // namespace deepseek::models
