#include "backends/cpu/rows.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/rows.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include "backends/cpu/vector_math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other files have such functions too
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(D())); }

// The last n < Lanes() elements; what lies beyond them is `rest`.
V LoadPart(const float* x, int64_t n, float rest) {
  const D d;
  HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)];
  std::fill_n(buffer, Lanes(), rest);
  std::copy_n(x, n, buffer);
  return hn::Load(d, buffer);
}
void StorePart(V v, float* y, int64_t n) {
  const D d;
  HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, buffer);
  std::copy_n(buffer, n, y);
}

// A NaN makes the result NaN, as the sum of exponentials would.
float Max(const float* x, int64_t n) {
  const D d;
  const float low = -std::numeric_limits<float>::infinity();
  V a = hn::Set(d, low), b = a;
  int64_t i = 0;
  for (; i + 2 * Lanes() <= n; i += 2 * Lanes()) {
    a = hn::Max(a, hn::LoadU(d, x + i));
    b = hn::Max(b, hn::LoadU(d, x + i + Lanes()));
  }
  for (; i < n; i += Lanes()) b = hn::Max(b, i + Lanes() <= n ? hn::LoadU(d, x + i) : LoadPart(x + i, n - i, low));
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
}

// The sum of exp(x - shift); the terms go to y where it is not null.
float ExpSum(const float* x, int64_t n, float shift, float* y) {
  const D d;
  const V s = hn::Set(d, shift);
  V total = hn::Zero(d), other = total;
  int64_t i = 0;
  for (; i + 2 * Lanes() <= n; i += 2 * Lanes()) {
    const V e = SafeExp(d, hn::Sub(hn::LoadU(d, x + i), s));
    const V f = SafeExp(d, hn::Sub(hn::LoadU(d, x + i + Lanes()), s));
    total = hn::Add(total, e);
    other = hn::Add(other, f);
    if (y == nullptr) continue;
    hn::StoreU(e, d, y + i);
    hn::StoreU(f, d, y + i + Lanes());
  }
  for (; i < n; i += Lanes()) {
    const bool whole = i + Lanes() <= n;
    const V part = whole ? hn::LoadU(d, x + i) : LoadPart(x + i, n - i, -std::numeric_limits<float>::infinity());
    const V e = SafeExp(d, hn::Sub(part, s));
    total = hn::Add(total, e);
    if (y != nullptr && whole) hn::StoreU(e, d, y + i);
    if (y != nullptr && !whole) StorePart(e, y + i, n - i);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(total, other)));
}

void Softmax(const float* x, int64_t n, float* y) {
  const float factor = 1 / ExpSum(x, n, Max(x, n), y);
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

void LogSoftmax(const float* x, int64_t n, float* y) {
  const float shift = Max(x, n);
  const float log_sum = std::log(ExpSum(x, n, shift, nullptr));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] - shift - log_sum;
}

void SoftmaxGrad(const float* y, const float* dy, int64_t n, float* dx) {
  const D d;
  V a = hn::Zero(d), b = a;
  int64_t i = 0;
  for (; i + 2 * Lanes() <= n; i += 2 * Lanes()) {
    a = hn::MulAdd(hn::LoadU(d, y + i), hn::LoadU(d, dy + i), a);
    b = hn::MulAdd(hn::LoadU(d, y + i + Lanes()), hn::LoadU(d, dy + i + Lanes()), b);
  }
  float dot = hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
  for (; i < n; ++i) dot += y[i] * dy[i];
  for (i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - dot);
}

void LogSoftmaxGrad(const float* y, const float* dy, int64_t n, float* dx) {
  const D d;
  V a = hn::Zero(d);
  int64_t i = 0;
  for (; i + Lanes() <= n; i += Lanes()) a = hn::Add(a, hn::LoadU(d, dy + i));
  float total = hn::GetLane(hn::SumOfLanes(d, a));
  for (; i < n; ++i) total += dy[i];
  const V t = hn::Set(d, total);
  for (i = 0; i < n; i += Lanes()) {
    const bool whole = i + Lanes() <= n;
    const V e = SafeExp(d, whole ? hn::LoadU(d, y + i) : LoadPart(y + i, n - i, 0));
    const V g = whole ? hn::LoadU(d, dy + i) : LoadPart(dy + i, n - i, 0);
    const V result = hn::NegMulAdd(e, t, g);
    if (whole)
      hn::StoreU(result, d, dx + i);
    else
      StorePart(result, dx + i, n - i);
  }
}

RowFunctions Functions() { return {Softmax, LogSoftmax, SoftmaxGrad, LogSoftmaxGrad}; }

}  // namespace
}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {
HWY_EXPORT(Functions);
const RowFunctions& row_functions() {
  static const RowFunctions functions = HWY_DYNAMIC_DISPATCH(Functions)();
  return functions;
}
}  // namespace deepseek::backends::cpu
#endif
