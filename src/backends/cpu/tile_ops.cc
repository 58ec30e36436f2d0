#include "backends/cpu/tile_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tile_ops.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include "backends/cpu/vector_math-inl.h"
// clang-format on

// Everything from here to HWY_AFTER_NAMESPACE is compiled once per instruction set; plain loops vectorise by
// themselves.
HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T, class R, class F>
void Loop1(const void* const* in, void* out, int64_t n) {
  const T* a = static_cast<const T*>(in[0]);
  R* y = static_cast<R*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(F::apply(a[i]));
}
template <class T, class R, class F>
void Loop2(const void* const* in, void* out, int64_t n) {
  const T* a = static_cast<const T*>(in[0]);
  const T* b = static_cast<const T*>(in[1]);
  R* y = static_cast<R*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<R>(F::apply(a[i], b[i]));
}
// Operations of three operands have tile functions of their own.
// a * b + c, in one rounding where there is an instruction for it, and with signs turned.
template <bool kNegateProduct, bool kNegateTerm>
void MulAdd(const void* const* in, void* out, int64_t n) {
  const float *a = static_cast<const float*>(in[0]), *b = static_cast<const float*>(in[1]),
              *c = static_cast<const float*>(in[2]);
  float* y = static_cast<float*>(out);
  for (int64_t i = 0; i < n; ++i) {
    const float x = kNegateProduct ? -a[i] : a[i], z = kNegateTerm ? -c[i] : c[i];
#if HWY_NATIVE_FMA
    y[i] = __builtin_fmaf(x, b[i], z);
#else
    y[i] = x * b[i] + z;
#endif
  }
}
struct MulPlus {
  template <class T>
  static void Tile(const void* const* in, void* out, int64_t n) {
    MulAdd<false, false>(in, out, n);
  }
};
struct MulMinus {
  template <class T>
  static void Tile(const void* const* in, void* out, int64_t n) {
    MulAdd<false, true>(in, out, n);
  }
};
struct MinusMul {
  template <class T>
  static void Tile(const void* const* in, void* out, int64_t n) {
    MulAdd<true, false>(in, out, n);
  }
};
struct Select {
  template <class T>
  static void Tile(const void* const* in, void* out, int64_t n) {
    const uint8_t* c = static_cast<const uint8_t*>(in[0]);
    const T* a = static_cast<const T*>(in[1]);
    const T* b = static_cast<const T*>(in[2]);
    T* y = static_cast<T*>(out);
    for (int64_t i = 0; i < n; ++i) y[i] = c[i] ? a[i] : b[i];
  }
};

