#include "base/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace deepseek {
namespace {

struct DTypeInfo {
  DType dtype;
  size_t size;
  std::string_view name;
};
constexpr DTypeInfo kInfo[] = {
    {DType::kBool, 1, "bool"}, {DType::kU8, 1, "u8"},   {DType::kI8, 1, "i8"},
    {DType::kI32, 4, "i32"},   {DType::kI64, 8, "i64"}, {DType::kF16, 2, "f16"},
    {DType::kBF16, 2, "bf16"}, {DType::kF32, 4, "f32"}, {DType::kF64, 8, "f64"},
};

template <class T>
T saturate(double value) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (value >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

template <class T>
T load(const void* data, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * sizeof(T), sizeof(T));
  return value;
}
template <class T>
void store(void* data, int64_t index, T value) {
  std::memcpy(static_cast<char*>(data) + index * sizeof(T), &value, sizeof(T));
}

}  // namespace

size_t size_of(DType dtype) { return kInfo[static_cast<int>(dtype)].size; }
std::string_view to_string(DType dtype) { return kInfo[static_cast<int>(dtype)].name; }

Result<DType> parse_dtype(std::string_view name) {
  for (const DTypeInfo& info : kInfo)
    if (info.name == name) return info.dtype;
  return invalid("unknown dtype '{}'; expected one of bool, u8, i8, i32, i64, f16, bf16, f32, f64", name);
}

uint16_t f32_to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  bits += 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}
float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);   // NaN
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000) {  // subnormal half: let float addition do the rounding
    const float scaled = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(scaled) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}
float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

double load_as_double(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::kBool: return load<uint8_t>(data, i) != 0;
    case DType::kU8: return load<uint8_t>(data, i);
    case DType::kI8: return load<int8_t>(data, i);
    case DType::kI32: return load<int32_t>(data, i);
    case DType::kI64: return static_cast<double>(load<int64_t>(data, i));
    case DType::kF16: return f16_to_f32(load<uint16_t>(data, i));
    case DType::kBF16: return bf16_to_f32(load<uint16_t>(data, i));
    case DType::kF32: return load<float>(data, i);
    case DType::kF64: return load<double>(data, i);
  }
  return 0;
}

void store_from_double(DType dtype, void* data, int64_t i, double value) {
  switch (dtype) {
    case DType::kBool: return store<uint8_t>(data, i, value != 0);
    case DType::kU8: return store(data, i, saturate<uint8_t>(value));
    case DType::kI8: return store(data, i, saturate<int8_t>(value));
    case DType::kI32: return store(data, i, saturate<int32_t>(value));
    case DType::kI64: return store(data, i, saturate<int64_t>(value));
    case DType::kF16: return store(data, i, f32_to_f16(static_cast<float>(value)));
    case DType::kBF16: return store(data, i, f32_to_bf16(static_cast<float>(value)));
    case DType::kF32: return store(data, i, static_cast<float>(value));
    case DType::kF64: return store(data, i, value);
  }
}

}  // namespace deepseek
