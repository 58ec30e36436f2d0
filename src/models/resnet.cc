// ResNet: "Deep Residual Learning for Image Recognition", He, Zhang, Ren, Sun, 2015.
#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

// Two 3x3 convolutions and the identity; a 1x1 projection where the shape changes (option B of the paper).
class BasicBlock : public Module {
 public:
  BasicBlock(int64_t in, int64_t out, int64_t stride) {
    conv1_ = add("conv1", std::make_shared<Conv>(in, out, Dims{3, 3},
                                                 ConvOptions{.stride = {stride}, .padding = {1}, .bias = false}));
    bn1_ = add("bn1", std::make_shared<BatchNorm>(out));
    conv2_ = add("conv2", std::make_shared<Conv>(out, out, Dims{3, 3}, ConvOptions{.padding = {1}, .bias = false}));
    bn2_ = add("bn2", std::make_shared<BatchNorm>(out));
    if (stride != 1 || in != out)
      shortcut_ = add("downsample",
                      std::make_shared<Sequential>(std::vector<ModulePtr>{
                          std::make_shared<Conv>(in, out, Dims{1, 1}, ConvOptions{.stride = {stride}, .bias = false}),
                          std::make_shared<BatchNorm>(out)}));
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

}  // namespace

Result<nn::ModulePtr> make_small_resnet(const Task& task, const Parameters& parameters) {
  DS_TRY(only(parameters, {"width", "blocks"}, "small_resnet"));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 16, 1, 4096));
  DS_ASSIGN(const int64_t blocks, integer(parameters, "blocks", 1, 1, 100));
  if (task.input.size() != 3)
    return invalid("model 'small_resnet' takes images [C, H, W], the data has samples of shape {}",
                   graph::to_string(task.input));
  auto model = std::make_shared<Sequential>();
  model->append(std::make_shared<Conv>(task.input[0], width, Dims{3, 3}, ConvOptions{.padding = {1}, .bias = false}));
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
  model->append(std::make_shared<Linear>(channels, task.classes));
  return ModulePtr(model);
}

}  // namespace deepseek::models
