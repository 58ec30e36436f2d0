// EfficientNet: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", Tan, Le, 2019 (arXiv
// 1905.11946). Parameter names, "same" padding and batch norm's constants are those of PyPI's efficientnet_pytorch,
// which follows the authors' TensorFlow code, so published weights load by name. The picture's size is the data's.
#include <algorithm>
#include <cmath>

#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

// Table 1 of the paper, the stages between the stem and the head.
struct Stage {
  int64_t kernel, stride, expansion, channels, repeats;
};
constexpr Stage kStages[] = {{3, 1, 1, 16, 1},  {3, 2, 6, 24, 2},  {5, 2, 6, 40, 2}, {3, 2, 6, 80, 3},
                             {5, 1, 6, 112, 3}, {5, 2, 6, 192, 4}, {3, 1, 6, 320, 1}};
constexpr int64_t kStem = 32, kHead = 1280;
constexpr int64_t kSqueeze = 4;  // the squeezed channels are a quarter of the block's input

// What each size multiplies B0's channels and repeats by, and the dropout before the classifier.
struct Variant {
  const char* name;
  double width, depth, dropout;
};
constexpr Variant kVariants[] = {{"efficientnet_b0", 1.0, 1.0, 0.2}, {"efficientnet_b1", 1.0, 1.1, 0.2},
                                 {"efficientnet_b2", 1.1, 1.2, 0.3}, {"efficientnet_b3", 1.2, 1.4, 0.3},
                                 {"efficientnet_b4", 1.4, 1.8, 0.4}, {"efficientnet_b5", 1.6, 2.2, 0.4},
                                 {"efficientnet_b6", 1.8, 2.6, 0.5}, {"efficientnet_b7", 2.0, 3.1, 0.5}};

// To the nearest multiple of 8 that is not below nine tenths of the product.
int64_t scale_channels(int64_t channels, double factor) {
  const double wanted = static_cast<double>(channels) * factor;
  const int64_t rounded = std::max<int64_t>(8, static_cast<int64_t>(wanted + 4) / 8 * 8);
  return static_cast<double>(rounded) < 0.9 * wanted ? rounded + 8 : rounded;
}

int64_t scale_repeats(int64_t repeats, double factor) {
  return static_cast<int64_t>(std::ceil(factor * static_cast<double>(repeats)));
}

struct ConvSizes {
  int64_t in, out, kernel = 1, stride = 1, groups = 1;
  bool bias = false;
};

// Weights start as N(0, 2 / (channels out of a group * kernel area)), biases as 0, as the authors have it.
std::shared_ptr<Conv> conv(const ConvSizes& s) {
  auto layer = std::make_shared<Conv>(
      s.in, s.out, Dims{s.kernel, s.kernel},
      ConvOptions{.stride = {s.stride}, .groups = s.groups, .bias = s.bias, .same_padding = true});
  const double fan_out = static_cast<double>(s.kernel * s.kernel * s.out / s.groups);
  layer->register_parameter("weight", {s.out, s.in / s.groups, s.kernel, s.kernel},
                            default_initializer().normal(0, std::sqrt(2 / fan_out)));
  if (s.bias) layer->register_parameter("bias", {s.out}, filled(0));
  return layer;
}

std::shared_ptr<BatchNorm> batch_norm(int64_t channels) {
  return std::make_shared<BatchNorm>(channels, RunningOptions{.epsilon = 1e-3, .momentum = 0.01});
}

Expr silu(Expr x) { return x.builder().op("silu", {x}); }