// clang-format off
// Integers wrap, which only unsigned ones do by themselves.
template <class T, bool = std::is_integral_v<T>> struct Wrapping { using Type = T; };
template <class T> struct Wrapping<T, true> { using Type = std::make_unsigned_t<T>; };
template <class T> using Wrap = typename Wrapping<T>::Type;
struct Add { template <class T> static T apply(T a, T b) { return static_cast<T>(Wrap<T>(a) + Wrap<T>(b)); } };
struct Sub { template <class T> static T apply(T a, T b) { return static_cast<T>(Wrap<T>(a) - Wrap<T>(b)); } };
struct Mul { template <class T> static T apply(T a, T b) { return static_cast<T>(Wrap<T>(a) * Wrap<T>(b)); } };
struct Div { template <class T> static T apply(T a, T b) { return a / b; } };
// Of integers, towards zero; beyond the type's range it saturates, as the cast from an infinity does.
struct DivWhole {
  template <class T> static T apply(T a, T b) {
    using Limits = std::numeric_limits<T>;
    if (b == 0) return a == 0 ? T(0) : a > 0 ? Limits::max() : Limits::min();
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return a == Limits::min() ? Limits::max() : static_cast<T>(-a);
    return static_cast<T>(a / b);
  }
};
struct Pow { template <class T> static T apply(T a, T b) { return std::pow(a, b); } };
struct Max { template <class T> static T apply(T a, T b) { return a != a || a > b ? a : b; } };
struct Min { template <class T> static T apply(T a, T b) { return a != a || a < b ? a : b; } };
struct Eq { template <class T> static bool apply(T a, T b) { return a == b; } };
struct Ne { template <class T> static bool apply(T a, T b) { return a != b; } };
struct Lt { template <class T> static bool apply(T a, T b) { return a < b; } };
struct Le { template <class T> static bool apply(T a, T b) { return a <= b; } };
struct Gt { template <class T> static bool apply(T a, T b) { return a > b; } };
struct Ge { template <class T> static bool apply(T a, T b) { return a >= b; } };
struct And { static bool apply(uint8_t a, uint8_t b) { return a && b; } };
struct Or { static bool apply(uint8_t a, uint8_t b) { return a || b; } };
struct Not { static bool apply(uint8_t a) { return !a; } };
struct Neg { template <class T> static T apply(T a) { return static_cast<T>(-Wrap<T>(a)); } };
struct Abs { template <class T> static T apply(T a) { return a < 0 ? Neg::apply(a) : a == 0 ? T(0) : a; } };
struct Sign { template <class T> static T apply(T a) { return T((a > 0) - (a < 0)); } };
struct Sqrt { template <class T> static T apply(T a) { return std::sqrt(a); } };
struct Rsqrt { template <class T> static T apply(T a) { return T(1) / std::sqrt(a); } };
struct Reciprocal { template <class T> static T apply(T a) { return T(1) / a; } };
struct Floor { template <class T> static T apply(T a) { return std::floor(a); } };
struct Ceil { template <class T> static T apply(T a) { return std::ceil(a); } };
struct Round { template <class T> static T apply(T a) { return std::nearbyint(a); } };
struct Relu { template <class T> static T apply(T a) { return a < 0 ? T(0) : a; } };
struct ExpD { static double apply(double a) { return std::exp(a); } };
struct Expm1D { static double apply(double a) { return std::expm1(a); } };
struct LogD { static double apply(double a) { return std::log(a); } };
struct Log1pD { static double apply(double a) { return std::log1p(a); } };
struct SinD { static double apply(double a) { return std::sin(a); } };
struct CosD { static double apply(double a) { return std::cos(a); } };
struct TanhD { static double apply(double a) { return std::tanh(a); } };
struct SigmoidD { static double apply(double a) { return 1 / (1 + std::exp(-a)); } };
struct ErfD { static double apply(double a) { return std::erf(a); } };
// clang-format on

