// Arrays in NumPy's files as data sets: the arrays of an .npz by their names, or one .npy for each.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "data/array_fields.h"
#include "data/builtin_sources.h"
#include "io/npy.h"

namespace deepseek::data {
namespace {

using graph::Tensor;
using io::NpyArray;
using Json = nlohmann::ordered_json;
using Arrays = std::map<std::string, NpyArray>;

constexpr int64_t kMostClasses = 1'000'000;  // that are named by their numbers

std::string names_of(const Arrays& arrays) {
  std::vector<std::string> names;
  for (const auto& [name, array] : arrays) names.push_back(name);
  return join(names, ", ");
}

// What a file holds, by its first bytes; a single array is called `single`.
Result<Arrays> load_file(const std::string& path, const std::string& single) {
  std::array<std::byte, 8> start;
  DS_ASSIGN(const OpenFile opened, open_file(path));
  DS_ASSIGN(const size_t got, read_at(opened, 0, start, path));
  const std::span<const std::byte> bytes = std::span(start).first(got);
  if (io::is_npz(bytes)) return io::load_npz(path);
  if (!io::is_npy(bytes))
    return make_error(ErrorCode::kDataCorrupt,
                      "[data] '{}' is no file of arrays, expected .npy or .npz as np.save and np.savez write them",
                      path);
  DS_ASSIGN(NpyArray array, io::load_npy(path));
  Arrays out;
  out.emplace(single, std::move(array));
  return out;
}

bool is_path(const std::string& text) { return text.ends_with(".npy"); }

// A list of names or paths, or a map of names to them: by which name, from where.
using Chosen = std::vector<std::pair<std::string, std::string>>;
Result<Chosen> chosen(const Params& params, const std::string& key, const std::string& single) {
  Chosen out;
  if (const std::string value = text(params, key, ""); value.starts_with("{")) {
    const Json map = parse_json<Json>(value, false);
    if (!map.is_object()) return invalid("[data] {} is {}, expected names and where they are", key, value);
    for (const auto& [name, from] : map.items()) {
      if (!from.is_string())
        return invalid("[data] {}: '{}' is {}, expected the name of an array or of a file", key, name, dump_json(from));
      out.emplace_back(name, from.get<std::string>());
    }
    return out;
  }
  const std::vector<std::string> all = list(params, key);
  for (const std::string& from : all) {
    const std::string stem = is_path(from) ? std::filesystem::path(from).stem().string() : from;
    out.emplace_back(is_path(from) && all.size() == 1 ? single : stem, from);
  }
  return out;
}

// The arrays that were chosen, under their new names.
Result<Arrays> take(const Chosen& chosen, const Arrays& from, const std::string& file) {
  Arrays out;
  for (const auto& [name, source] : chosen) {
    NpyArray array;
    if (const auto it = from.find(source); it != from.end()) {
      array = it->second;
    } else if (is_path(source)) {
      DS_ASSIGN(array, io::load_npy(source));
    } else {
      std::vector<std::string> names;
      for (const auto& [other, unused] : from) names.push_back(other);
      return invalid("[data] {} has no array '{}'{}; {}", file.empty() ? "the config" : "'" + file + "'", source,
                     did_you_mean(source, names),
                     names.empty() ? "give the path of an .npy file, or `file`" : "it has: " + join(names, ", "));
    }
    if (!out.emplace(name, std::move(array)).second) return invalid("[data] two arrays are named '{}'", name);
  }
  return out;
}

bool is_target_name(const std::string& name) {
  const std::string n = lower(name);
  return n == "y" || n == "label" || n == "labels" || n == "target" || n == "targets";
}

// x_train or train_images, as Keras's and MedMNIST's archives have them: the part and the name without it.
std::optional<std::pair<std::string, std::string>> part_of(const std::string& name) {
  for (const auto& [marker, part] :
       {std::pair("train", "train"), std::pair("validation", "validation"), std::pair("valid", "validation"),
        std::pair("val", "validation"), std::pair("test", "test")}) {
    const std::string before = std::string(marker) + "_", after = "_" + std::string(marker);
    if (name.starts_with(before) && name.size() > before.size()) return {{part, name.substr(before.size())}};
    if (name.ends_with(after) && name.size() > after.size())
      return {{part, name.substr(0, name.size() - after.size())}};
  }
  return std::nullopt;
}

// By part, where every array says to which it belongs; else all are "train".
std::map<std::string, Arrays> by_part(const Arrays& all) {
  std::map<std::string, Arrays> parts;
  for (const auto& [name, array] : all) {
    const auto part = part_of(name);
    if (!part) return {{"train", all}};
    parts[part->first][part->second] = array;
  }
  if (!parts.contains("train")) return {{"train", all}};
  return parts;
}

class Opening {
 public:
  explicit Opening(const Params& params) : params_(params) {}

