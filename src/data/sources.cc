#include "data/sources.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "data/idx.h"
#include "data/random.h"

namespace deepseek::data {
namespace {

using Params = std::map<std::string, std::string>;

constexpr const char* kFashionFolder = "/usr/share/datasets/fashion-mnist";

std::string get(const Params& params, const std::string& key, const std::string& otherwise) {
  const auto it = params.find(key);
  return it == params.end() ? otherwise : it->second;
}

Status check_keys(const std::string& name, const Params& params, std::vector<std::string> known) {
  known.insert(known.end(), {"validation_fraction", "seed"});
  for (const auto& [key, value] : params) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return invalid("[data] data set '{}' has no parameter '{}'; it takes: {}", name, key, fmt::join(known, ", "));
    }
  }
  return {};
}

template <class T>
Result<T> number(const Params& params, const std::string& key, T otherwise) {
  const auto it = params.find(key);
  if (it == params.end()) return otherwise;
  T value{};
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || stop != end) {
    return invalid("[data] parameter '{}' is '{}', expected a number", key, it->second);
  }
  return value;
}

// u8 [N, H, W] or [N, C, H, W] images and integer [N] labels as a data set.
Result<Dataset> load_pair(const std::string& images_path, const std::string& labels_path,
                          const std::vector<std::string>& class_names) {
  DS_ASSIGN(graph::Tensor images, load_idx(images_path));
  DS_ASSIGN(const graph::Tensor labels, load_idx(labels_path));
  graph::Dims dims = images.dims();
  if (images.dtype() != DType::kU8 || (dims.size() != 3 && dims.size() != 4)) {
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds {}, expected u8 images [N,H,W] or [N,C,H,W]",
                      images_path, to_string(images.type()));
  }
  if (!is_integer(labels.dtype()) || labels.dims().size() != 1) {
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds {}, expected integer labels [N]", labels_path,
                      to_string(labels.type()));
  }
  if (dims.size() == 3) dims.insert(dims.begin() + 1, 1);
  Dataset out;
  out.inputs = images.reshaped(std::move(dims));
  out.targets = labels.cast(DType::kI64);
  out.class_names = class_names;
  out.scale = 1.0 / 255.0;
  Status status = out.validate();
  if (!status.ok()) return std::move(status).note(fmt::format("while reading '{}' and '{}'", images_path, labels_path));
  return out;
}

Result<Splits> split(const Dataset& all, Dataset test, const Params& params) {
  DS_ASSIGN(const double fraction, number<double>(params, "validation_fraction", 0.1));
  DS_ASSIGN(const uint64_t seed, number<uint64_t>(params, "seed", 0));
  if (!(fraction >= 0 && fraction < 1)) {
    return invalid("[data] validation_fraction is {}, expected a value in [0, 1)", fraction);
  }
  const auto for_validation = static_cast<size_t>(fraction * static_cast<double>(all.size()));
  std::vector<int64_t> order = permutation(all.size(), seed);
  // Sorted parts read the source front to back; the loader shuffles anyway.
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(for_validation);
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  Splits out;
  DS_ASSIGN(out.validation, all.subset(std::span(order).first(for_validation)));
  DS_ASSIGN(out.train, all.subset(std::span(order).subspan(for_validation)));
  DS_TRY(out.train.fit_normalisation());
  out.test = std::move(test);
  for (Dataset* part : {&out.validation, &out.test}) {
    part->mean = out.train.mean;
    part->stddev = out.train.stddev;
  }
  if (out.test.inputs.dims().size() != all.inputs.dims().size() ||
      !std::equal(out.test.inputs.dims().begin() + 1, out.test.inputs.dims().end(), all.inputs.dims().begin() + 1)) {
    return make_error(ErrorCode::kDataCorrupt, "[data] training images are {}, test images {}",
                      to_string(all.inputs.type()), to_string(out.test.inputs.type()));
  }
  return out;
}

Result<Splits> open_fashion_mnist(const Params& params) {
  DS_TRY(check_keys("fashion-mnist", params, {"folder"}));
  const std::string folder = get(params, "folder", kFashionFolder);
  const std::vector<std::string> names = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                          "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  const auto load = [&](const std::string& part) {
    return load_pair(folder + "/" + part + "-images-idx3-ubyte.gz", folder + "/" + part + "-labels-idx1-ubyte.gz",
                     names);
  };
  Result<Dataset> train = load("train");
  if (!train.ok()) {
    return std::move(train).status().note(
        "Fashion-MNIST comes with 'apt install dataset-fashion-mnist', or set the parameter 'folder'");
  }
  DS_ASSIGN(Dataset test, load("t10k"));
  return split(*train, std::move(test), params);
}

Result<Splits> open_idx(const Params& params) {
  DS_TRY(check_keys("idx", params, {"train_images", "train_labels", "test_images", "test_labels", "class_names"}));
  for (const char* key : {"train_images", "train_labels", "test_images", "test_labels"}) {
    if (!params.contains(key)) return invalid("[data] data set 'idx' needs the parameter '{}' (a path)", key);
  }
  std::vector<std::string> names;
  if (const std::string text = get(params, "class_names", ""); !text.empty()) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      names.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  } else {
    DS_ASSIGN(const graph::Tensor labels, load_idx(params.at("train_labels")));
    int64_t last = 0;
    for (int64_t i = 0; i < labels.num_elements(); ++i) last = std::max(last, static_cast<int64_t>(labels.at(i)));
    if (last >= 100000) {
      return make_error(ErrorCode::kDataCorrupt, "[data] '{}' holds the label {}; name the classes with 'class_names'",
                        params.at("train_labels"), last);
    }
    for (int64_t i = 0; i <= last; ++i) names.push_back(std::to_string(i));
  }
  DS_ASSIGN(const Dataset train, load_pair(params.at("train_images"), params.at("train_labels"), names));
  DS_ASSIGN(Dataset test, load_pair(params.at("test_images"), params.at("test_labels"), names));
  return split(train, std::move(test), params);
}

}  // namespace

std::vector<std::string> dataset_names() { return {"fashion-mnist", "idx"}; }

Result<Splits> open_dataset(const std::string& name, const Params& params) {
  if (name == "fashion-mnist") return open_fashion_mnist(params);
  if (name == "idx") return open_idx(params);
  return invalid("[data] unknown data set '{}'; there are: {}", name, fmt::join(dataset_names(), ", "));
}

}  // namespace deepseek::data
