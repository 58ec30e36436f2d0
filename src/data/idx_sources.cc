// Images and labels in IDX files: Fashion-MNIST, and others in its format.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "data/builtin_sources.h"
#include "data/idx.h"
#include "io/image.h"

namespace deepseek::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFashionFolder = "/usr/share/datasets/fashion-mnist";

// u8 [N, C, H, W].
Result<graph::Tensor> load_images(const std::string& path) {
  DS_ASSIGN(const graph::Tensor images, load_idx(path));
  graph::Dims dims = images.dims();
  if (images.dtype() != DType::kU8 || (dims.size() != 3 && dims.size() != 4)) {
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds {}, expected u8 images [N,H,W] or [N,C,H,W]", path,
                      to_string(images.type()));
  }
  if (dims.size() == 3) dims.insert(dims.begin() + 1, 1);
  return images.reshaped(std::move(dims));
}

Field image_field(const std::string& name) {
  Field x;
  x.name = name;
  x.normalisation.scale = 1.0 / 255.0;
  return x;
}

// Images and integer [N] labels as a data set.
Result<DatasetPtr> load_pair(const std::string& source, const std::string& images_path, const std::string& labels_path,
                             const std::vector<std::string>& class_names, std::optional<int64_t> ignored = {}) {
  DS_ASSIGN(const graph::Tensor images, load_images(images_path));
  DS_ASSIGN(const graph::Tensor labels, load_idx(labels_path));
  if (!is_integer(labels.dtype()) || labels.dims().size() != 1) {
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds {}, expected integer labels [N]", labels_path,
                      to_string(labels.type()));
  }
  Field y;
  y.name = "y";
  y.role = Role::kTarget;
  y.class_names = class_names;
  y.ignored = ignored;
  const graph::Dims& dims = images.dims();
  const Json spec = {
      {"source", source}, {"channels", dims[1]}, {"height", dims[2]}, {"width", dims[3]}, {"field", "x"}};
  Result<DatasetPtr> out = ArrayDataset::create({image_field("x"), std::move(y)},
                                                {{"x", images}, {"y", labels.cast(DType::kI64)}}, dump_json(spec));
  const Status status = out.ok() ? (*out)->validate() : out.status();
  if (!status.ok()) return Status(status).note(fmt::format("while reading '{}' and '{}'", images_path, labels_path));
  return out;
}

Result<Splits> open_fashion_mnist(const Params& params) {
  const std::string folder = text(params, "folder", kFashionFolder);
  const std::vector<std::string> names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                          "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  const auto load = [&](const std::string& part) {
    return load_pair("fashion-mnist", folder + "/" + part + "-images-idx3-ubyte.gz",
                     folder + "/" + part + "-labels-idx1-ubyte.gz", names);
  };
  Result<DatasetPtr> train = load("train");
  if (!train.ok()) {
    return std::move(train).status().note(
        "Fashion-MNIST comes with 'apt install dataset-fashion-mnist', or set the parameter 'folder'");
  }
  DS_ASSIGN(DatasetPtr test, load("t10k"));
  return split(*train, std::move(test), params);
}

Result<Splits> open_idx(const Params& params) {
  std::optional<int64_t> ignored;
  if (params.contains("ignore_index")) {
    DS_ASSIGN(ignored, number<int64_t>(params, "ignore_index", 0));
  }
  std::vector<std::string> names = list(params, "class_names");
  if (names.empty()) {
    DS_ASSIGN(const graph::Tensor labels, load_idx(params.at("train_labels")));
    int64_t last = 0;
    for (int64_t i = 0; i < labels.num_elements(); ++i)
      if (const auto label = static_cast<int64_t>(labels.at(i)); label != ignored) last = std::max(last, label);
    if (last >= 100000) {
      return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds the label {}; name the classes with 'class_names'",
                        params.at("train_labels"), last);
    }
    for (int64_t i = 0; i <= last; ++i) names.push_back(std::to_string(i));
  }
  DS_ASSIGN(const DatasetPtr train,
            load_pair("idx", params.at("train_images"), params.at("train_labels"), names, ignored));
  DS_ASSIGN(DatasetPtr test, load_pair("idx", params.at("test_images"), params.at("test_labels"), names, ignored));
  return split(train, std::move(test), params);
}