  Result<Splits> run() {
    DS_TRY(read_options());
    DS_TRY(read_training());
    for (const auto& [name, array] : parts_["train"]) {
      if (!is_target(name)) {
        DS_ASSIGN(inputs_.emplace_back(), describe_input(name, array, layout_));
      } else {
        DS_TRY(describe_target(name, array));
      }
    }
    if (inputs_.empty()) return invalid("[data] there are no inputs beside the targets; name them: `inputs: [...]`");
    const std::string file = text(params_, "file", "");
    DS_ASSIGN(DatasetPtr train, dataset(parts_["train"], file.empty() ? "the training data" : "'" + file + "'"));
    DatasetPtr test, validation;
    if (const auto it = parts_.find("test"); it != parts_.end()) {
      DS_ASSIGN(test, dataset(it->second, "the test data"));
    } else {
      DS_ASSIGN(HeldOut held, hold_out(train, params_));
      train = held.rest;
      test = held.test;
    }
    Params params = params_;
    if (const auto it = parts_.find("validation"); it != parts_.end()) {
      DS_ASSIGN(validation, dataset(it->second, "the validation data"));
      params["validation_fraction"] = "0";
    }
    DS_ASSIGN(Splits out, split(train, test, params, normalise_));
    if (validation) {
      DS_ASSIGN(out.validation, DatasetView::with_fields(validation, out.train->fields()));
    }
    return out;
  }

 private:
  Status read_options() {
    const std::string normalise = text(params_, "normalise", "auto");
    if (normalise != "auto" && normalise != "none")
      return invalid("[data] normalise is '{}', expected auto or none", normalise);
    normalise_ = normalise == "auto";
    layout_ = text(params_, "layout", "auto");
    if (layout_ != "auto" && layout_ != "channels_last" && layout_ != "as_is")
      return invalid("[data] layout is '{}', expected auto, channels_last or as_is", layout_);
    task_ = text(params_, "task", "auto");
    if (task_ != "auto" && task_ != "classes" && task_ != "regression")
      return invalid("[data] task is '{}', expected auto, classes or regression", task_);
    if (params_.contains("ignore_index")) {
      DS_ASSIGN(ignored_, number<int64_t>(params_, "ignore_index", 0));
    }
    return {};
  }

  bool is_target(const std::string& name) const {
    return std::any_of(targets_.begin(), targets_.end(), [&](const auto& t) { return t.first == name; });
  }

