// A data set whose samples Python gives, one call for those of a batch. Invariant: the interpreter's lock is held while
// Python's objects are touched, on whichever thread a batch is made. Test: tests/python/test_given_data.py
#pragma once

#include <memory>
#include <vector>

#include "binding.h"
#include "data/dataset.h"

namespace deepseek::python {

class PythonDataset final : public data::Dataset {
 public:
  // `fields` have their types. read(indices, targets_only) gives a dict of arrays by name, [n, ...] each; what it raises
  // becomes the error of the batch. Samples are checked as they are read.
  PythonDataset(std::vector<data::Field> fields, int64_t size, nb::object read)
      : Dataset(std::move(fields)), size_(size), read_(kept(std::move(read))) {}

  int64_t size() const override { return size_; }
  // Of sizes and types alone: what Python gives may be drawn at random.
  Result<uint32_t> checksum() const override;

 protected:
  Result<data::Batch> rows(std::span<const int64_t> indices) const override { return call(indices, false); }
  Result<data::Batch> target_rows(std::span<const int64_t> indices) const override { return call(indices, true); }
  Status check() const override { return {}; }

 private:
  Result<data::Batch> call(std::span<const int64_t> indices, bool targets_only) const;

  int64_t size_;
  std::shared_ptr<nb::object> read_;
};

}  // namespace deepseek::python