// The mobile inverted bottleneck: 1x1 to more channels, depthwise, squeeze and excitation, 1x1 to the channels out, and
// the shortcut where the shape stays.
class MbConv : public Module {
 public:
  MbConv(int64_t in, int64_t out, int64_t stride, const Stage& s, double drop_connect)
      : residual_(stride == 1 && in == out) {
    const int64_t inner = in * s.expansion, squeezed = std::max<int64_t>(1, in / kSqueeze);
    if (s.expansion != 1) {
      expand_ = add("_expand_conv", conv({.in = in, .out = inner}));
      bn0_ = add("_bn0", batch_norm(inner));
    }
    depthwise_ = add("_depthwise_conv",
                     conv({.in = inner, .out = inner, .kernel = s.kernel, .stride = stride, .groups = inner}));
    bn1_ = add("_bn1", batch_norm(inner));
    reduce_ = add("_se_reduce", conv({.in = inner, .out = squeezed, .bias = true}));
    excite_ = add("_se_expand", conv({.in = squeezed, .out = inner, .bias = true}));
    project_ = add("_project_conv", conv({.in = inner, .out = out}));
    bn2_ = add("_bn2", batch_norm(out));
    if (residual_) drop_ = add("_drop_connect", std::make_shared<StochasticDepth>(drop_connect));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0];
    if (expand_) x = silu((*bn0_)(trace, (*expand_)(trace, x)));
    x = silu((*bn1_)(trace, (*depthwise_)(trace, x)));
    Expr channels = silu((*reduce_)(trace, ops::mean(x, {2, 3}, true)));
    x = x * ops::sigmoid((*excite_)(trace, channels));
    x = (*bn2_)(trace, (*project_)(trace, x));
    return {residual_ ? inputs[0] + (*drop_)(trace, x) : x};
  }

 private:
  bool residual_;
  std::shared_ptr<Conv> expand_, depthwise_, reduce_, excite_, project_;
  std::shared_ptr<BatchNorm> bn0_, bn1_, bn2_;
  std::shared_ptr<StochasticDepth> drop_;
};

struct EfficientNetSizes {
  int64_t channels, classes;
  double width, depth, dropout, drop_connect;
};

class EfficientNet : public Module {
 public:
  explicit EfficientNet(const EfficientNetSizes& s) {
    int64_t in = scale_channels(kStem, s.width), index = 0, count = 0;
    stem_ = add("_conv_stem", conv({.in = s.channels, .out = in, .kernel = 3, .stride = 2}));
    bn0_ = add("_bn0", batch_norm(in));
    blocks_ = add("_blocks", std::make_shared<Sequential>());
    for (const Stage& stage : kStages) count += scale_repeats(stage.repeats, s.depth);
    for (const Stage& stage : kStages) {
      const int64_t out = scale_channels(stage.channels, s.width);
      for (int64_t i = 0; i < scale_repeats(stage.repeats, s.depth); ++i, ++index) {
        // Deeper blocks are left out more often.
        const double rate = s.drop_connect * static_cast<double>(index) / static_cast<double>(count);
        blocks_->append(std::make_shared<MbConv>(in, out, i == 0 ? stage.stride : 1, stage, rate));
        in = out;
      }
    }
    const int64_t features = scale_channels(kHead, s.width);
    head_ = add("_conv_head", conv({.in = in, .out = features}));
    bn1_ = add("_bn1", batch_norm(features));
    dropout_ = add("_dropout", std::make_shared<Dropout>(s.dropout));
    fc_ = add("_fc", std::make_shared<Linear>(features, s.classes));
    const double bound = 1 / std::sqrt(static_cast<double>(s.classes));
    fc_->register_parameter("weight", {s.classes, features}, default_initializer().uniform(bound));
    fc_->register_parameter("bias", {s.classes}, filled(0));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = silu((*bn0_)(trace, (*stem_)(trace, inputs[0])));
    x = (*blocks_)(trace, x);
    x = silu((*bn1_)(trace, (*head_)(trace, x)));
    return {(*fc_)(trace, (*dropout_)(trace, ops::mean(x, {2, 3})))};
  }

 private:
  std::shared_ptr<Conv> stem_, head_;
  std::shared_ptr<BatchNorm> bn0_, bn1_;
  std::shared_ptr<Sequential> blocks_;
  std::shared_ptr<Dropout> dropout_;
  std::shared_ptr<Linear> fc_;
};

}  // namespace

Result<ModulePtr> make_efficientnet(const std::string& name, const ModelData& data, const Parameters& parameters) {
  const auto variant =
      std::find_if(std::begin(kVariants), std::end(kVariants), [&](auto& v) { return name == v.name; });
  if (variant == std::end(kVariants)) return invalid("model.name: there is no EfficientNet '{}'", name);
  DS_TRY(only(parameters, {"width", "depth", "dropout", "drop_connect"}, name));
  DS_ASSIGN(const double width, number(parameters, "width", variant->width, 0.01, 100));
  DS_ASSIGN(const double depth, number(parameters, "depth", variant->depth, 0.01, 100));
  DS_ASSIGN(const double dropout, number(parameters, "dropout", variant->dropout, 0, 0.99));
  DS_ASSIGN(const double drop_connect, number(parameters, "drop_connect", 0.2, 0, 0.99));
  DS_TRY(check_images(data, name));
  return ModulePtr(std::make_shared<EfficientNet>(
      EfficientNetSizes{data.input[0], data.classes, width, depth, dropout, drop_connect}));
}

}  // namespace deepseek::models
