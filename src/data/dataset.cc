#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "base/guard.h"
#include "base/threads.h"
#include "io/image.h"

namespace deepseek::data {
namespace {

using graph::Tensor;

int64_t row_elements(const Tensor& t) { return t.dims()[0] == 0 ? 0 : t.num_elements() / t.dims()[0]; }

int64_t channels_of(const graph::Dims& inputs) { return inputs.size() >= 2 ? inputs[1] : 1; }

double pick(const std::vector<double>& values, int64_t channel, double otherwise) {
  if (values.empty()) return otherwise;
  return values.size() == 1 ? values[0] : values[static_cast<size_t>(channel)];
}

Status check_finite(const Tensor& t, const char* what) {
  const float* values = t.as<float>();
  const int64_t n = t.num_elements();
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(values[i])) continue;
    const int64_t row = row_elements(t);
    return make_error(ErrorCode::kDataCorrupt,
                      "[data] {} of sample {} hold {} at position {}, expected finite numbers; remove or repair the "
                      "sample",
                      what, i / row, values[i], i % row);
  }
  return {};
}

Status check_per_channel(const std::vector<double>& values, const char* what, int64_t channels, bool positive) {
  if (values.size() > 1 && static_cast<int64_t>(values.size()) != channels) {
    return invalid("[data] {} has {} values, expected 1 or one for each of the {} channels", what, values.size(),
                   channels);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || (positive && values[i] <= 0)) {
      return invalid("[data] {}[{}] is {}, expected a {} number", what, i, values[i],
                     positive ? "positive finite" : "finite");
    }
  }
  return {};
}

Status check_index(int64_t index, int64_t size) {
  if (index >= 0 && index < size) return {};
  return invalid("[data] sample index {} is out of range, the data set has {} samples", index, size);
}

// The pictures of a data set on disk, u8 [N, C, H, W].
Result<Tensor> decode(const Dataset& d) {
  Tensor out(d.input_type());
  const int64_t channels = d.image[0], height = d.image[1], width = d.image[2];
  const size_t bytes = static_cast<size_t>(channels * height * width);
  std::mutex mutex;
  Status failed;
  parallel_for(d.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Result<Tensor> image = io::load_image(d.files[static_cast<size_t>(i)], channels, std::max(height, width));
      if (!image.ok()) {
        const std::lock_guard lock(mutex);
        if (failed.ok()) failed = std::move(image).status();
        return;
      }
      std::memcpy(out.as<char>() + static_cast<size_t>(i) * bytes, io::cover_image(*image, height, width).data(),
                  bytes);
    }
  });
  DS_TRY(failed);
  return out;
}

Tensor gather_rows(const Tensor& from, std::span<const int64_t> indices) {
  graph::Dims dims = from.dims();
  dims[0] = static_cast<int64_t>(indices.size());
  Tensor out(from.dtype(), std::move(dims));
  const size_t bytes = static_cast<size_t>(row_elements(from)) * size_of(from.dtype());
  for (size_t i = 0; i < indices.size(); ++i) {
    std::memcpy(out.as<char>() + i * bytes, from.as<char>() + static_cast<size_t>(indices[i]) * bytes, bytes);
  }
  return out;
}

}  // namespace

graph::TensorType Dataset::input_type() const {
  if (files.empty()) return inputs.type();
  graph::Dims dims = image;
  dims.insert(dims.begin(), size());
  return {DType::kU8, std::move(dims)};
}

Status Dataset::validate() const {
  if ((!inputs.defined() && files.empty()) || !targets.defined())
    return invalid("[data] the data set lacks inputs or targets");
  if (!files.empty()) {
    if (inputs.defined())
      return invalid("[data] the data set has both inputs in memory and files; expected one of them");
    if (image.size() != 3 || (image[0] != 1 && image[0] != 3) || image[1] < 1 || image[2] < 1)
      return invalid("[data] pictures are to become {}, expected [1 or 3, height, width]", graph::to_string(image));
  }
  const graph::TensorType type = input_type();
  if (type.dims.empty() || targets.dims().empty()) {
    return invalid("[data] inputs and targets need an axis of samples, got {} and {}", to_string(type),
                   to_string(targets.type()));
  }
  if (type.dtype != DType::kU8 && type.dtype != DType::kF32 && type.dtype != DType::kI64) {
    return invalid("[data] inputs are {}, expected u8, f32 or i64; convert them first", to_string(type));
  }
  if (size() == 0) return invalid("[data] the data set is empty; check the path and the split");
  if (type.num_elements() == 0) return invalid("[data] samples have no elements: {}", to_string(type));
  if (targets.dims()[0] != size()) {
    return make_error(ErrorCode::kDataCorrupt, "[data] {} inputs but {} targets; the files do not belong together",
                      size(), targets.dims()[0]);
  }
  if (!std::isfinite(scale) || scale == 0) return invalid("[data] scale is {}, expected a finite non-zero", scale);
  DS_TRY(check_per_channel(mean, "mean", channels_of(type.dims), false));
  DS_TRY(check_per_channel(stddev, "stddev", channels_of(type.dims), true));
  if (type.dtype == DType::kF32) DS_TRY(check_finite(inputs, "inputs"));
  if (targets.dtype() == DType::kF32) return check_finite(targets, "targets");
  if (targets.dtype() != DType::kI64) {
    return invalid("[data] targets are {}, expected i64 class labels or f32", to_string(targets.type()));
  }
  if (class_names.empty()) return invalid("[data] class labels need class_names, got none");
  const int64_t row = row_elements(targets);
  for (int64_t i = 0; i < targets.num_elements(); ++i) {
    const int64_t label = targets.as<int64_t>()[i];
    if (label < 0 || label >= num_classes()) {
      return make_error(ErrorCode::kDataCorrupt, "[data] label of sample {} is {}, expected 0 to {} ({} classes)",
                        i / row, label, num_classes() - 1, num_classes());
    }
  }
  return {};
}

