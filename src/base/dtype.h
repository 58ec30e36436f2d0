// Element types of tensors. Sub-byte and quantised types come as further enumerators; sizes are in bytes.
// Test: tests/base/dtype_test.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace deepseek {

enum class DType : uint8_t { kBool, kU8, kI8, kI32, kI64, kF16, kBF16, kF32, kF64 };

size_t size_of(DType dtype);
// "f32", "bf16", "i64", "bool": the names used in graph text and in Python.
std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

constexpr bool is_float(DType d) { return d >= DType::kF16; }
constexpr bool is_integer(DType d) { return d >= DType::kU8 && d <= DType::kI64; }

// Conversions with round-to-nearest-even; NaN stays NaN, overflow becomes infinity.
uint16_t f32_to_bf16(float value);
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);
float f16_to_f32(uint16_t bits);

// One element read as, or written from, a double (exact for every type but i64 beyond 2^53). Integer stores saturate
// and truncate towards zero; bool stores value != 0.
double load_as_double(DType dtype, const void* data, int64_t index);
void store_from_double(DType dtype, void* data, int64_t index, double value);

}  // namespace deepseek
