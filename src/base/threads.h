// Parallel loops on the OpenMP pool that oneDNN also uses: a loop inside a loop runs on its thread alone. Several
// threads that each start a loop have a pool each. Test: tests/base/threads_test.cc
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/status.h"

namespace deepseek {

constexpr int kMaxThreads = 4096;

// Default: the number of cores this process may use, or OMP_NUM_THREADS. What is set holds in all threads, also those
// that run already: OpenMP keeps a number for each, which num_threads() brings up to date.
int num_threads();
// Errors: kInvalidArgument outside [1, kMaxThreads], and where the system has no room for so many.
Status set_num_threads(int64_t n);

namespace internal {
void parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context);
}  // namespace internal

// Splits [0, n) into at most num_threads() contiguous ranges of at least `grain` items and calls body(begin, end) on
// each. The split depends only on n, grain and the thread count, never on timing. The first exception that leaves a
// body is thrown again by the caller, once all ranges have ended.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  using B = std::remove_reference_t<Body>;
  internal::parallel_ranges(
      n, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<B*>(context))(begin, end); },
      const_cast<std::remove_const_t<B>*>(&body));
}

}  // namespace deepseek
