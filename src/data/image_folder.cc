// Folders of pictures: one for each class to learn from, any to predict.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "data/builtin_sources.h"
#include "io/image.h"

namespace deepseek::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The sorted names of what is in a folder and satisfies `wanted`.
template <class F>
Result<std::vector<std::string>> names_in(const fs::path& folder, const F& wanted) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (wanted(*it)) names.push_back(it->path().filename().string());
  if (error) return make_error(ErrorCode::kNotFound, "[data] '{}': {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

bool is_hidden(const fs::directory_entry& entry) { return entry.path().filename().string().starts_with('.'); }

bool is_folder(const fs::directory_entry& entry) {
  std::error_code error;
  return entry.is_directory(error) && !is_hidden(entry);
}

bool is_picture(const fs::directory_entry& entry) { return io::is_image_name(entry.path().filename().string()); }

Field picture_field(const std::string& name) {
  Field x;
  x.name = name;
  x.normalisation.scale = 1.0 / 255.0;
  return x;
}

// One folder per class, as torchvision's ImageFolder reads them: classes and files in the order of their names.
Result<DatasetPtr> load_image_folder(const fs::path& folder, const graph::Dims& image) {
  Field y;
  y.name = "y";
  y.role = Role::kTarget;
  DS_ASSIGN(y.class_names, names_in(folder, is_folder));
  if (y.class_names.empty())
    return make_error(ErrorCode::kNotFound, "[data] '{}' has no folders; expected one for each class", folder.string());
  std::vector<int64_t> labels;
  std::vector<std::string> paths;
  for (size_t c = 0; c < y.class_names.size(); ++c) {
    const fs::path part = folder / y.class_names[c];
    DS_ASSIGN(const std::vector<std::string> files, names_in(part, is_picture));
    if (files.empty())
      return make_error(ErrorCode::kNotFound, "[data] '{}' has no .jpg, .jpeg or .png files", part.string());
    for (const std::string& name : files) {
      paths.push_back((part / name).string());
      labels.push_back(static_cast<int64_t>(c));
    }
  }
  Batch targets;
  targets["y"] = graph::Tensor::from<int64_t>(DType::kI64, {static_cast<int64_t>(labels.size())}, labels);
  return PictureDataset::create(picture_field("x"), std::move(paths), image, {std::move(y)}, std::move(targets));
}

Result<Splits> open_image_folder(const Params& params) {
  const fs::path folder = params.at("folder");
  DS_ASSIGN(const int64_t size, number<int64_t>(params, "size", 224));
  DS_ASSIGN(const int64_t channels, number<int64_t>(params, "channels", 3));
  if (size < 1 || size > kMaxPixels)
    return invalid("[data] size is {}, expected pixels between 1 and {}", size, kMaxPixels);
  if (channels != 1 && channels != 3) return invalid("[data] channels is {}, expected 1 or 3", channels);
  const graph::Dims image = {channels, size, size};
  std::error_code error;
  const bool parts = fs::is_directory(folder / "train", error);
  const fs::path train = parts ? folder / "train" : folder;
  DS_ASSIGN(const DatasetPtr all, load_image_folder(train, image));
  fs::path test = text(params, "test", "");
  for (const char* name : {"test", "val"})
    if (parts && test.empty() && fs::is_directory(folder / name, error)) test = folder / name;
  if (!test.empty()) {
    DS_ASSIGN(DatasetPtr held_out, load_image_folder(test, image));
    const auto &ours = all->find("y")->class_names, &theirs = held_out->find("y")->class_names;
    if (theirs != ours)
      return make_error(ErrorCode::kDataCorrupt, "[data] '{}' has the classes {}, the training folder {}",
                        test.string(), fmt::join(theirs, ", "), fmt::join(ours, ", "));
    return split(all, std::move(held_out), params);
  }
  DS_ASSIGN(HeldOut parts_of, hold_out(all, params));
  return split(parts_of.rest, std::move(parts_of.test), params);
}

Result<Input> open_pictures(const std::string& spec, const std::string& path) {
  const Json json = parse_json<Json>(spec);
  DS_ASSIGN(const std::string name, spec_text(json, "field"));
  graph::Dims image;
  for (const char* key : {"channels", "size", "width"}) {
    DS_ASSIGN(const int64_t size, spec_number(json, key, 1, kMaxPixels));
    image.push_back(size);
  }
  Input out;
  DS_ASSIGN(out.labels, picture_files(path));
  out.label_name = "file";
  DS_ASSIGN(out.data, PictureDataset::create(picture_field(name), out.labels, std::move(image), {}, {}));
  return out;
}

}  // namespace

Result<std::vector<std::string>> picture_files(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return make_error(ErrorCode::kNotFound, "[data] '{}' does not exist", path.string());
  if (!fs::is_directory(status)) return std::vector<std::string>{path.string()};
  std::vector<std::string> files;
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    std::error_code unknown;
    if (is_hidden(*it))
      it.disable_recursion_pending();
    else if (is_picture(*it) && !it->is_directory(unknown))
      files.push_back(it->path().string());
  }
  if (error) return make_error(ErrorCode::kIo, "[data] '{}': {}", path.string(), error.message());
  if (files.empty())
    return make_error(ErrorCode::kNotFound, "[data] '{}' has no .jpg, .jpeg or .png files", path.string());
  std::sort(files.begin(), files.end());
  return files;
}

Source image_folder_source() {
  std::vector<Key> keys = {
      {"folder",
       "one folder of .jpg, .jpeg or .png files for each class, or `train` and `test` (or `val`) that are such", "",
       true},
      {"test", "the folder of the test part; by default `test` or `val` of the folder, if there is one", ""},
      {"test_fraction", "without a folder for it: how much of all pictures becomes the test part, 0 for none", "0.1"},
      {"size", "pixels a side, which a picture covers, its middle cut out", "224"},
      {"channels", "3, or 1 for grey", "3"}};
  for (Key& k : split_keys()) keys.push_back(std::move(k));
  return {"image-folder",    "JPEG and PNG files, a folder for each class; decoded when they are read",
          std::move(keys),   "data:\n  name: image-folder\n  folder: photos\n  size: 128\n",
          open_image_folder, open_pictures};
}

}  // namespace deepseek::data
