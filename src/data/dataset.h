// A data set is an interface: samples by index, each a set of named fields, inputs of a model or its targets. A batch is
// the named tensors of some samples. Invariant: after validate() is ok, read() of indices in [0, size()) yields finite
// values of the fields' types, the same ones each time, and fails only for what can't be decoded, which it names.
// Test: tests/data/dataset_test.cc
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::data {

// By field; axis 0 of each tensor is the samples.
using Batch = std::map<std::string, graph::Tensor>;

// What a field is to a model that learns from it.
enum class Role { kInput, kTarget };

// As models see floats: (raw * scale - mean[c]) / stddev[c], with c the index on axis 1 of the batch. One value serves
// all channels; an empty list means 0 and 1. For u8 images scale is 1/255.
struct Normalisation {
  double scale = 1.0;
  std::vector<double> mean, stddev;
  bool operator==(const Normalisation&) const = default;
};

struct Field {
  std::string name;  // without '/', '<' and '>', which names within graphs have
  Role role = Role::kInput;
  // Of one sample as it is stored: inputs u8, f32 or i64 (indices, such as tokens); images are [C, H, W]; targets i64
  // (class labels) or f32. -1 on an axis whose length differs from batch to batch.
  graph::TensorType sample;
  Normalisation normalisation;           // of inputs of u8 and f32
  std::vector<std::string> class_names;  // of class labels
  // The label of targets that do not count, as padding or unlabelled pixels do not; it may lie outside of the classes.
  std::optional<int64_t> ignored = {};

  bool is_classes() const { return role == Role::kTarget && sample.dtype == DType::kI64; }
  bool is_normalised() const {
    return role == Role::kInput && (sample.dtype == DType::kU8 || sample.dtype == DType::kF32);
  }
  int64_t num_classes() const { return static_cast<int64_t>(class_names.size()); }
  // What batches of n samples hold: inputs of u8 are f32 there.
  graph::TensorType batch_type(int64_t n) const;
};

// What a batch looks like, in the order of the fields.
struct BatchEntry {
  std::string name;
  graph::TensorType type;
  Role role = Role::kInput;
  bool operator==(const BatchEntry&) const = default;
};
using BatchType = std::vector<BatchEntry>;
// "x f32[64,1,28,28] -> y i64[64]": inputs, then targets.
std::string to_string(const BatchType& type);

class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual int64_t size() const = 0;
  const std::vector<Field>& fields() const { return fields_; }
  const Field* find(std::string_view name) const;  // nullptr where there is none
  std::vector<const Field*> inputs() const;
  std::vector<const Field*> targets() const;

  // Everything training relies on: fields have names that no other has, samples exist, dtypes and ranks fit, labels lie
  // in [0, num_classes) or are ignored, floats are finite, stddev is positive. The first fault is named with its field
  // and sample.
  Status validate() const;
  // The fields as they are stored, [n, ...], in the order of `indices`; new tensors. Errors: kInvalidArgument for an
  // index outside [0, size()).
  Result<Batch> read_raw(std::span<const int64_t> indices) const;
  // The targets alone, which cost little where inputs are decoded.
  Result<Batch> read_targets(std::span<const int64_t> indices) const;
  // All fields, with inputs normalised to f32.
  Result<Batch> read(std::span<const int64_t> indices) const;
  // Of a raw batch of this data set's fields; fields that the batch lacks are left out.
  Result<Batch> normalise(Batch raw) const;
  // Of a batch with all of this data set's fields and no others, raw, normalised or mixed.
  Result<BatchType> type_of(const Batch& batch) const;
  // How many of a batch's targets count: with one field of class labels those that are not ignored, else its samples.
  int64_t counted(const Batch& batch) const;

  // Paths of what samples are read from, one each, where they are files; else empty.
  virtual std::vector<std::string> files() const { return {}; }
  // JSON that says how raw data of this kind become this data set's inputs, for data::open_input(): source_spec(), and
  // under "fields" {name: {"scale": s, "mean": [...], "stddev": [...]}} for each input ({} for one of i64), with all of
  // the numbers' bits. "" where raw data come as arrays only.
  std::string input_spec() const;
  // Tells data sets apart: a checksum of the first samples (16 MiB), or of the files' names and all targets.
  virtual Result<uint32_t> checksum() const;

 protected:
  explicit Dataset(std::vector<Field> fields) : fields_(std::move(fields)) {}
  // Rows of valid indices: new tensors of all fields; others are dropped.
  virtual Result<Batch> rows(std::span<const int64_t> indices) const = 0;
  // Of the targets at least.
  virtual Result<Batch> target_rows(std::span<const int64_t> indices) const { return rows(indices); }
  // Of the samples themselves; the fields' descriptions have been checked. By default reads what may be wrong, part by
  // part, until that has gone well once.
  virtual Status check() const;
  // A JSON object {"source": a name of data::sources(), ...}, whose other keys (but "fields") are what that source's
  // open_input() needs to know; "" where there is none.
  virtual std::string source_spec() const { return ""; }

  std::vector<Field> fields_;

 private:
  Result<Batch> checked(Result<Batch> batch, int64_t n, bool targets_only) const;
  mutable std::atomic<bool> has_passed_ = false;

  friend class DatasetView;
};
using DatasetPtr = std::shared_ptr<const Dataset>;

