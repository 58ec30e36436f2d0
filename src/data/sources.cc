#include "data/sources.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <span>

#include "base/random.h"
#include "data/idx.h"
#include "io/image.h"

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
  const graph::TensorType ours = all.input_type(), theirs = out.test.input_type();
  if (theirs.rank() != ours.rank() || !std::equal(theirs.dims.begin() + 1, theirs.dims.end(), ours.dims.begin() + 1)) {
    return make_error(ErrorCode::kDataCorrupt, "[data] training images are {}, test images {}", to_string(ours),
                      to_string(theirs));
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

// The sorted names of what is in a folder and satisfies `wanted`.
template <class F>
Result<std::vector<std::string>> list(const std::filesystem::path& folder, const F& wanted) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (wanted(*it)) names.push_back(it->path().filename().string());
  if (error) return make_error(ErrorCode::kNotFound, "[data] '{}': {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

bool is_folder(const std::filesystem::directory_entry& entry) {
  std::error_code error;
  return entry.is_directory(error) && !entry.path().filename().string().starts_with('.');
}

// One folder per class, as torchvision's ImageFolder reads them: classes and files in the order of their names.
Result<Dataset> load_image_folder(const std::filesystem::path& folder, const graph::Dims& image,
                                  const std::vector<std::string>* classes) {
  Dataset out;
  DS_ASSIGN(out.class_names, list(folder, is_folder));
  if (out.class_names.empty())
    return make_error(ErrorCode::kNotFound, "[data] '{}' has no folders; expected one for each class", folder.string());
  if (classes != nullptr && out.class_names != *classes)
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}' has the classes {}, the training folder {}",
                      folder.string(), fmt::join(out.class_names, ", "), fmt::join(*classes, ", "));
  std::vector<double> labels;
  for (size_t c = 0; c < out.class_names.size(); ++c) {
    const std::filesystem::path part = folder / out.class_names[c];
    DS_ASSIGN(const std::vector<std::string> files,
              list(part, [](const auto& entry) { return io::is_image_name(entry.path().filename().string()); }));
    if (files.empty())
      return make_error(ErrorCode::kNotFound, "[data] '{}' has no .jpg, .jpeg or .png files", part.string());
    for (const std::string& name : files) {
      out.files.push_back((part / name).string());
      labels.push_back(static_cast<double>(c));
    }
  }
  out.targets = graph::Tensor::from<double>(DType::kI64, {static_cast<int64_t>(labels.size())}, labels);
  out.image = image;
  out.scale = 1.0 / 255.0;
  DS_TRY(out.validate());
  return out;
}

Result<Splits> open_image_folder(const Params& params) {
  DS_TRY(check_keys("image-folder", params, {"folder", "test", "size", "channels", "test_fraction"}));
  if (!params.contains("folder"))
    return invalid("[data] data set 'image-folder' needs the parameter 'folder' (a path)");
  const std::filesystem::path folder = params.at("folder");
  DS_ASSIGN(const int64_t size, number<int64_t>(params, "size", 224));
  DS_ASSIGN(const int64_t channels, number<int64_t>(params, "channels", 3));
  if (size < 1 || size > 16384) return invalid("[data] size is {}, expected pixels between 1 and 16384", size);
  if (channels != 1 && channels != 3) return invalid("[data] channels is {}, expected 1 or 3", channels);
  const graph::Dims image = {channels, size, size};
  std::error_code error;
  const bool parts = std::filesystem::is_directory(folder / "train", error);
  DS_ASSIGN(const Dataset all, load_image_folder(parts ? folder / "train" : folder, image, nullptr));
  std::filesystem::path test = get(params, "test", "");
  for (const char* name : {"test", "val"})
    if (parts && test.empty() && std::filesystem::is_directory(folder / name, error)) test = folder / name;
  if (!test.empty()) {
    DS_ASSIGN(Dataset held_out, load_image_folder(test, image, &all.class_names));
    return split(all, std::move(held_out), params);
  }
  DS_ASSIGN(const double fraction, number<double>(params, "test_fraction", 0.1));
  DS_ASSIGN(const uint64_t seed, number<uint64_t>(params, "seed", 0));
  const auto count = static_cast<int64_t>(fraction * static_cast<double>(all.size()));
  if (!(fraction > 0 && fraction < 1) || count < 1 || count >= all.size())
    return invalid("[data] test_fraction is {}: of {} pictures that leaves none for one part", fraction, all.size());
  std::vector<int64_t> order = permutation(all.size(), seed + 1);
  std::sort(order.begin(), order.begin() + count);
  std::sort(order.begin() + count, order.end());
  DS_ASSIGN(Dataset held_out, all.subset(std::span(order).first(static_cast<size_t>(count))));
  DS_ASSIGN(const Dataset rest, all.subset(std::span(order).subspan(static_cast<size_t>(count))));
  return split(rest, std::move(held_out), params);
}

}  // namespace

std::vector<std::string> dataset_names() { return {"fashion-mnist", "idx", "image-folder"}; }

Result<Splits> open_dataset(const std::string& name, const Params& params) {
  if (name == "fashion-mnist") return open_fashion_mnist(params);
  if (name == "idx") return open_idx(params);
  if (name == "image-folder") return open_image_folder(params);
  return invalid("[data] unknown data set '{}'; there are: {}", name, fmt::join(dataset_names(), ", "));
}

}  // namespace deepseek::data