// Vector functions on f32; the tail goes through a padded buffer.
template <class F>
void Vector2(const void* const* in, void* out, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float *a = static_cast<const float*>(in[0]), *b = static_cast<const float*>(in[1]);
  float* y = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(F::apply(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  if (i < n) {
    HWY_ALIGN float buffer[2][HWY_MAX_BYTES / sizeof(float)] = {};
    const size_t bytes = static_cast<size_t>(n - i) * sizeof(float);
    std::memcpy(buffer[0], a + i, bytes);
    std::memcpy(buffer[1], b + i, bytes);
    hn::Store(F::apply(d, hn::Load(d, buffer[0]), hn::Load(d, buffer[1])), d, buffer[0]);
    std::memcpy(y + i, buffer[0], bytes);
  }
}
template <class F>
void Vector1(const void* const* in, void* out, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* a = static_cast<const float*>(in[0]);
  float* y = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(F::apply(d, hn::LoadU(d, a + i)), d, y + i);
  if (i < n) {
    HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(buffer, a + i, static_cast<size_t>(n - i) * sizeof(float));
    hn::Store(F::apply(d, hn::Load(d, buffer)), d, buffer);
    std::memcpy(y + i, buffer, static_cast<size_t>(n - i) * sizeof(float));
  }
}

// GCC leaves the functions of <cmath> scalar where a pragma chooses the instruction set.
struct SqrtV {
  template <class D, class V>
  static HWY_INLINE V apply(D, V x) {
    return hn::Sqrt(x);
  }
};
struct RsqrtV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return hn::Div(hn::Set(d, 1.0f), hn::Sqrt(x));
  }
};
struct FloorV {
  template <class D, class V>
  static HWY_INLINE V apply(D, V x) {
    return hn::Floor(x);
  }
};
struct CeilV {
  template <class D, class V>
  static HWY_INLINE V apply(D, V x) {
    return hn::Ceil(x);
  }
};
struct RoundV {
  template <class D, class V>
  static HWY_INLINE V apply(D, V x) {
    return hn::Round(x);
  }
};
struct ExpV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return SafeExp(d, x);
  }
};
struct Expm1V {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    const V big = hn::Set(d, 20.0f);
    const V small = hn::Expm1(d, hn::Min(hn::Max(x, hn::Set(d, -100.0f)), big));
    return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Gt(x, big), SafeExp(d, x), small));
  }
};
template <class D, class V, class Inner>
HWY_INLINE V SafeLog(D d, V x, V domain, Inner inner) {  // domain: the log's own argument
  const V inf = hn::Set(d, std::numeric_limits<float>::infinity());
  V y = hn::IfThenElse(hn::Eq(domain, hn::Zero(d)), hn::Neg(inf), inner);
  y = hn::IfThenElse(hn::Lt(domain, hn::Zero(d)), hn::Set(d, std::numeric_limits<float>::quiet_NaN()), y);
  return hn::IfThenElse(hn::Or(hn::IsNaN(x), hn::Eq(x, inf)), x, y);
}
struct LogV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return SafeLog(d, x, x, hn::Log(d, x));
  }
};
struct Log1pV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return SafeLog(d, x, hn::Add(x, hn::Set(d, 1.0f)), hn::Log1p(d, x));
  }
};
// hwy's reduction of the argument is good up to about 39,000; beyond it, which is rare, each lane is computed in
// double. Infinities and NaN give NaN there.
template <class D, class V, class F>
HWY_INLINE V Periodic(D d, V x, V y, F exact) {
  const auto far = hn::Not(hn::Lt(hn::Abs(x), hn::Set(d, 39000.0f)));
  if (HWY_LIKELY(hn::AllFalse(d, far))) return y;
  HWY_ALIGN float from[HWY_MAX_BYTES / sizeof(float)], to[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(x, d, from);
  for (size_t i = 0; i < hn::Lanes(d); ++i) to[i] = static_cast<float>(exact(static_cast<double>(from[i])));
  return hn::IfThenElse(far, hn::Load(d, to), y);
}
struct SinV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return Periodic(d, x, hn::Sin(d, x), [](double a) { return std::sin(a); });
  }
};
struct CosV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return Periodic(d, x, hn::Cos(d, x), [](double a) { return std::cos(a); });
  }
};
struct TanhV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    const V limit = hn::Set(d, 10.0f);  // tanh is 1 in f32 from 9.01 on
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, hn::Min(hn::Max(x, hn::Neg(limit)), limit)));
  }
};
struct SigmoidV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    const V one = hn::Set(d, 1.0f);
    return hn::Div(one, hn::Add(one, SafeExp(d, hn::Neg(x))));
  }
};
struct SiluV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    return hn::Mul(x, SigmoidV::apply(d, x));
  }
};
struct DSiluV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x, V dy) {
    const V one = hn::Set(d, 1.0f), s = SigmoidV::apply(d, x);
    return hn::Mul(hn::Mul(dy, s), hn::MulAdd(x, hn::Sub(one, s), one));
  }
};
// Abramowitz and Stegun 7.1.26 has 1.5e-7 absolute error; near 0 the Taylor series keeps the relative error small.
struct ErfV {
  template <class D, class V>
  static HWY_INLINE V apply(D d, V x) {
    const auto c = [&](float v) HWY_ATTR { return hn::Set(d, v); };
    const V ax = hn::Abs(x), x2 = hn::Mul(x, x);
    const V t = hn::Div(c(1.0f), hn::MulAdd(c(0.3275911f), ax, c(1.0f)));
    V p = hn::MulAdd(c(1.061405429f), t, c(-1.453152027f));
    p = hn::MulAdd(p, t, c(1.421413741f));
    p = hn::MulAdd(p, t, c(-0.284496736f));
    p = hn::MulAdd(p, t, c(0.254829592f));
    const V tail = hn::CopySign(hn::NegMulAdd(hn::Mul(p, t), SafeExp(d, hn::Neg(x2)), c(1.0f)), x);
    V s = hn::MulAdd(x2, c(0.00522398f), c(-0.02686617f));
    s = hn::MulAdd(x2, s, c(0.11283792f));
    s = hn::MulAdd(x2, s, c(-0.37612639f));
    s = hn::Mul(x, hn::MulAdd(x2, s, c(1.12837917f)));
    return hn::IfThenElse(hn::Lt(ax, c(0.5f)), s, tail);
  }
};