  // parts_, with the arrays under the names of their fields.
  Status read_training() {
    const std::string file = text(params_, "file", "");
    DS_ASSIGN(Chosen inputs, chosen(params_, "inputs", "x"));
    DS_ASSIGN(targets_, chosen(params_, "targets", "y"));
    if (file.empty() && inputs.empty())
      return invalid("[data] data set 'arrays' needs `file`, an .npz, or `inputs` and `targets`, an .npy each");
    std::map<std::string, Arrays> parts = {{"train", {}}};
    if (!file.empty()) {
      DS_ASSIGN(const Arrays all, load_file(file, "x"));
      parts = by_part(all);
    }
    for (const auto& [name, array] : parts["train"])
      if (!params_.contains("targets") && is_target_name(name)) targets_.emplace_back(name, name);
    if (targets_.empty())
      return invalid("[data] none of the arrays is a target{}; name it: `targets: [...]`, or `targets: {{y: y.npy}}`",
                     file.empty() ? "" : " (there are: " + names_of(parts["train"]) + ")");
    if (!params_.contains("inputs"))
      for (const auto& [name, array] : parts["train"])
        if (std::none_of(targets_.begin(), targets_.end(), [&, &n = name](const auto& t) { return t.second == n; }))
          inputs.emplace_back(name, name);
    Chosen all = inputs;
    all.insert(all.end(), targets_.begin(), targets_.end());
    for (const auto& [part, arrays] : parts) {
      DS_ASSIGN(parts_[part], take(all, arrays, file));
    }
    const std::string test = text(params_, "test", "");
    if (test.empty()) return {};
    if (parts_.contains("test")) return invalid("[data] '{}' has arrays for the test already; leave out `test`", file);
    if (!test.starts_with("{")) {
      DS_ASSIGN(const Arrays from, load_file(test, "x"));
      DS_ASSIGN(parts_["test"], take(all, from, test));
      return {};
    }
    DS_ASSIGN(const Chosen paths, chosen(params_, "test", "x"));
    DS_ASSIGN(parts_["test"], take(paths, {}, ""));
    for (const auto& [name, from] : all)
      if (!parts_["test"].contains(name)) return invalid("[data] test lacks '{}', which the training data have", name);
    return {};
  }

  // Of the only target, or by name.
  Result<std::vector<std::string>> class_names_of(const std::string& name) const {
    const std::string value = text(params_, "class_names", "");
    if (!value.starts_with("{")) {
      if (!value.empty() && targets_.size() > 1)
        return invalid("[data] class_names is a list, but there are {} targets; expected lists by their names",
                       targets_.size());
      return list(params_, "class_names");
    }
    const Json map = parse_json<Json>(value, false);
    std::vector<std::string> out;
    if (!map.is_object()) return invalid("[data] class_names is {}, expected lists by the targets' names", value);
    for (const auto& [target, unused] : map.items())
      if (!is_target(target)) return invalid("[data] class_names: there is no target '{}'", target);
    if (!map.contains(name)) return out;
    if (!map[name].is_array())
      return invalid("[data] class_names of '{}' is {}, expected a list", name, dump_json(map[name]));
    for (const Json& c : map[name]) out.push_back(c.is_string() ? c.get<std::string>() : dump_json(c));
    return out;
  }

  Status describe_target(const std::string& name, const NpyArray& a) {
    Field f;
    f.name = name;
    f.role = Role::kTarget;
    if (a.is_text() && task_ == "regression") return invalid("[data] '{}' is text, and no number to learn", name);
    const bool classes = a.is_text() || task_ == "classes" || (task_ == "auto" && !is_float(a.values.dtype()));
    classes_[name] = classes;
    if (classes) {
      f.ignored = ignored_;
      DS_ASSIGN(f.class_names, class_names_of(name));
      if (f.class_names.empty()) DS_TRY(name_classes(f, a));
    }
    fields_of_targets_.push_back(std::move(f));
    return {};
  }

  // Texts in their order, numbers up to the largest.
  Status name_classes(Field& f, const NpyArray& a) const {
    if (a.is_text()) {
      f.class_names = a.texts;
      std::sort(f.class_names.begin(), f.class_names.end());
      f.class_names.erase(std::unique(f.class_names.begin(), f.class_names.end()), f.class_names.end());
      if (static_cast<int64_t>(f.class_names.size()) <= kMostClasses) return {};
      return invalid("[data] '{}' has {} different texts; are they labels?", f.name, f.class_names.size());
    }
    DS_ASSIGN(const Tensor labels, target_tensor(f, true, a, "the training data"));
    int64_t last = 0;
    for (int64_t i = 0; i < labels.num_elements(); ++i)
      if (const int64_t label = labels.as<int64_t>()[i]; label != f.ignored) last = std::max(last, label);
    if (last >= kMostClasses)
      return invalid(
          "[data] '{}': label {} would be one of {} classes; number the classes 0, 1, 2, ..., give class_names, or say "
          "`task: regression`",
          f.name, last, last + 1);
    for (int64_t i = 0; i <= last; ++i) f.class_names.push_back(std::to_string(i));
    return {};
  }

