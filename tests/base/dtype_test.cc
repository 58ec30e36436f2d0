#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace deepseek {
namespace {

// The value of a half by its definition: sign, 5 bits of exponent, 10 of fraction.
double half_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

TEST(DType, AllHalvesReadByDefinitionAndRoundTrip) {
  for (int i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const double expected = half_value(bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(bits)));
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f16_to_f32(bits)))));
    } else {
      EXPECT_EQ(f16_to_f32(bits), static_cast<float>(expected)) << i;
      EXPECT_EQ(f32_to_f16(f16_to_f32(bits)), bits) << i;
    }
  }
}

TEST(DType, RoundingGoesToTheNearestEven) {
  // Between two neighbouring halves the middle goes to the even one, anything else to the nearer.
  for (int i = 0; i < 0x7bff; ++i) {
    const double low = half_value(static_cast<uint16_t>(i)), high = half_value(static_cast<uint16_t>(i + 1));
    const float middle = static_cast<float>((low + high) / 2);
    EXPECT_EQ(f32_to_f16(middle), i % 2 == 0 ? i : i + 1) << i;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), i) << i;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 1e6f)), i + 1) << i;
  }
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);      // half way to 65536 and beyond is infinite
  EXPECT_EQ(f32_to_bf16(1.00390625f), 0x3f80);  // 1 + 2^-8: a tie, to even
  EXPECT_EQ(f32_to_bf16(1.01171875f), 0x3f82);  // 1 + 3 * 2^-8: a tie, to even
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::max())), INFINITY);
}

TEST(DType, IntegersSaturate) {
  int8_t x = 0;
  store_from_double(DType::kI8, &x, 0, 300);
  EXPECT_EQ(x, 127);
  store_from_double(DType::kI8, &x, 0, -300);
  EXPECT_EQ(x, -128);
  store_from_double(DType::kI8, &x, 0, NAN);
  EXPECT_EQ(x, 0);
}

TEST(DType, NamesReadBack) {
  for (DType d : {DType::kBool, DType::kU8, DType::kI8, DType::kI32, DType::kI64, DType::kF16, DType::kBF16,
                  DType::kF32, DType::kF64})
    EXPECT_EQ(*parse_dtype(to_string(d)), d);
  EXPECT_EQ(parse_dtype("f33").status().message(),
            "unknown dtype 'f33'; expected one of bool, u8, i8, i32, i64, f16, bf16, f32, f64");
}

}  // namespace
}  // namespace deepseek
