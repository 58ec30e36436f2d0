// Folders of pictures: one for each class to learn from, any to predict.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/strings.h"
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

// Which files are pictures: those of the endings that were asked for, else those that we read.
class Chosen {
 public:
  // Errors: an ending that holds more than letters and digits.
  static Result<Chosen> from(const Params& params) {
    Chosen out;
    for (const std::string& e : list(params, "extensions")) {
      const std::string ending = lower(e.starts_with('.') ? e : "." + e);
      if (ending.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789", 1) != ending.npos || ending.size() < 2)
        return invalid("[data] extensions: '{}' is no ending of a file's name, such as jpg", e);
      out.endings_.push_back(ending);
    }
    return out;
  }
  bool operator()(const fs::directory_entry& entry) const {
    const std::string name = lower(entry.path().filename().string());
    if (name.starts_with('.')) return false;
    if (endings_.empty()) return io::is_image_name(name);
    return std::any_of(endings_.begin(), endings_.end(), [&](const std::string& e) { return name.ends_with(e); });
  }
  std::string text() const { return endings_.empty() ? std::string(io::kImageEndings) : join(endings_, ", "); }
  // Pictures that nobody would read are not passed over in silence.
  Status check_others(const fs::path& folder) const {
    if (!endings_.empty()) return {};
    DS_ASSIGN(const std::vector<std::string> others, names_in(folder, [](const fs::directory_entry& e) {
                return !is_hidden(e) && !io::foreign_image_ending(e.path().filename().string()).empty();
              }));
    if (others.empty()) return {};
    return make_error(ErrorCode::kUnsupported,
                      "[data] '{}' has {} pictures such as '{}', which are not read; convert them, with Pillow by "
                      "Image.open(path).convert('RGB').save('new.png'), or say which to take: `extensions: [jpg, png]`",
                      folder.string(), others.size(), others[0]);
  }

 private:
  std::vector<std::string> endings_;
};

// One folder per class, as torchvision's ImageFolder reads them: classes and files in the order of their names.
Result<DatasetPtr> load_image_folder(const fs::path& folder, const graph::Dims& image, const Chosen& is_chosen) {
  Field y;
  y.name = "y";
  y.role = Role::kTarget;
  DS_ASSIGN(y.class_names, names_in(folder, is_folder));
  if (y.class_names.empty()) {
    DS_ASSIGN(const std::vector<std::string> files, names_in(folder, is_chosen));
    return make_error(
        ErrorCode::kNotFound, "[data] '{}' has no folders{}; expected one for each class, or a CSV of `labels`",
        folder.string(), files.empty() ? "" : fmt::format(", but {} pictures without a label", files.size()));
  }
  std::vector<int64_t> labels;
  std::vector<std::string> paths;
  for (size_t c = 0; c < y.class_names.size(); ++c) {
    const fs::path part = folder / y.class_names[c];
    DS_TRY(is_chosen.check_others(part));
    DS_ASSIGN(const std::vector<std::string> files, names_in(part, is_chosen));
    if (files.empty())
      return make_error(ErrorCode::kNotFound, "[data] '{}' has no {} files", part.string(), is_chosen.text());
    for (const std::string& name : files) {
      paths.push_back((part / name).string());
      labels.push_back(static_cast<int64_t>(c));
    }
  }
  Batch targets;
  targets["y"] = graph::Tensor::from<int64_t>(DType::kI64, {static_cast<int64_t>(labels.size())}, labels);
  return PictureDataset::create(picture_field("x"), std::move(paths), image, {std::move(y)}, std::move(targets));
}

// The training part and, where `test` says so, the test part of what CSV files list.
Result<Splits> open_labels(const Params& params, const graph::Dims& image) {
  ImageLabels options;
  options.csv = params.at("labels");
  options.folder = text(params, "folder", "");
  options.file_column = text(params, "file_column", options.file_column);
  options.label_column = text(params, "label_column", options.label_column);
  const std::string task = text(params, "task", "classes");
  if (task != "classes" && task != "regression")
    return invalid("[data] task is '{}', expected classes or regression", task);
  options.regression = task == "regression";
  DS_ASSIGN(const DatasetPtr all, load_image_labels(options, picture_field("x"), image, {}));
  const std::string test = text(params, "test", "");
  if (test.empty()) {
    DS_ASSIGN(HeldOut held, hold_out(all, params));
    return split(held.rest, std::move(held.test), params);
  }
  options.csv = test;
  DS_ASSIGN(DatasetPtr held_out, load_image_labels(options, picture_field("x"), image, all->find("y")->class_names));
  return split(all, std::move(held_out), params);
}

Result<Splits> open_image_folder(const Params& params) {
  const fs::path folder = text(params, "folder", "");
  DS_ASSIGN(const int64_t size, number<int64_t>(params, "size", 224));
  DS_ASSIGN(const int64_t channels, number<int64_t>(params, "channels", 3));
  if (size < 1 || size > kMaxPixels)
    return invalid("[data] size is {}, expected pixels between 1 and {}", size, kMaxPixels);
  if (channels != 1 && channels != 3) return invalid("[data] channels is {}, expected 1 or 3", channels);
  const graph::Dims image = {channels, size, size};
  if (params.contains("labels")) {
    if (params.contains("extensions"))
      return invalid("[data] extensions choose files of folders, but `labels` lists them; leave one out");
    return open_labels(params, image);
  }
  for (const char* key : {"file_column", "label_column", "task"})
    if (params.contains(key)) return invalid("[data] {} is of `labels`, a CSV file, which isn't given", key);
  if (folder.empty()) return invalid("[data] data set 'image-folder' needs `folder`, or `labels`, a CSV file");
  DS_ASSIGN(const Chosen is_chosen, Chosen::from(params));
  std::error_code error;
  const bool parts = fs::is_directory(folder / "train", error);
  const fs::path train = parts ? folder / "train" : folder;
  DS_ASSIGN(const DatasetPtr all, load_image_folder(train, image, is_chosen));
  fs::path test = text(params, "test", "");
  for (const char* name : {"test", "val"})
    if (parts && test.empty() && fs::is_directory(folder / name, error)) test = folder / name;
  if (!test.empty()) {
    DS_ASSIGN(DatasetPtr held_out, load_image_folder(test, image, is_chosen));
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
    return make_error(ErrorCode::kNotFound,
                      "[data] '{}' has no {} files; a file of another name is read where it is given itself",
                      path.string(), io::kImageEndings);
  std::sort(files.begin(), files.end());
  return files;
}

Source image_folder_source() {
  std::vector<Key> keys = {
      {"folder",
       "one folder of .jpg, .jpeg, .png or .webp files for each class, or `train` and `test` (or `val`) that are such; "
       "with `labels`, where paths begin",
       ""},
      {"labels", "instead of folders for classes: a CSV file that lists pictures with their labels", ""},
      {"file_column", "of `labels`: the column of paths", "file"},
      {"label_column", "of `labels`: the column of labels", "label"},
      {"task", "of `labels`: classes, or regression for numbers to learn", "classes"},
      {"extensions",
       "which files of folders are pictures, by the ends of their names; content decides how they are read",
       "jpg, jpeg, png, webp"},
      {"test",
       "the folder of the test part, by default `test` or `val` of the folder, if there is one; with `labels` a CSV file",
       ""},
      {"test_fraction", "without a folder for it: how much of all pictures becomes the test part, 0 for none", "0.1"},
      {"size", "pixels a side, which a picture covers, its middle cut out", "224"},
      {"channels", "3, or 1 for grey", "3"}};
  for (Key& k : split_keys()) keys.push_back(std::move(k));
  return {
      "image-folder",
      "JPEG, PNG and WebP files, in a folder for each class or with labels in a CSV file; decoded when they are read, turned as "
      "Exif says, 16 bits as 8",
      std::move(keys),
      "data:\n  name: image-folder\n  folder: photos\n  size: 128\n",
      open_image_folder,
      open_pictures};
}

}  // namespace deepseek::data
