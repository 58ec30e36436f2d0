// A dense host array: type and shared bytes. Copies share the bytes (as NumPy views do); clone() copies them.
// Used for constants in graphs, parameters, and what goes in and out of programs. Test: tests/graph/tensor_test.cc
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "graph/tensor_type.h"

namespace deepseek::graph {

class Tensor {
 public:
  Tensor() = default;
  // Uninitialised, 64-byte aligned.
  explicit Tensor(TensorType type);
  Tensor(DType dtype, Dims dims) : Tensor(TensorType{dtype, std::move(dims)}) {}
  // Borrowed memory: `owner` keeps it alive (a NumPy array, a mapped file). Contiguous, row-major.
  Tensor(TensorType type, void* data, std::shared_ptr<void> owner);

  static Tensor zeros(DType dtype, Dims dims);
  static Tensor full(DType dtype, Dims dims, double value);
  static Tensor scalar(DType dtype, double value) { return full(dtype, {}, value); }
  template <class T>
  static Tensor from(DType dtype, Dims dims, std::span<const T> values) {
    Tensor t(dtype, std::move(dims));
    for (int64_t i = 0; i < t.num_elements(); ++i)
      if (std::is_integral_v<T> && dtype == DType::kI64)  // double holds integers up to 2^53
        t.as<int64_t>()[i] = static_cast<int64_t>(values[static_cast<size_t>(i)]);
      else
        t.set(i, static_cast<double>(values[static_cast<size_t>(i)]));
    return t;
  }

  bool defined() const { return data_ != nullptr; }
  const TensorType& type() const { return type_; }
  DType dtype() const { return type_.dtype; }
  const Dims& dims() const { return type_.dims; }
  int64_t num_elements() const { return type_.num_elements(); }
  size_t num_bytes() const { return type_.num_bytes(); }
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  const std::shared_ptr<void>& owner() const { return owner_; }
  bool operator==(const Tensor&) const = default;  // identity: same type and same bytes in memory

  double at(int64_t i) const { return load_as_double(type_.dtype, data_, i); }
  void set(int64_t i, double value) const { store_from_double(type_.dtype, data_, i, value); }

  Tensor clone() const;
  Tensor cast(DType dtype) const;  // always a copy
  // Same bytes, other dims of equal element count (asserted by the caller).
  Tensor reshaped(Dims dims) const;
  // Rows [begin, end) of axis 0, sharing the bytes.
  Tensor rows(int64_t begin, int64_t end) const;

 private:
  TensorType type_;
  void* data_ = nullptr;
  std::shared_ptr<void> owner_;
};

}  // namespace deepseek::graph