template <class From, class To>
void Convert(const void* const* in, void* out, int64_t n) {
  const From* a = static_cast<const From*>(in[0]);
  To* y = static_cast<To*>(out);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
      // Saturating, NaN becomes 0; the upper bound is compared as >= because max() rounds up as a float.
      const From low = static_cast<From>(std::numeric_limits<To>::min()),
                 high = static_cast<From>(std::numeric_limits<To>::max());
      y[i] = a[i] != a[i]   ? To(0)
             : a[i] <= low  ? std::numeric_limits<To>::min()
             : a[i] >= high ? std::numeric_limits<To>::max()
                            : static_cast<To>(a[i]);
    } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To> && sizeof(To) < sizeof(From)) {
      y[i] = static_cast<To>(std::clamp<From>(a[i], std::numeric_limits<To>::min(), std::numeric_limits<To>::max()));
    } else {
      y[i] = static_cast<To>(a[i]);
    }
  }
}
// Half floats <-> f32, rounding to nearest even.
template <bool kRoundInPlace>
void FromF32ToBf16(const void* const* in, void* out, int64_t n) {
  const uint32_t* a = static_cast<const uint32_t*>(in[0]);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = a[i];
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    const uint32_t half = nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    if constexpr (kRoundInPlace)
      static_cast<uint32_t*>(out)[i] = half << 16;
    else
      static_cast<uint16_t*>(out)[i] = static_cast<uint16_t>(half);
  }
}
void FromBf16ToF32(const void* const* in, void* out, int64_t n) {
  const uint16_t* a = static_cast<const uint16_t*>(in[0]);
  uint32_t* y = static_cast<uint32_t*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint32_t>(a[i]) << 16;
}
template <bool kRoundInPlace>
void FromF32ToF16(const void* const* in, void* out, int64_t n) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto convert = [&](const float* a, void* y) HWY_ATTR {
    const auto half = hn::DemoteTo(dh, hn::LoadU(d, a));
    if constexpr (kRoundInPlace)
      hn::StoreU(hn::PromoteTo(d, half), d, static_cast<float*>(y));
    else
      hn::StoreU(half, dh, static_cast<hwy::float16_t*>(y));
  };
  constexpr size_t kSize = kRoundInPlace ? 4 : 2;
  const float* a = static_cast<const float*>(in[0]);
  char* y = static_cast<char*>(out);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) convert(a + i, y + static_cast<size_t>(i) * kSize);
  if (i < n) {
    HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)] = {}, result[HWY_MAX_BYTES / sizeof(float)];
    std::memcpy(buffer, a + i, static_cast<size_t>(n - i) * sizeof(float));
    convert(buffer, result);
    std::memcpy(y + static_cast<size_t>(i) * kSize, result, static_cast<size_t>(n - i) * kSize);
  }
}
void FromF16ToF32(const void* const* in, void* out, int64_t n) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const hwy::float16_t* a = static_cast<const hwy::float16_t*>(in[0]);
  float* y = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::PromoteTo(d, hn::LoadU(dh, a + i)), d, y + i);
  if (i < n) {
    HWY_ALIGN hwy::float16_t buffer[HWY_MAX_BYTES / sizeof(float)];
    HWY_ALIGN float result[HWY_MAX_BYTES / sizeof(float)];
    std::memset(buffer, 0, sizeof(buffer));
    std::memcpy(buffer, a + i, static_cast<size_t>(n - i) * sizeof(uint16_t));
    hn::Store(hn::PromoteTo(d, hn::Load(dh, buffer)), d, result);
    std::memcpy(y + i, result, static_cast<size_t>(n - i) * sizeof(float));
  }
}

