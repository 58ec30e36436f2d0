// ResNet: "Deep Residual Learning for Image Recognition", He, Zhang, Ren, Sun, 2015. resnet18 to resnet152
// have torchvision's parameter names and initial distributions; the stride of a bottleneck is in its 3x3 convolution
// ("v1.5").
#include <algorithm>
#include <array>
#include <cmath>

#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

std::shared_ptr<Conv> conv(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1) {
  return std::make_shared<Conv>(in, out, Dims{kernel, kernel},
                                ConvOptions{.stride = {stride}, .padding = {kernel / 2}, .bias = false});
}

// A 1x1 projection where the shape changes (option B of the paper), else null: the identity.
std::shared_ptr<Sequential> projection(int64_t in, int64_t out, int64_t stride) {
  if (stride == 1 && in == out) return nullptr;
  return std::make_shared<Sequential>(
      std::vector<ModulePtr>{conv(in, out, 1, stride), std::make_shared<BatchNorm>(out)});
}

// Two 3x3 convolutions and the shortcut.
class BasicBlock : public Module {
 public:
  static constexpr int64_t kExpansion = 1;  // channels out per channel of the width
  BasicBlock(int64_t in, int64_t width, int64_t stride) {
    conv1_ = add("conv1", conv(in, width, 3, stride));
    bn1_ = add("bn1", std::make_shared<BatchNorm>(width));
    conv2_ = add("conv2", conv(width, width, 3));
    bn2_ = add("bn2", std::make_shared<BatchNorm>(width));
    if ((shortcut_ = projection(in, width, stride))) add("downsample", shortcut_);
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0];
    Expr y = ops::relu((*bn1_)(trace, (*conv1_)(trace, x)));
    y = (*bn2_)(trace, (*conv2_)(trace, y));
    return {ops::relu(y + (shortcut_ ? (*shortcut_)(trace, x) : x))};
  }

 private:
  std::shared_ptr<Conv> conv1_, conv2_;
  std::shared_ptr<BatchNorm> bn1_, bn2_;
  std::shared_ptr<Sequential> shortcut_;
};

// 1x1 to the width, 3x3 with the stride, 1x1 to four times the width, and the shortcut.
class Bottleneck : public Module {
 public:
  static constexpr int64_t kExpansion = 4;
  Bottleneck(int64_t in, int64_t width, int64_t stride) {
    const int64_t out = kExpansion * width;
    conv1_ = add("conv1", conv(in, width, 1));
    bn1_ = add("bn1", std::make_shared<BatchNorm>(width));
    conv2_ = add("conv2", conv(width, width, 3, stride));
    bn2_ = add("bn2", std::make_shared<BatchNorm>(width));
    conv3_ = add("conv3", conv(width, out, 1));
    bn3_ = add("bn3", std::make_shared<BatchNorm>(out));
    if ((shortcut_ = projection(in, out, stride))) add("downsample", shortcut_);
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0];
    Expr y = ops::relu((*bn1_)(trace, (*conv1_)(trace, x)));
    y = ops::relu((*bn2_)(trace, (*conv2_)(trace, y)));
    y = (*bn3_)(trace, (*conv3_)(trace, y));
    return {ops::relu(y + (shortcut_ ? (*shortcut_)(trace, x) : x))};
  }

 private:
  std::shared_ptr<Conv> conv1_, conv2_, conv3_;
  std::shared_ptr<BatchNorm> bn1_, bn2_, bn3_;
  std::shared_ptr<Sequential> shortcut_;
};

// He et al. 2015 ("Delving Deep into Rectifiers"): N(0, 2 / (channels out * kernel area)), for all convolutions below.
void initialize_convolutions(Module& module) {
  for (const State& s : module.own_state())
    if (const Dims& d = s.value.dims(); s.name == "weight" && d.size() == 4) {
      const double fan_out = static_cast<double>(d[0] * d[2] * d[3]);
      module.register_parameter(s.name, default_initializer().normal(d, 0, std::sqrt(2 / fan_out)));
    }
  for (const auto& [name, child] : module.children()) initialize_convolutions(*child);
}

struct ResNetSizes {
  std::array<int64_t, 4> blocks;
  int64_t channels, width, classes;
  bool large_stem;
};

