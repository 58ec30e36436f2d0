// Columns to be predicted: which are class labels and which numbers, and their values as a model's targets.
// Test: tests/tables/table_source_test.cc
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "tables/matrix.h"

namespace deepseek::tables {

struct Target {
  std::string column, field;  // of the table, and of the data set
  std::string type;           // in training data, as Arrow prints it
  bool classes = false;
  std::vector<std::string> class_names;  // text of the labels; numbers ascend as numbers

  data::Field describe() const;
  nlohmann::json to_json() const;
  // Throws nlohmann's errors.
  static Target from_json(const nlohmann::json& json);
};

// Whether a column's values are class labels. task: classification, regression, or auto: text and booleans are, floats
// are not, and integers are where there are two of them, or at most kLabels that are not negative, and each occurs twice
// on average. Errors: a type that is no target, numbers asked for of text.
constexpr int64_t kLabels = 20;
Result<bool> is_classification(const std::string& name, const Column& column, const std::string& task);

// The sorted distinct labels.
Result<std::vector<std::string>> labels_of(const std::string& name, const Column& column);

// The target of each row, i64 or f32 [rows]. Errors: a row without a value, a label that is none of class_names, a number
// that is not finite in f32.
Result<graph::Tensor> target_values(const Target& target, const Column& column, const NameRow& name_row);

}  // namespace deepseek::tables