template <class From>
void ConvertToBool(const void* const* in, void* out, int64_t n) {
  const From* a = static_cast<const From*>(in[0]);
  uint8_t* y = static_cast<uint8_t*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] != 0;
}

template <class From>
TileFn FindConvert(DType out) {
  switch (out) {
    case DType::kBool: return ConvertToBool<From>;
    case DType::kU8: return Convert<From, uint8_t>;
    case DType::kI8: return Convert<From, int8_t>;
    case DType::kI32: return Convert<From, int32_t>;
    case DType::kI64: return Convert<From, int64_t>;
    case DType::kF32: return Convert<From, float>;
    case DType::kF64: return Convert<From, double>;
    default: return nullptr;
  }
}
TileFn FindCast(DType in, DType out) {
  switch (in) {
    case DType::kBool: return FindConvert<uint8_t>(out);
    case DType::kU8: return FindConvert<uint8_t>(out);
    case DType::kI8: return FindConvert<int8_t>(out);
    case DType::kI32: return FindConvert<int32_t>(out);
    case DType::kI64: return FindConvert<int64_t>(out);
    case DType::kF64: return FindConvert<double>(out);
    case DType::kBF16: return out == DType::kF32 ? FromBf16ToF32 : nullptr;
    case DType::kF16: return out == DType::kF32 ? FromF16ToF32 : nullptr;
    case DType::kF32:
      if (out == DType::kBF16) return FromF32ToBf16<false>;
      if (out == DType::kF16) return FromF32ToF16<false>;
      return FindConvert<float>(out);
    default: return nullptr;
  }
}

// ---- Cells of the table as tile functions: on tiles of T, with results of R.
struct None {};
template <class F>
struct Signed {};
template <class F>
struct V1 {};
template <class F>
struct V2 {};

template <class Cell, int kOperands, class T, class R>
struct Made {
  static constexpr TileFn Fn() {
    if constexpr (kOperands == 1)
      return Loop1<T, R, Cell>;
    else
      return Loop2<T, R, Cell>;
  }
};
template <int kOperands, class T, class R>
struct Made<None, kOperands, T, R> {
  static constexpr TileFn Fn() { return nullptr; }
};
template <class F, int kOperands, class T, class R>
struct Made<Signed<F>, kOperands, T, R> {
  static constexpr TileFn Fn() {
    if constexpr (std::is_signed_v<T>)
      return Made<F, kOperands, T, R>::Fn();
    else
      return nullptr;
  }
};
template <class F, int kOperands, class T, class R>
struct Made<V1<F>, kOperands, T, R> {
  static constexpr TileFn Fn() { return Vector1<F>; }
};
template <class F, int kOperands, class T, class R>
struct Made<V2<F>, kOperands, T, R> {
  static constexpr TileFn Fn() { return Vector2<F>; }
};
template <class F, class T, class R>
struct Made<F, 3, T, R> {
  static constexpr TileFn Fn() { return F::template Tile<T>; }
};
template <class T, class R>
struct Made<None, 3, T, R> {
  static constexpr TileFn Fn() { return nullptr; }
};

// The table's column for T.
template <class T, class Whole, class F64, class F32>
using Column =
    std::conditional_t<std::is_integral_v<T>, Whole, std::conditional_t<std::is_same_v<T, double>, F64, F32>>;

