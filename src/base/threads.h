// Parallel loops on the OpenMP pool that oneDNN also uses, so that the two never fight over cores.
// Test: tests/base/threads_test.cc
#pragma once

#include <cstdint>
#include <type_traits>

namespace deepseek {

// Default: the number of cores this process may use, or OMP_NUM_THREADS. set_num_threads(n) with n >= 1.
int num_threads();
void set_num_threads(int n);

namespace internal {
void parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);
}  // namespace internal

// Splits [0, n) into at most num_threads() contiguous ranges of at least `grain` items and calls body(begin, end) on
// each. The split depends only on n, grain and the thread count, never on timing. Exceptions must not leave body.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  using B = std::remove_reference_t<Body>;
  internal::parallel_ranges(
      n, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<B*>(context))(begin, end); },
      const_cast<std::remove_const_t<B>*>(&body));
}

}  // namespace deepseek
