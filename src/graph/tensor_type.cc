#include "graph/tensor_type.h"

#include <algorithm>
#include <cstdint>

namespace deepseek::graph {

int64_t product(std::span<const int64_t> dims) {
  int64_t n = 1;
  for (int64_t d : dims)
    if (__builtin_mul_overflow(n, d, &n)) return std::find(dims.begin(), dims.end(), 0) == dims.end() ? INT64_MAX : 0;
  return n;
}

std::string to_string(std::span<const int64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? "," : "") + std::to_string(dims[i]);
  return text + "]";
}

Dims contiguous_strides(std::span<const int64_t> dims) {
  Dims strides(dims.size());
  int64_t step = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = step;
    step *= dims[i];
  }
  return strides;
}

Result<Dims> broadcast_dims(const Dims& a, const Dims& b) {
  Dims out(std::max(a.size(), b.size()));
  for (size_t i = 0; i < out.size(); ++i) {  // i counts from the last axis
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1)
      return invalid("shapes {} and {} do not broadcast: axis {} from the end has sizes {} and {}", to_string(a),
                     to_string(b), i + 1, x, y);
    out[out.size() - 1 - i] = x == 1 ? y : x;
  }
  return out;
}

Status check_size(const TensorType& type) {
  int64_t total = 1;
  for (int64_t d : type.dims) {
    if (d < 0 || d > kMaxSize) return invalid("expected sizes in [0, {}], got {}", kMaxSize, to_string(type));
    d = std::max<int64_t>(d, 1);
    if (d > kMaxElements / total) return invalid("expected at most {} elements, got {}", kMaxElements, to_string(type));
    total *= d;
  }
  return {};
}

std::string to_string(const TensorType& type) {
  std::string text = std::string(to_string(type.dtype)) + to_string(type.dims);
  if (type.channel_block != 1) text += "{c" + std::to_string(type.channel_block) + "}";
  return text;
}

}  // namespace deepseek::graph