// What the column of results says.
struct Same {};
struct Mask {};
template <class T, class R>
using ResultOf = std::conditional_t<std::is_same_v<R, Mask>, uint8_t, T>;

template <class T>
TileFn FindNumber(TileOp op, bool to_mask) {
  switch (op) {
#define DEEPSEEK_TILE_OP(id, name, n, work, result, whole, f64, f32, bools, code, mask_code)                           \
  case TileOp::id:                                                                                                     \
    return to_mask == std::is_same_v<result, Mask> ? Made<Column<T, whole, f64, f32>, n, T, ResultOf<T, result>>::Fn() \
                                                   : nullptr;
    DEEPSEEK_TILE_OPS(DEEPSEEK_TILE_OP)
#undef DEEPSEEK_TILE_OP
  }
  return nullptr;
}

TileFn FindLogical(TileOp op) {
  switch (op) {
#define DEEPSEEK_TILE_OP(id, name, n, work, result, whole, f64, f32, bools, code, mask_code) \
  case TileOp::id: return Made<bools, n, uint8_t, uint8_t>::Fn();
    DEEPSEEK_TILE_OPS(DEEPSEEK_TILE_OP)
#undef DEEPSEEK_TILE_OP
  }
  return nullptr;
}

TileFn Find(TileOp op, DType in, DType out) {
  if (op == TileOp::kCast) return FindCast(in, out);
  if (op == TileOp::kRoundTo) {
    if (in != DType::kF32) return nullptr;
    return out == DType::kBF16 ? FromF32ToBf16<true> : out == DType::kF16 ? FromF32ToF16<true> : nullptr;
  }
  const bool to_mask = out == DType::kBool;
  switch (in) {
    case DType::kBool: return to_mask ? FindLogical(op) : nullptr;
    case DType::kU8: return FindNumber<uint8_t>(op, to_mask);
    case DType::kI8: return FindNumber<int8_t>(op, to_mask);
    case DType::kI32: return FindNumber<int32_t>(op, to_mask);
    case DType::kI64: return FindNumber<int64_t>(op, to_mask);
    case DType::kF64: return FindNumber<double>(op, to_mask);
    case DType::kF32: return FindNumber<float>(op, to_mask);
    default: return nullptr;
  }
}

template <int kTerms, bool kRelu>
void Affine(const float* const* x, const float* const* coefficients, const float* shift, int64_t width, float* out,
            int64_t n) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t j = 0; j < width; j += lanes) {
    const auto t = hn::LoadU(d, shift + j);
    const auto a = hn::LoadU(d, coefficients[0] + j);
    const auto b = hn::LoadU(d, coefficients[kTerms > 1 ? 1 : 0] + j);
    const auto c = hn::LoadU(d, coefficients[kTerms > 2 ? 2 : 0] + j);
    const auto apply = [&](auto x0, auto x1, auto x2) HWY_ATTR {
      auto y = hn::MulAdd(x0, a, t);
      if constexpr (kTerms > 1) y = hn::MulAdd(x1, b, y);
      if constexpr (kTerms > 2) y = hn::MulAdd(x2, c, y);
      // As max(y, 0) of the other kernels, NaN stays.
      if constexpr (kRelu) y = hn::IfThenZeroElse(hn::Lt(y, hn::Zero(d)), y);
      return y;
    };
    const float *x0 = x[0], *x1 = x[kTerms > 1 ? 1 : 0], *x2 = x[kTerms > 2 ? 2 : 0];
    int64_t i = j;
    for (; i + lanes <= n; i += width)
      hn::StoreU(apply(hn::LoadU(d, x0 + i), hn::LoadU(d, x1 + i), hn::LoadU(d, x2 + i)), d, out + i);
    if (i < n) {
      HWY_ALIGN float rest[4][16] = {};
      const size_t bytes = static_cast<size_t>(n - i) * sizeof(float);
      std::memcpy(rest[0], x0 + i, bytes);
      std::memcpy(rest[1], x1 + i, bytes);
      std::memcpy(rest[2], x2 + i, bytes);
      hn::StoreU(apply(hn::LoadU(d, rest[0]), hn::LoadU(d, rest[1]), hn::LoadU(d, rest[2])), d, rest[3]);
      std::memcpy(out + i, rest[3], bytes);
    }
  }
}

