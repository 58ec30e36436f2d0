// Element types as C++ types for kernels that are templates: half floats load as float and store rounded to nearest
// even; visit_* call a functor with a value of the element's type. Test: tests/backends_cpu/kernels_test.cc
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "base/dtype.h"

namespace deepseek::backends::cpu {

struct BF16 {
  uint16_t bits = 0;
  BF16() = default;
  explicit BF16(float value) : bits(f32_to_bf16(value)) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
struct F16 {
  uint16_t bits = 0;
  F16() = default;
  explicit F16(float value) : bits(f32_to_f16(value)) {}
  operator float() const { return f16_to_f32(bits); }
};

// Sums of floats are kept in double and stored in their own type; those of integers are of 64 bits, which wrap.
template <class T>
using Sum = std::conditional_t<std::is_integral_v<T>, int64_t, double>;
template <class T>
using Total = std::conditional_t<std::is_integral_v<T>, int64_t, T>;
template <class T>
Total<T> store_sum(Sum<T> value) {
  if constexpr (sizeof(T) == 2 && !std::is_integral_v<T>)
    return T(static_cast<float>(value));
  else
    return static_cast<Total<T>>(value);
}
inline double added(double a, double b) { return a + b; }
inline int64_t added(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
inline double multiplied(double a, double b) { return a * b; }
inline int64_t multiplied(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

// f(T{}) for the element type's own T; bool counts as u8.
template <class F>
auto visit_dtype(DType dtype, F f) {
  switch (dtype) {
    case DType::kI8: return f(int8_t{});
    case DType::kI32: return f(int32_t{});
    case DType::kI64: return f(int64_t{});
    case DType::kF16: return f(F16{});
    case DType::kBF16: return f(BF16{});
    case DType::kF32: return f(float{});
    case DType::kF64: return f(double{});
    default: return f(uint8_t{});
  }
}
// f(T{}) with an unsigned T of `size` bytes, for kernels that only move elements.
template <class F>
auto visit_size(size_t size, F f) {
  switch (size) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}
// f(I{}) for i32 or i64 indices.
template <class F>
auto visit_index(DType dtype, F f) {
  return dtype == DType::kI32 ? f(int32_t{}) : f(int64_t{});
}

}  // namespace deepseek::backends::cpu
