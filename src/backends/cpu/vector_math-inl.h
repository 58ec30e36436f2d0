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

template <class D, class V>
HWY_INLINE V SafeExp(D d, V x) {  // hwy's Exp is defined up to 104; beyond it the result is infinite
  const V y = hn::Exp(d, hn::IfThenElse(hn::Gt(x, hn::Set(d, 89.0f)), hn::Set(d, 0.0f), x));
  const V inf = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::IsNaN(x), x, hn::IfThenElse(hn::Gt(x, hn::Set(d, 89.0f)), inf, y));
}

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
