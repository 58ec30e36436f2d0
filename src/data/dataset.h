// A data set in memory, or of pictures on disk: inputs and targets with one row per sample, and how the inputs become
// normalised f32. Invariant: after validate() is ok, read() of indices in [0, size()) yields finite values, and fails
// only for a picture on disk that can't be decoded, which it names. Test: tests/data/dataset_test.cc
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::data {

struct Dataset {
  std::vector<std::string> class_names;  // empty for regression
  graph::Tensor inputs;                  // [N, ...] u8, f32 or i64; images are [N, C, H, W], i64 are indices (tokens)
  graph::Tensor targets;                 // i64 [N, ...] class labels, or f32 [N, ...]
  // x = (raw * scale - mean[c]) / stddev[c], with c the index on axis 1. One value serves all channels; an empty list
  // means 0 and 1. For u8 images scale is 1/255.
  double scale = 1.0;
  std::vector<double> mean;
  std::vector<double> stddev;
  // Instead of inputs: pictures on disk, JPEG or PNG, decoded when they are read and made to cover `image`, [C, H, W].
  std::vector<std::string> files;
  graph::Dims image;
  // The label of targets that do not count, as padding or unlabelled pixels do not; it may lie outside of the classes.
  std::optional<int64_t> ignored = {};

  int64_t size() const {
    if (!files.empty()) return static_cast<int64_t>(files.size());
    return inputs.defined() && !inputs.dims().empty() ? inputs.dims()[0] : 0;
  }
  // Of all inputs, [N, ...]; u8 for pictures on disk.
  graph::TensorType input_type() const;
  bool is_classification() const { return targets.defined() && targets.dtype() == DType::kI64; }
  int64_t num_classes() const { return static_cast<int64_t>(class_names.size()); }

  // Everything training relies on: samples exist, counts agree, dtypes and ranks fit, labels lie in
  // [0, class_names.size()) or are `ignored`, floats are finite, stddev is positive. The first fault is named with its
  // sample's index.
  Status validate() const;

  // x becomes f32 [n, ...] (i64 stays as it is) and y the targets' rows [n, ...] in the order of `indices`; both are
  // new tensors. Errors: kInvalidArgument for an index outside [0, size()).
  Status read(std::span<const int64_t> indices, graph::Tensor& x, graph::Tensor& y) const;

  // How many of `targets`, rows of this data set's, count: class labels that are not `ignored`, else rows.
  int64_t counted(const graph::Tensor& targets) const;

  // The samples at `indices` as a data set of their own (a copy), with the same names and normalisation.
  Result<Dataset> subset(std::span<const int64_t> indices) const;

  // The same with the inputs in memory: of pictures on disk, decoded.
  Result<Dataset> in_memory(std::span<const int64_t> indices) const;

  // Sets mean and stddev per channel from all samples, or kFitted of them, spread evenly, where they are on disk
  // (population deviation, floored at 1e-6 for constant channels).
  static constexpr int64_t kFitted = 512;
  Status fit_normalisation();
};

}  // namespace deepseek::data