class ResNet : public Module {
 public:
  template <class Block>
  static std::shared_ptr<ResNet> of(const ResNetSizes& s) {
    auto net = std::make_shared<ResNet>(s);
    int64_t in = s.width;
    for (size_t stage = 0; stage < 4; ++stage) {
      auto blocks = std::make_shared<Sequential>();
      for (int64_t i = 0; i < s.blocks[stage]; ++i) {
        blocks->append(std::make_shared<Block>(in, s.width << stage, stage > 0 && i == 0 ? 2 : 1));
        in = Block::kExpansion * (s.width << stage);
      }
      net->stages_.push_back(net->add("layer" + std::to_string(stage + 1), blocks));
    }
    net->fc_ = net->add("fc", std::make_shared<Linear>(in, s.classes));
    initialize_convolutions(*net);
    return net;
  }
  explicit ResNet(const ResNetSizes& s) {
    conv1_ = add("conv1", s.large_stem ? conv(s.channels, s.width, 7, 2) : conv(s.channels, s.width, 3));
    bn1_ = add("bn1", std::make_shared<BatchNorm>(s.width));
    if (s.large_stem) pool_ = add("maxpool", max_pool({3, 3}, {2, 2}, {1, 1}));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = ops::relu((*bn1_)(trace, (*conv1_)(trace, inputs[0])));
    if (pool_) x = (*pool_)(trace, x);
    for (const auto& stage : stages_) x = (*stage)(trace, x);
    return {(*fc_)(trace, ops::mean(x, {2, 3}))};
  }

 private:
  std::shared_ptr<Conv> conv1_;
  std::shared_ptr<BatchNorm> bn1_;
  ModulePtr pool_;
  std::vector<std::shared_ptr<Sequential>> stages_;
  std::shared_ptr<Linear> fc_;
};

// Table 1 of the paper.
struct Variant {
  const char* name;
  std::array<int64_t, 4> blocks;
  bool bottleneck;
};
constexpr Variant kVariants[] = {{"resnet18", {2, 2, 2, 2}, false},
                                 {"resnet34", {3, 4, 6, 3}, false},
                                 {"resnet50", {3, 4, 6, 3}, true},
                                 {"resnet101", {3, 4, 23, 3}, true},
                                 {"resnet152", {3, 8, 36, 3}, true}};

}  // namespace

Result<nn::ModulePtr> make_small_resnet(const std::string& name, const ModelData& data, const Parameters& parameters) {
  DS_TRY(only(parameters, {"width", "blocks"}, name));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 16, 1, 4096));
  DS_ASSIGN(const int64_t blocks, integer(parameters, "blocks", 1, 1, 100));
  DS_TRY(check_images(data, name));
  auto model = std::make_shared<Sequential>();
  model->append(conv(data.input[0], width, 3));
  model->append(std::make_shared<BatchNorm>(width));
  model->append(activation("relu"));
  int64_t channels = width;
  for (int stage = 0; stage < 3; ++stage)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t out = width << stage;
      model->append(std::make_shared<BasicBlock>(channels, out, stage > 0 && block == 0 ? 2 : 1));
      channels = out;
    }
  model->append(global_average_pool());
  model->append(std::make_shared<Linear>(channels, data.classes));
  return ModulePtr(model);
}

Result<ModulePtr> make_resnet(const std::string& name, const ModelData& data, const Parameters& parameters) {
  const auto variant =
      std::find_if(std::begin(kVariants), std::end(kVariants), [&](auto& v) { return name == v.name; });
  if (variant == std::end(kVariants)) return invalid("model.name: there is no ResNet '{}'", name);
  DS_TRY(only(parameters, {"width", "blocks", "stem"}, name));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 64, 1, 4096));
  DS_ASSIGN(const int64_t blocks, integer(parameters, "blocks", 0, 0, 100));
  DS_ASSIGN(const std::string stem, choice(parameters, "stem", {"imagenet", "small"}));
  DS_TRY(check_images(data, name));
  ResNetSizes sizes{variant->blocks, data.input[0], width, data.classes, stem == "imagenet"};
  if (blocks > 0) sizes.blocks.fill(blocks);
  return ModulePtr(variant->bottleneck ? ResNet::of<Bottleneck>(sizes) : ResNet::of<BasicBlock>(sizes));
}

}  // namespace deepseek::models
