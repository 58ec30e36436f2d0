#include "tables/targets.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/strings.h"
#include "tables/columns.h"
#include "tables/selection.h"

namespace deepseek::tables {
namespace {

// "3" of 3.0, so that it is the label 3 of integers.
std::string label_of(double value) {
  return value == std::trunc(value) && std::fabs(value) < 1e15 ? fmt::format("{:.0f}", value)
                                                               : fmt::format("{}", value);
}

// f(row, label) of each row that has one.
template <class F>
Status each_label(const std::string& name, const Column& column, F f) {
  if (arrow::is_floating(column->type()->id())) {
    DS_ASSIGN(const std::vector<double> values, values_of(name, column, "target"));
    for (size_t i = 0; i < values.size(); ++i)
      if (!std::isnan(values[i])) f(static_cast<int64_t>(i), label_of(values[i]));
    return {};
  }
  DS_ASSIGN(const Column text, as_text(column));
  int64_t row = 0;
  for (const auto& chunk : text->chunks()) {
    const auto& words = static_cast<const arrow::StringArray&>(*chunk);
    for (int64_t i = 0; i < words.length(); ++i, ++row)
      if (words.IsValid(i)) f(row, words.GetView(i));
  }
  return {};
}

}  // namespace

data::Field Target::describe() const {
  data::Field f;
  f.name = field;
  f.role = data::Role::kTarget;
  f.class_names = class_names;
  return f;
}

nlohmann::json Target::to_json() const {
  nlohmann::json json = {
      {"column", column}, {"field", field}, {"type", type}, {"task", classes ? "classification" : "regression"}};
  if (classes) json["classes"] = class_names;
  return json;
}

Target Target::from_json(const nlohmann::json& json) {
  Target t{json.at("column").get<std::string>(),
           json.at("field").get<std::string>(),
           json.at("type").get<std::string>(),
           json.at("task") == "classification",
           {}};
  if (t.classes) t.class_names = json.at("classes").get<std::vector<std::string>>();
  return t;
}

Result<bool> is_classification(const std::string& name, const Column& column, const std::string& task) {
  const arrow::DataType& type = *column->type();
  if (!holds_values(type))
    return invalid("[data] target '{}' is {}, expected numbers, text or booleans", name, type.ToString());
  if (task == "classification") return true;
  if (task == "regression") {
    if (!holds_text(type)) return false;
    return invalid("[data] target '{}' is text, expected numbers for regression; classification predicts text", name);
  }
  if (!arrow::is_integer(type.id())) return holds_categories(type);
  DS_ASSIGN(const std::vector<double> values, values_of(name, column, "target"));
  std::set<double> distinct;
  for (const double v : values) {
    distinct.insert(v);
    if (static_cast<int64_t>(distinct.size()) > kLabels) return false;
  }
  const bool few = distinct.size() == 2 || (!distinct.empty() && *distinct.begin() >= 0);
  return few && 2 * distinct.size() <= values.size();
}

Result<std::vector<std::string>> labels_of(const std::string& name, const Column& column) {
  std::set<std::string, std::less<>> distinct;
  DS_TRY(each_label(name, column, [&](int64_t, std::string_view label) {
    if (distinct.find(label) == distinct.end()) distinct.emplace(label);
  }));
  std::vector<std::string> labels(distinct.begin(), distinct.end());
  if (holds_numbers(*column->type()))
    std::stable_sort(labels.begin(), labels.end(), [](const std::string& a, const std::string& b) {
      return parse_number(a).value_or(0) < parse_number(b).value_or(0);
    });
  return labels;
}

Result<graph::Tensor> target_values(const Target& target, const Column& column, const NameRow& name_row) {
  const int64_t rows = column->length();
  const auto without = [&](int64_t row) {
    return make_error(ErrorCode::kDataCorrupt, "[data] target '{}' has no value in {}", target.column, name_row(row));
  };
  if (!target.classes) {
    DS_ASSIGN(const std::vector<double> values, values_of(target.column, column, "target"));
    graph::Tensor out(DType::kF32, {rows});
    for (int64_t i = 0; i < rows; ++i) {
      const double value = values[static_cast<size_t>(i)];
      if (std::isnan(value)) return without(i);
      out.as<float>()[i] = static_cast<float>(value);
      if (!std::isfinite(out.as<float>()[i]))
        return make_error(ErrorCode::kDataCorrupt,
                          "[data] target '{}' is {} in {}, expected finite numbers of f32; leave the row out, or scale "
                          "the column before",
                          target.column, value, name_row(i));
    }
    return out;
  }
  std::map<std::string, int64_t, std::less<>> numbers;
  for (size_t i = 0; i < target.class_names.size(); ++i) numbers[target.class_names[i]] = static_cast<int64_t>(i);
  graph::Tensor out = graph::Tensor::full(DType::kI64, {rows}, -1);
  std::map<std::string, int64_t> unknown;  // and the first row of each
  DS_TRY(each_label(target.column, column, [&](int64_t row, std::string_view label) {
    const auto found = numbers.find(label);
    if (found == numbers.end())
      unknown.emplace(label, row);
    else
      out.as<int64_t>()[row] = found->second;
  }));
  if (!unknown.empty()) {
    constexpr size_t kShown = 5;
    std::vector<std::string> shown;
    for (const auto& [label, row] : unknown)
      if (shown.size() < kShown) shown.push_back(fmt::format("'{}' in {}", label, name_row(row)));
    return make_error(ErrorCode::kDataCorrupt, "[data] target '{}' has {} that training data lacks: {}{}",
                      target.column, unknown.size() == 1 ? "a label" : fmt::format("{} labels", unknown.size()),
                      join(shown, ", "), unknown.size() > kShown ? ", ..." : "");
  }
  const int64_t* const first = out.as<int64_t>();
  if (const int64_t* const none = std::find(first, first + rows, -1); none != first + rows)
    return without(none - first);
  return out;
}

}  // namespace deepseek::tables
