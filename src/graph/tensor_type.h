// What is known of a tensor at compile time: element type, static dims, memory layout.
// Layout is one number. channel_block b (1 <= b <= C, C % b == 0) stores a tensor [N, C, spatial...] as
// [N][C/b][spatial...][b]: 1 is plain row-major, C is channels-last, 8/16/32 are the blocked forms kernels like.
// No pass sets it today: blocked channels are a further axis (ops/blocked_conv.h).
// Test: tests/graph/tensor_type_test.cc
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace deepseek::graph {

using Dims = std::vector<int64_t>;

// Stops at the greatest int64 instead of overflowing.
int64_t product(std::span<const int64_t> dims);
// "[2,3,4]"; a scalar is "[]".
std::string to_string(std::span<const int64_t> dims);
// Row-major strides in elements.
Dims contiguous_strides(std::span<const int64_t> dims);
// NumPy broadcasting of two shapes; the message names both.
Result<Dims> broadcast_dims(const Dims& a, const Dims& b);

struct TensorType {
  DType dtype = DType::kF32;
  Dims dims;
  int64_t channel_block = 1;

  int64_t rank() const { return static_cast<int64_t>(dims.size()); }
  int64_t num_elements() const { return product(dims); }
  size_t num_bytes() const { return static_cast<size_t>(num_elements()) * size_of(dtype); }
  TensorType with_dtype(DType d) const { return {d, dims, channel_block}; }
  bool operator==(const TensorType&) const = default;
};

// Sizes of axes are in [0, 2^31), a tensor has at most 2^40 elements (an empty axis counts as 1): what is larger is a
// mistake, and within these limits no arithmetic on sizes overflows.
constexpr int64_t kMaxSize = (int64_t{1} << 31) - 1;
constexpr int64_t kMaxElements = int64_t{1} << 40;
Status check_size(const TensorType& type);

// "f32[8,64,56,56]", with "{c16}" after it where channel_block is 16.
std::string to_string(const TensorType& type);

}  // namespace deepseek::graph
