// Multi-layer perceptron: flatten, then `layers` hidden layers of `width` with ReLU, then the classifier.
#include "models/zoo.h"
#include "nn/layers.h"

namespace deepseek::models {

Result<nn::ModulePtr> make_mlp(const std::string& name, const ModelData& data, const Parameters& parameters) {
  DS_TRY(only(parameters, {"width", "layers"}, name));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 256, 1, 1 << 16));
  DS_ASSIGN(const int64_t layers, integer(parameters, "layers", 2, 0, 100));
  auto model = std::make_shared<nn::Sequential>();
  model->append(nn::flatten());
  int64_t features = graph::product(data.input);
  for (int64_t i = 0; i < layers; ++i) {
    model->append(std::make_shared<nn::Linear>(features, width));
    model->append(nn::activation("relu"));
    features = width;
  }
  model->append(std::make_shared<nn::Linear>(features, data.classes));
  return nn::ModulePtr(model);
}

}  // namespace deepseek::models