// What data sets are made of. Of rows of a field: labels and finite numbers, as validate() promises them; `first` is the
// number of the first row, for messages.
Status check_values(const Field& field, const graph::Tensor& rows, int64_t first = 0);
// A new tensor; the indices are valid.
graph::Tensor gather_rows(const graph::Tensor& from, std::span<const int64_t> indices);

// Tensors [N, ...] in memory, one per field. Not copied.
class ArrayDataset final : public Dataset {
 public:
  // `fields`: their types are taken from the tensors of their names. Errors: a field without a tensor and the other way
  // round, a tensor without an axis of samples, counts that differ; validate() finds the rest. `source_spec`: what
  // source_spec() says.
  static Result<DatasetPtr> create(std::vector<Field> fields, Batch tensors, std::string source_spec = "");

  int64_t size() const override { return size_; }
  const Batch& tensors() const { return tensors_; }
  std::string source_spec() const override { return source_spec_; }

 protected:
  Result<Batch> rows(std::span<const int64_t> indices) const override;
  Result<Batch> target_rows(std::span<const int64_t> indices) const override;
  Status check() const override;

 private:
  ArrayDataset(std::vector<Field> fields, Batch tensors, int64_t size, std::string source_spec);
  Batch tensors_;
  int64_t size_;
  std::string source_spec_;
};

// Pictures on disk, JPEG, PNG or WebP, decoded when they are read and made to cover `image`, [C, H, W]: one input field of u8,
// and targets in memory.
class PictureDataset final : public Dataset {
 public:
  // `input`: name and normalisation of the pictures. `targets` may be empty. Errors: as of ArrayDataset::create(), and
  // an `image` that is not [1 or 3, height, width].
  static Result<DatasetPtr> create(Field input, std::vector<std::string> files, graph::Dims image,
                                   std::vector<Field> targets, Batch target_tensors);

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  std::vector<std::string> files() const override { return files_; }
  const graph::Dims& image() const { return image_; }
  const Batch& target_tensors() const { return targets_; }

 protected:
  Result<Batch> rows(std::span<const int64_t> indices) const override;
  Result<Batch> target_rows(std::span<const int64_t> indices) const override;
  Status check() const override;
  // {"source": "image-folder", "size": H, "width": W, "channels": C, "field": name}
  std::string source_spec() const override;

 private:
  PictureDataset(std::vector<Field> fields, std::vector<std::string> files, graph::Dims image, Batch targets);
  std::vector<std::string> files_;
  graph::Dims image_;
  Batch targets_;
};

// Some samples of another data set, or the same ones with fields described otherwise: another normalisation, other
// ignored labels, fewer fields. Views of views are flat.
class DatasetView final : public Dataset {
 public:
  static std::shared_ptr<DatasetView> all(DatasetPtr base);
  // The samples at `indices`, in this order. Errors: kInvalidArgument for an index outside of the base.
  static Result<DatasetPtr> subset(const DatasetPtr& base, std::span<const int64_t> indices);
  // `fields`: the base's by name, changed in all but their types, or fewer of them. Errors: a name that the base lacks, a
  // type that isn't its.
  static Result<DatasetPtr> with_fields(const DatasetPtr& base, std::vector<Field> fields);

  int64_t size() const override;
  std::vector<std::string> files() const override;
  const DatasetPtr& base() const { return base_; }
  const std::optional<std::vector<int64_t>>& indices() const { return indices_; }  // in the base; none: all

 protected:
  Result<Batch> rows(std::span<const int64_t> indices) const override;
  Result<Batch> target_rows(std::span<const int64_t> indices) const override;
  std::string source_spec() const override { return base_->source_spec(); }

 private:
  DatasetView(DatasetPtr base, std::optional<std::vector<int64_t>> indices, std::vector<Field> fields);
  std::vector<int64_t> in_base(std::span<const int64_t> indices) const;
  DatasetPtr base_;
  std::optional<std::vector<int64_t>> indices_;
};

// Mean and stddev per channel of each input of u8 or f32, from all samples, or kFitted of them, spread evenly, where
// they are on disk (population deviation, floored at 1e-6 for constant channels); a view with those fields. Without such
// inputs the data set itself. Errors: those of validate().
inline constexpr int64_t kFitted = 512;
Result<DatasetPtr> fit_normalisation(const DatasetPtr& dataset);

// 0, 1, ..., n - 1.
std::vector<int64_t> all_rows(int64_t n);

}  // namespace deepseek::data