void AffineTile(int terms, const float* const* x, const float* const* coefficients, const float* shift, bool relu,
                int64_t width, float* out, int64_t n) {
  constexpr decltype(&Affine<1, false>) kAll[] = {Affine<1, false>, Affine<1, true>,  Affine<2, false>,
                                                  Affine<2, true>,  Affine<3, false>, Affine<3, true>};
  kAll[2 * (terms - 1) + (relu ? 1 : 0)](x, coefficients, shift, width, out, n);
}

double SumTile(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Add(a, hn::LoadU(d, x + i));
    b = hn::Add(b, hn::LoadU(d, x + i + lanes));
    c = hn::Add(c, hn::LoadU(d, x + i + 2 * lanes));
    e = hn::Add(e, hn::LoadU(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) a = hn::Add(a, hn::LoadU(d, x + i));
  double sum = 0;
  for (; i < n; ++i) sum += x[i];
  return sum + hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

// acc[i] += sums[i], i < lanes.
template <class D, class V>
HWY_INLINE void AddWidened(D d, V sums, double* acc) {
#if HWY_TARGET == HWY_SCALAR || !HWY_HAVE_FLOAT64
  HWY_ALIGN float values[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(sums, d, values);
  for (size_t k = 0; k < hn::Lanes(d); ++k) acc[k] += values[k];
#else
  const hn::Repartition<double, D> wide;
  const hn::Half<D> half;
  const size_t lanes = hn::Lanes(wide);
  hn::StoreU(hn::Add(hn::LoadU(wide, acc), hn::PromoteTo(wide, hn::LowerHalf(half, sums))), wide, acc);
  hn::StoreU(hn::Add(hn::LoadU(wide, acc + lanes), hn::PromoteTo(wide, hn::UpperHalf(half, sums))), wide, acc + lanes);
#endif
}

// acc[i % period] += term(x[i], i % period). `term` maps a vector, and where the columns start that it has.
template <class Term>
HWY_INLINE void AddTerms(const float* x, int64_t n, int64_t period, double* acc, const Term& term) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Several short rows fill a vector.
  int64_t width = period;
  while (width < lanes && lanes % period == 0) width += period;
  const int64_t rows = n / width;
  HWY_ALIGN float sums[HWY_MAX_BYTES / sizeof(float)];
  int64_t j = 0;
  for (; j + lanes <= width; j += lanes) {  // four rows at a time, so that additions need not wait for each other
    auto a = hn::Zero(d), b = a, c = a, e = a;
    const float* at = x + j;
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4, at += 4 * width) {
      a = hn::Add(a, term(hn::LoadU(d, at), j));
      b = hn::Add(b, term(hn::LoadU(d, at + width), j));
      c = hn::Add(c, term(hn::LoadU(d, at + 2 * width), j));
      e = hn::Add(e, term(hn::LoadU(d, at + 3 * width), j));
    }
    for (; i < rows; ++i, at += width) a = hn::Add(a, term(hn::LoadU(d, at), j));
    const auto all = hn::Add(hn::Add(a, b), hn::Add(c, e));
    if (width == period) {
      AddWidened(d, all, acc + j);
      continue;
    }
    hn::Store(all, d, sums);
    for (int64_t k = 0; k < lanes; ++k) acc[(j + k) % period] += sums[k];
  }
  const auto one = [&](int64_t i) HWY_ATTR { acc[i % period] += hn::GetLane(term(hn::Set(d, x[i]), i % period)); };
  for (; j < width; ++j)
    for (int64_t i = 0; i < rows; ++i) one(i * width + j);
  for (int64_t i = rows * width; i < n; ++i) one(i);
}

void AddRows(const float* x, int64_t n, int64_t period, double* acc) {
  AddTerms(x, n, period, acc, [](auto v, int64_t) HWY_ATTR { return v; });
}

void AddSquaredRows(const float* x, int64_t n, int64_t period, const float* shift, double* acc) {
  const hn::ScalableTag<float> d;
  // Once more after the end, for vectors that hold several rows.
  float shifts[kTile + HWY_MAX_BYTES / sizeof(float)];
  const int64_t extra = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t j = 0; j < period + extra; ++j) shifts[j] = shift[j % period];
  AddTerms(x, n, period, acc, [&](auto v, int64_t column) HWY_ATTR {
    const auto deviation = hn::Sub(v, hn::LoadU(d, shifts + column));
    return hn::Mul(deviation, deviation);
  });
}