Status Dataset::read(std::span<const int64_t> indices, Tensor& x, Tensor& y) const {
  if (!files.empty()) {
    DS_ASSIGN(const Dataset part, in_memory(indices));
    std::vector<int64_t> all(indices.size());
    std::iota(all.begin(), all.end(), 0);
    return part.read(all, x, y);
  }
  if (!inputs.defined() || !targets.defined() || inputs.dims().empty() || targets.dims().empty()) {
    return invalid("[data] the data set lacks inputs or targets");
  }
  for (const int64_t index : indices) DS_TRY(check_index(index, std::min(size(), targets.dims()[0])));
  if (inputs.dtype() == DType::kI64) {
    x = gather_rows(inputs, indices);
    y = gather_rows(targets, indices);
    return {};
  }
  graph::Dims dims = inputs.dims();
  dims[0] = static_cast<int64_t>(indices.size());
  Tensor out(DType::kF32, std::move(dims));
  const int64_t channels = channels_of(inputs.dims()), row = row_elements(inputs);
  const int64_t plane = channels == 0 ? 0 : row / channels;
  std::vector<float> factor(static_cast<size_t>(channels)), offset(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    const double inverse = 1.0 / pick(stddev, c, 1.0);
    factor[static_cast<size_t>(c)] = static_cast<float>(scale * inverse);
    offset[static_cast<size_t>(c)] = static_cast<float>(-pick(mean, c, 0.0) * inverse);
  }
  const auto convert = [&]<class T>(const T* from_all) {
    parallel_for(static_cast<int64_t>(indices.size()), 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* from = from_all + indices[static_cast<size_t>(i)] * row;
        float* to = out.as<float>() + i * row;
        for (int64_t c = 0; c < channels; ++c) {
          const float f = factor[static_cast<size_t>(c)], o = offset[static_cast<size_t>(c)];
          for (int64_t p = 0; p < plane; ++p) to[c * plane + p] = static_cast<float>(from[c * plane + p]) * f + o;
        }
      }
    });
  };
  if (inputs.dtype() == DType::kU8) {
    convert(inputs.as<uint8_t>());
  } else if (inputs.dtype() == DType::kF32) {
    convert(inputs.as<float>());
  } else {
    return invalid("[data] inputs are {}, expected u8, f32 or i64; convert them first", to_string(inputs.type()));
  }
  y = gather_rows(targets, indices);
  x = std::move(out);
  return {};
}

Result<Dataset> Dataset::subset(std::span<const int64_t> indices) const {
  if (targets.defined() && (inputs.defined() || !files.empty()) && targets.dims()[0] != size()) {
    return make_error(ErrorCode::kDataCorrupt, "[data] {} inputs but {} targets; the files do not belong together",
                      size(), targets.dims()[0]);
  }
  for (const int64_t index : indices) DS_TRY(check_index(index, size()));
  Dataset out = *this;
  if (files.empty()) {
    out.inputs = gather_rows(inputs, indices);
  } else {
    out.files.clear();
    for (const int64_t index : indices) out.files.push_back(files[static_cast<size_t>(index)]);
  }
  out.targets = gather_rows(targets, indices);
  return out;
}

Result<Dataset> Dataset::in_memory(std::span<const int64_t> indices) const {
  DS_ASSIGN(Dataset out, subset(indices));
  if (files.empty()) return out;
  DS_ASSIGN(out.inputs, guarded("[data] while reading pictures", [&] { return decode(out); }));
  out.files.clear();
  return out;
}

Status Dataset::fit_normalisation() {
  mean.clear();
  stddev.clear();
  DS_TRY(validate());
  if (!files.empty()) {
    std::vector<int64_t> some;
    const int64_t count = std::min(size(), kFitted);
    for (int64_t i = 0; i < count; ++i) some.push_back(i * size() / count);
    DS_ASSIGN(Dataset part, in_memory(some));
    DS_TRY(part.fit_normalisation());
    mean = part.mean;
    stddev = part.stddev;
    return {};
  }
  if (inputs.dtype() == DType::kI64) return invalid("[data] inputs are i64 indices, which have no mean");
  const int64_t channels = channels_of(inputs.dims()), row = row_elements(inputs), plane = row / channels;
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    // Two passes: a single one loses the deviation of data far from zero.
    const auto each = [&](auto&& use) {
      for (int64_t i = 0; i < size(); ++i) {
        const int64_t start = i * row + c * plane;
        for (int64_t p = 0; p < plane; ++p) {
          const double raw = inputs.dtype() == DType::kU8 ? static_cast<double>(inputs.as<uint8_t>()[start + p])
                                                          : static_cast<double>(inputs.as<float>()[start + p]);
          use(raw * scale);
        }
      }
    };
    each([&](double v) { sum += v; });
    const double count = static_cast<double>(size() * plane), average = sum / count;
    each([&](double v) { squares += (v - average) * (v - average); });
    mean.push_back(average);
    stddev.push_back(std::max(std::sqrt(squares / count), 1e-6));
  }
  return {};
}

}  // namespace deepseek::data
