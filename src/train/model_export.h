// A trained module as a model file: its evaluating graph, its weights, and what the training data say of raw inputs and
// of classes. Test: tests/train/model_export_test.cc, tests/python/test_model_file.py
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "infer/model_file.h"
#include "nn/module.h"
#include "train/loss.h"

namespace deepseek::train {

// What a model file keeps of the data that a model was trained on.
struct DataSummary {
  std::vector<data::Field> fields;
  std::string input_spec;  // of data::Dataset
  std::string fingerprint;
};
Result<DataSummary> summarise(const data::Dataset& dataset);

// `weights`: values for the module's tensors by name, its own where empty. `tasks`: of each target, where known.
// `provenance` is added to the version, the time and the data's fingerprint. The batch's size is free where the model
// treats all sizes alike, else it is 1. Errors: of tracing; kUnsupported for a model that changes state or draws random
// numbers when it evaluates.
Result<infer::ModelFile> export_model(nn::Module& model, const DataSummary& data,
                                      const std::map<std::string, graph::Tensor>& weights,
                                      const std::map<std::string, Task>& tasks,
                                      std::map<std::string, std::string> provenance);

}  // namespace deepseek::train
