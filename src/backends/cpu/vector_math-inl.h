// Vector functions on f32 that are defined for every argument, for files that are compiled once per instruction set:
// include it after hwy's foreach_target.h. Test: tests/ops/samples_test.cc
#if defined(DEEPSEEK_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEEPSEEK_VECTOR_MATH_INL_H_
#undef DEEPSEEK_VECTOR_MATH_INL_H_
#else
#define DEEPSEEK_VECTOR_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <limits>

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x for every x: beyond the range of f32 the result is infinite or 0.
template <class D, class V>
HWY_INLINE V SafeExp(D d, V x) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if constexpr (hn::MaxLanes(D()) == 16) {
    // x = n ln 2 + r; e^r by a fit for |r| <= ln 2 / 2, of less than half a rounding. Scaling by 2^n saturates by
    // itself.
    const auto c = [](float v) HWY_ATTR { return _mm512_set1_ps(v); };
    // Of these the second operand is the result where one is NaN.
    const __m512 t = _mm512_min_ps(c(105.0f), _mm512_max_ps(c(-105.0f), x.raw));
    const __m512 n =
        _mm512_roundscale_ps(_mm512_mul_ps(t, c(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, c(0.693145752f), t);
    r = _mm512_fnmadd_ps(n, c(1.42860677e-6f), r);
    __m512 p = _mm512_fmadd_ps(r, c(0.00139337021f), c(0.00836321432f));
    p = _mm512_fmadd_ps(p, r, c(0.041666463f));
    p = _mm512_fmadd_ps(p, r, c(0.166665763f));
    p = _mm512_fmadd_ps(p, r, c(0.5f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    return V{_mm512_scalef_ps(_mm512_add_ps(p, c(1.0f)), n)};
  }
#endif
  // hwy's Exp is defined up to 104.
  const V y = hn::Exp(d, hn::IfThenElse(hn::Gt(x, hn::Set(d, 89.0f)), hn::Set(d, 0.0f), x));
  const V inf = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Gt(x, hn::Set(d, 89.0f)), inf, y));
}

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