void AddDotRows(const float* a, const float* x, const float* shift, int64_t n, int64_t period, double* sum,
                double* dot) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t width = lanes % period == 0 ? lanes : period;  // several short rows fill a vector
  int64_t done = 0;
  for (; width % lanes == 0 && done < width && n >= width; done += lanes) {
    HWY_ALIGN float shifts[16], sums[16], dots[16];
    for (int64_t k = 0; k < lanes; ++k) shifts[k] = shift[(done + k) % period];
    const auto s = hn::Load(d, shifts);
    auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, d0 = s0, d1 = s0, d2 = s0, d3 = s0;
    const auto add = [&](int64_t i, auto& to_sum, auto& to_dot) HWY_ATTR {
      const auto v = hn::LoadU(d, a + i);
      to_sum = hn::Add(to_sum, v);
      to_dot = hn::MulAdd(v, hn::Sub(hn::LoadU(d, x + i), s), to_dot);
    };
    int64_t i = done;
    for (; i + 3 * width + lanes <= n; i += 4 * width) {
      add(i, s0, d0);
      add(i + width, s1, d1);
      add(i + 2 * width, s2, d2);
      add(i + 3 * width, s3, d3);
    }
    for (; i + lanes <= n; i += width) add(i, s0, d0);
    hn::Store(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), d, sums);
    hn::Store(hn::Add(hn::Add(d0, d1), hn::Add(d2, d3)), d, dots);
    for (int64_t k = 0; k < lanes; ++k) {
      const int64_t j = width == period ? done + k : k % period;
      sum[j] += sums[k];
      dot[j] += dots[k];
    }
  }
  for (int64_t i = done > 0 ? n / width * width : 0; i < n; ++i) {
    sum[i % period] += a[i];
    dot[i % period] += a[i] * (x[i] - shift[i % period]);
  }
}

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {
HWY_EXPORT(Find);
HWY_EXPORT(AffineTile);
HWY_EXPORT(SumTile);
HWY_EXPORT(AddRows);
HWY_EXPORT(AddSquaredRows);
HWY_EXPORT(AddDotRows);
TileFn tile_fn(TileOp op, DType in, DType out) { return HWY_DYNAMIC_DISPATCH(Find)(op, in, out); }
void affine_tile(int terms, const float* const* x, const float* const* coefficients, const float* shift, bool relu,
                 int64_t width, float* out, int64_t n) {
  HWY_DYNAMIC_DISPATCH(AffineTile)(terms, x, coefficients, shift, relu, width, out, n);
}
double sum_tile(const float* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(SumTile)(x, n); }
void add_rows(const float* x, int64_t n, int64_t period, double* acc) {
  HWY_DYNAMIC_DISPATCH(AddRows)(x, n, period, acc);
}
void add_squared_rows(const float* x, int64_t n, int64_t period, const float* shift, double* acc) {
  HWY_DYNAMIC_DISPATCH(AddSquaredRows)(x, n, period, shift, acc);
}
void add_dot_rows(const float* a, const float* x, const float* shift, int64_t n, int64_t period, double* sum,
                  double* dot) {
  HWY_DYNAMIC_DISPATCH(AddDotRows)(a, x, shift, n, period, sum, dot);
}
}  // namespace deepseek::backends::cpu
#endif
