// Pictures with labels in a CSV file: classes by name or number, or numbers to meet.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/strings.h"
#include "data/builtin_sources.h"
#include "data/csv.h"
#include "io/image.h"

namespace deepseek::data {
namespace {

namespace fs = std::filesystem;

Result<size_t> column_of(const Csv& csv, const std::string& name, const std::string& key, const std::string& path) {
  const auto it = std::find(csv.header.begin(), csv.header.end(), name);
  if (it != csv.header.end()) return static_cast<size_t>(it - csv.header.begin());
  return invalid("[data] '{}' has no column '{}'{}; it has: {}; name it by `{}`", path, name,
                 did_you_mean(name, csv.header), fmt::join(csv.header, ", "), key);
}

// Numbers in their order, else texts in theirs.
std::vector<std::string> classes_of(const std::vector<std::string>& labels) {
  std::vector<std::string> names = labels;
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (std::all_of(names.begin(), names.end(), [](const std::string& n) { return parse_number(n).has_value(); }))
    std::stable_sort(names.begin(), names.end(),
                     [](const auto& a, const auto& b) { return *parse_number(a) < *parse_number(b); });
  return names;
}

bool are_real(const std::vector<std::string>& names) {
  bool fraction = false;
  for (const std::string& n : names) {
    const std::optional<double> v = parse_number(n);
    if (!v) return false;
    fraction = fraction || *v != std::floor(*v);
  }
  return fraction;
}

}  // namespace

Result<DatasetPtr> load_image_labels(const ImageLabels& options, Field input, const graph::Dims& image,
                                     const std::vector<std::string>& known) {
  const std::string& path = options.csv;
  DS_ASSIGN(const Csv csv, read_csv(path));
  DS_ASSIGN(const size_t file_column, column_of(csv, options.file_column, "file_column", path));
  DS_ASSIGN(const size_t label_column, column_of(csv, options.label_column, "label_column", path));
  if (csv.rows.empty()) return make_error(ErrorCode::kDataCorrupt, "[data] '{}' has a header, but no rows", path);
  const fs::path folder = options.folder.empty() ? fs::path(path).parent_path() : fs::path(options.folder);
  std::vector<std::string> files, labels;
  for (size_t i = 0; i < csv.rows.size(); ++i) {
    const std::string& name = csv.rows[i][file_column];
    const std::string label(trim(csv.rows[i][label_column]));
    const fs::path file = folder / name;  // an absolute one stays as it is
    std::error_code error;
    if (name.empty() || !fs::exists(file, error))
      return make_error(
          ErrorCode::kNotFound,
          "[data] '{}', line {}: there is no file '{}'; paths are relative to `folder`, by default to the "
          "CSV's own",
          path, csv.lines[i], file.string());
    if (label.empty())
      return make_error(ErrorCode::kDataCorrupt,
                        "[data] '{}', line {}: '{}' has no {}; leave the row out, or fill it in", path, csv.lines[i],
                        name, options.label_column);
    files.push_back(file.string());
    labels.push_back(label);
  }
  const auto n = static_cast<int64_t>(labels.size());
  Field y;
  y.name = "y";
  y.role = Role::kTarget;
  graph::Tensor values;
  if (options.regression) {
    values = graph::Tensor(DType::kF32, {n});
    for (size_t i = 0; i < labels.size(); ++i) {
      const std::optional<double> v = parse_number(labels[i]);
      if (!v || !std::isfinite(static_cast<float>(*v)))
        return make_error(ErrorCode::kDataCorrupt, "[data] '{}', line {}: {} is '{}', expected a number to learn", path,
                          csv.lines[i], options.label_column, labels[i]);
      values.as<float>()[i] = static_cast<float>(*v);
    }
  } else {
    y.class_names = known.empty() ? classes_of(labels) : known;
    if (are_real(y.class_names))
      return invalid("[data] '{}': {} holds numbers such as {}; to learn them as such, say `task: regression`", path,
                     options.label_column, y.class_names.back());
    std::map<std::string_view, int64_t> codes;
    for (size_t c = 0; c < y.class_names.size(); ++c) codes.emplace(y.class_names[c], static_cast<int64_t>(c));
    values = graph::Tensor(DType::kI64, {n});
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto it = codes.find(labels[i]);
      if (it == codes.end())
        return make_error(ErrorCode::kDataCorrupt, "[data] '{}', line {}: '{}' is none of the classes {}", path,
                          csv.lines[i], labels[i], fmt::join(y.class_names, ", "));
      values.as<int64_t>()[i] = it->second;
    }
  }
  return PictureDataset::create(std::move(input), std::move(files), image, {std::move(y)}, {{"y", values}});
}

}  // namespace deepseek::data