// IDX files begin with two zero bytes, packed ones as gzip does.
bool looks_like_idx(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const int first = in.get(), second = in.get();
  return (first == 0 && second == 0) || (first == 0x1f && second == 0x8b);
}

// Pictures of the training images' very size, or an IDX file of them.
Result<Input> open_idx_input(const std::string& spec, const std::string& path) {
  const Json json = parse_json<Json>(spec);
  DS_ASSIGN(const std::string name, spec_text(json, "field"));
  graph::Dims expected;
  for (const char* key : {"channels", "height", "width"}) {
    DS_ASSIGN(const int64_t size, spec_number(json, key, 1, kMaxPixels));
    expected.push_back(size);
  }
  Input out;
  graph::Tensor images;
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error) && looks_like_idx(path)) {
    DS_ASSIGN(images, load_images(path));
    const graph::Dims got(images.dims().begin() + 1, images.dims().end());
    if (got != expected)
      return invalid("[data] '{}': expected images of [channels,height,width] {}, got {}; resize or convert them", path,
                     graph::to_string(expected), graph::to_string(got));
    for (int64_t i = 0; i < images.dims()[0]; ++i) out.labels.push_back(std::to_string(i));
  } else {
    if (expected[0] != 1 && expected[0] != 3)
      return invalid("[data] '{}': expected an IDX file of images with {} channels, which pictures do not have", path,
                     expected[0]);
    DS_ASSIGN(out.labels, picture_files(path));
    out.label_name = "file";
    const auto n = static_cast<int64_t>(out.labels.size());
    images = graph::Tensor(DType::kU8, {n, expected[0], expected[1], expected[2]});
    for (int64_t i = 0; i < n; ++i) {
      const std::string& file = out.labels[static_cast<size_t>(i)];
      DS_ASSIGN(const graph::Tensor image, io::load_image(file, expected[0]));
      if (image.dims() != expected)
        return invalid("[data] '{}': expected a picture of [channels,height,width] {}, got {}; resize or convert it",
                       file, graph::to_string(expected), graph::to_string(image.dims()));
      std::copy_n(image.as<uint8_t>(), image.num_bytes(),
                  images.as<uint8_t>() + static_cast<size_t>(i) * image.num_bytes());
    }
  }
  DS_ASSIGN(out.data, ArrayDataset::create({image_field(name)}, {{name, std::move(images)}}));
  return out;
}

}  // namespace

std::vector<Source> idx_sources() {
  const auto with_split = [](std::vector<Key> keys) {
    for (Key& k : split_keys()) keys.push_back(std::move(k));
    return keys;
  };
  Source fashion{"fashion-mnist",
                 "70,000 grey pictures of clothes of 28 x 28 pixels, in 10 classes",
                 with_split({{"folder", "where its four files are; Debian's dataset-fashion-mnist puts them there",
                              kFashionFolder}}),
                 "data:\n  name: fashion-mnist\n",
                 open_fashion_mnist,
                 open_idx_input};
  Source idx{"idx",
             "images u8 [N,H,W] or [N,C,H,W] and integer labels [N] in IDX files, as MNIST's, plain or .gz",
             with_split({{"train_images", "a path", "", true},
                         {"train_labels", "a path", "", true},
                         {"test_images", "a path", "", true},
                         {"test_labels", "a path", "", true},
                         {"class_names", "comma-separated; by default 0, 1, ... up to the largest label", ""},
                         {"ignore_index", "the label of samples that do not count", ""}}),
             "data:\n  name: idx\n  train_images: train-images-idx3-ubyte.gz\n"
             "  train_labels: train-labels-idx1-ubyte.gz\n  test_images: t10k-images-idx3-ubyte.gz\n"
             "  test_labels: t10k-labels-idx1-ubyte.gz\n",
             open_idx,
             open_idx_input};
  return {std::move(fashion), std::move(idx)};
}

}  // namespace deepseek::data