  Result<DatasetPtr> dataset(const Arrays& arrays, const std::string& where) const {
    std::vector<Field> fields;
    Batch tensors;
    for (const ArrayInput& in : inputs_) {
      DS_ASSIGN(tensors[in.name], input_tensor(in, arrays.at(in.name), where));
      Field f;
      f.name = in.name;
      if (in.sample.dtype == DType::kU8 && normalise_) f.normalisation.scale = 1.0 / 255.0;
      fields.push_back(std::move(f));
    }
    for (const Field& f : fields_of_targets_) {
      DS_ASSIGN(tensors[f.name], target_tensor(f, classes_.at(f.name), arrays.at(f.name), where));
      fields.push_back(f);
    }
    Result<DatasetPtr> out = ArrayDataset::create(std::move(fields), std::move(tensors), to_spec(inputs_));
    if (!out.ok()) return std::move(out).status().note("of " + where);
    return out;
  }

  const Params& params_;
  bool normalise_ = true;
  std::string layout_, task_;
  std::optional<int64_t> ignored_;
  Chosen targets_;
  std::map<std::string, Arrays> parts_;
  std::vector<ArrayInput> inputs_;
  std::vector<Field> fields_of_targets_;
  std::map<std::string, bool> classes_;
};

Result<Splits> open(const Params& params) { return Opening(params).run(); }

Result<Input> open_arrays(const std::string& spec, const std::string& path) {
  DS_ASSIGN(const std::vector<ArrayInput> inputs, from_spec(spec));
  DS_ASSIGN(const Arrays arrays, load_file(path, inputs[0].name));
  Batch tensors;
  std::vector<Field> fields;
  for (const ArrayInput& in : inputs) {
    auto it = arrays.find(in.name);
    if (it == arrays.end() && inputs.size() == 1 && arrays.size() == 1) it = arrays.begin();
    if (it == arrays.end())
      return invalid("[data] '{}' has no array '{}', which is an input of the model; it has: {}", path, in.name,
                     names_of(arrays));
    DS_ASSIGN(tensors[in.name], input_tensor(in, it->second, "'" + path + "'"));
    fields.emplace_back().name = in.name;
  }
  Input out;
  DS_ASSIGN(out.data, ArrayDataset::create(std::move(fields), std::move(tensors)));
  for (int64_t i = 0; i < out.data->size(); ++i) out.labels.push_back(std::to_string(i));
  return out;
}

}  // namespace

Source array_source() {
  std::vector<Key> keys = {
      {"file",
       "an .npz, whose arrays [N, ...] keep their names; x_train and x_test, or train_x and test_x, are parts of x",
       ""},
      {"inputs",
       "which arrays are inputs: names, .npy files, or a map of names to either; by default all that are no targets",
       ""},
      {"targets", "the same of targets; by default y, label, labels, target, targets", ""},
      {"test", "another .npz, or a map of names to .npy files, as the test part", ""},
      {"test_fraction", "without one: how much of all samples becomes the test part, 0 for none", "0.1"},
      {"task", "auto: whole numbers and text are class labels, real numbers are to be met; classes; regression",
       "auto"},
      {"class_names", "of numbered classes, or the order of text; a list, with several targets a map of lists", ""},
      {"ignore_index", "the label of targets that do not count", ""},
      {"normalise", "auto: mean 0 and deviation 1 on axis 1, from the training part, for real inputs and bytes; none",
       "auto"},
      {"layout",
       "auto: bytes [N,H,W] and [N,H,W,C] with 1, 3 or 4 channels become images [N,C,H,W]; channels_last: all of four "
       "axes; as_is",
       "auto"}};
  for (Key& k : split_keys()) keys.push_back(std::move(k));
  return {"arrays",
          "arrays in NumPy's files, .npz or .npy; large .npy files are mapped and not read",
          std::move(keys),
          "data:\n  name: arrays\n  file: data.npz\n  inputs: [image, table]\n  targets: [kind]\n",
          open,
          open_arrays};
}

}  // namespace deepseek::data
