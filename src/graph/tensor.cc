#include "graph/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace deepseek::graph {

Tensor::Tensor(TensorType type) : type_(std::move(type)) {
  const size_t bytes = (std::max<size_t>(type_.num_bytes(), 1) + 63) / 64 * 64;
  data_ = std::aligned_alloc(64, bytes);
  if (data_ == nullptr) throw std::bad_alloc();
  owner_ = std::shared_ptr<void>(data_, [](void* p) { std::free(p); });
}

Tensor::Tensor(TensorType type, void* data, std::shared_ptr<void> owner)
    : type_(std::move(type)), data_(data), owner_(std::move(owner)) {}

Tensor Tensor::zeros(DType dtype, Dims dims) {
  const TensorType type{dtype, std::move(dims)};
  const size_t bytes = type.num_bytes();
  // Large ones come from the kernel, whose pages are zeros that cost nothing until somebody touches them: an
  // optimiser's moments are then first touched by all threads, in the first step.
  if (constexpr size_t kMapped = size_t{1} << 20; bytes >= kMapped) {
    void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    return Tensor(type, data, std::shared_ptr<void>(data, [bytes](void* p) { munmap(p, bytes); }));
  }
  Tensor t(type);
  std::memset(t.data_, 0, bytes);
  return t;
}

Tensor Tensor::full(DType dtype, Dims dims, double value) {
  Tensor t(dtype, std::move(dims));
  for (int64_t i = 0; i < t.num_elements(); ++i) t.set(i, value);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t(type_);
  std::memcpy(t.data_, data_, num_bytes());
  return t;
}

Tensor Tensor::cast(DType dtype) const {
  if (dtype == type_.dtype) return clone();
  Tensor t(type_.with_dtype(dtype));
  for (int64_t i = 0; i < num_elements(); ++i) t.set(i, at(i));
  return t;
}

Tensor Tensor::reshaped(Dims dims) const { return Tensor(TensorType{type_.dtype, std::move(dims)}, data_, owner_); }

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  TensorType type = type_;
  type.dims[0] = end - begin;
  const size_t row_bytes = type_.dims[0] == 0 ? 0 : num_bytes() / static_cast<size_t>(type_.dims[0]);
  return Tensor(std::move(type), static_cast<char*>(data_) + static_cast<size_t>(begin) * row_bytes, owner_);
}

}  // namespace deepseek::graph
