#include "models/zoo.h"

#include <algorithm>
#include <charconv>

#include "base/strings.h"

namespace deepseek::models {

namespace {

struct Entry {
  const char* name;
  Result<nn::ModulePtr> (*make)(const std::string& name, const ModelData&, const Parameters&);
  const char* summary;  // what it is, and which samples it takes
};
constexpr Entry kModels[] = {
    {"mlp", make_mlp, "multi-layer perceptron, any samples"},
    {"small_resnet", make_small_resnet, "ResNet of three stages for small images [C, H, W]"},
    {"resnet18", make_resnet, "ResNet of 18 layers, images [C, H, W]"},
    {"resnet34", make_resnet, "ResNet of 34 layers, images [C, H, W]"},
    {"resnet50", make_resnet, "ResNet of 50 layers, images [C, H, W]"},
    {"resnet101", make_resnet, "ResNet of 101 layers, images [C, H, W]"},
    {"resnet152", make_resnet, "ResNet of 152 layers, images [C, H, W]"},
    {"efficientnet_b0", make_efficientnet, "EfficientNet, images [C, H, W]; made for 224x224"},
    {"efficientnet_b1", make_efficientnet, "EfficientNet, images [C, H, W]; made for 240x240"},
    {"efficientnet_b2", make_efficientnet, "EfficientNet, images [C, H, W]; made for 260x260"},
    {"efficientnet_b3", make_efficientnet, "EfficientNet, images [C, H, W]; made for 300x300"},
    {"efficientnet_b4", make_efficientnet, "EfficientNet, images [C, H, W]; made for 380x380"},
    {"efficientnet_b5", make_efficientnet, "EfficientNet, images [C, H, W]; made for 456x456"},
    {"efficientnet_b6", make_efficientnet, "EfficientNet, images [C, H, W]; made for 528x528"},
    {"efficientnet_b7", make_efficientnet, "EfficientNet, images [C, H, W]; made for 600x600"},
    {"unet3d", make_unet3d, "3D U-Net, volumes [C, D, H, W]; a class for each voxel"},
    {"lstm", make_lstm, "LSTM classifier, sequences [T, F] or tokens [T]"},
    {"transformer", make_transformer, "Transformer encoder classifier, sequences [T, F] or tokens [T]"},
    {"bert", make_bert, "BERT, base size, tokens [T]"},
    {"bert_large", make_bert, "BERT, large size, tokens [T]"}};

template <class T>
Result<T> read(const Parameters& parameters, const std::string& key, T fallback, T low, T high, const char* what) {
  auto it = parameters.find(key);
  if (it == parameters.end()) return fallback;
  T value = 0;
  const char* const end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || stop != end || !(value >= low && value <= high))
    return invalid("model.{}: expected {} in [{}, {}], got '{}'", key, what, low, high, it->second);
  return value;
}

}  // namespace

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const Entry& e : kModels) out.push_back(e.name);
  return out;
}

std::string summary(const std::string& name) {
  for (const Entry& e : kModels)
    if (name == e.name) return e.summary;
  return {};
}

Result<nn::ModulePtr> create(const std::string& name, const ModelData& data, const Parameters& parameters) {
  std::string known;
  DS_TRY(graph::check_size({DType::kF32, data.input}));
  if (data.classes < 1 || data.classes > graph::kMaxSize)
    return invalid("classes: expected 1 to {}, got {}", graph::kMaxSize, data.classes);
  for (const Entry& e : kModels) {
    if (name == e.name) {
      DS_ASSIGN(nn::ModulePtr model, e.make(name, data, parameters));
      DS_TRY(model->tree_status());  // of layers that are too large
      return model;
    }
    known += (known.empty() ? "" : ", ") + std::string(e.name);
  }
  return invalid("model.name: there is no model '{}'; the zoo has: {}{}", name, known, did_you_mean(name, names()));
}

Result<int64_t> integer(const Parameters& parameters, const std::string& key, int64_t fallback, int64_t low,
                        int64_t high) {
  return read<int64_t>(parameters, key, fallback, low, high, "an integer");
}

Result<graph::Dims> integers(const Parameters& parameters, const std::string& key, graph::Dims fallback, int64_t low,
                             int64_t high) {
  auto it = parameters.find(key);
  if (it == parameters.end()) return fallback;
  graph::Dims out;
  const char *at = it->second.data(), *const end = at + it->second.size();
  while (true) {
    int64_t value = 0;
    while (at != end && *at == ' ') ++at;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || (stop != end && *stop != ',') || value < low || value > high)
      return invalid("model.{}: expected integers in [{}, {}] separated by commas, got '{}'", key, low, high,
                     it->second);
    out.push_back(value);
    if (stop == end) return out;
    at = stop + 1;
  }
}

Result<double> number(const Parameters& parameters, const std::string& key, double fallback, double low, double high) {
  return read<double>(parameters, key, fallback, low, high, "a number");
}

Result<std::string> choice(const Parameters& parameters, const std::string& key,
                           const std::vector<std::string>& values) {
  auto it = parameters.find(key);
  if (it == parameters.end()) return values[0];
  if (std::find(values.begin(), values.end(), it->second) == values.end())
    return invalid("model.{}: expected one of {}; got '{}'", key, join(values, ", "), it->second);
  return it->second;
}

Status only(const Parameters& parameters, const std::vector<std::string>& known, const std::string& model) {
  for (const auto& [key, value] : parameters)
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return invalid("model.{}: model '{}' has no such parameter; it has: {}{}", key, model, join(known, ", "),
                     did_you_mean(key, known));
    }
  return {};
}

Status check_images(const ModelData& data, const std::string& model) {
  if (data.input.size() != 3)
    return invalid("model '{}' takes images [C, H, W], the data has samples of shape {}", model,
                   graph::to_string(data.input));
  return {};
}

Status check_sequence(const ModelData& data, int64_t vocabulary, const std::string& model) {
  if (vocabulary > 0 && data.input.size() != 1)
    return invalid("model '{}' with a vocabulary takes tokens [T], the data has samples of shape {}", model,
                   graph::to_string(data.input));
  if (vocabulary == 0 && data.input.size() != 2)
    return invalid(
        "model '{}' takes sequences [T, F], or tokens [T] with model.vocabulary; the data has samples of shape {}",
        model, graph::to_string(data.input));
  return {};
}

}  // namespace deepseek::models
