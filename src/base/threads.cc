#include "base/threads.h"

#include <omp.h>

#include <algorithm>

#include "base/fork.h"

namespace deepseek {

int num_threads() { return omp_get_max_threads(); }
void set_num_threads(int n) { omp_set_num_threads(std::max(1, n)); }

void internal::parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  if (n <= 0) return;
  const int64_t parts =
      std::min<int64_t>(omp_in_parallel() ? 1 : num_threads(), std::max<int64_t>(1, n / std::max<int64_t>(1, grain)));
  if (parts == 1) return body(context, 0, n);
  survive_forks();
#pragma omp parallel num_threads(static_cast <int>(parts))
  {
    const int64_t part = omp_get_thread_num();
    const int64_t count = omp_get_num_threads();
    body(context, n * part / count, n * (part + 1) / count);
  }
}

}  // namespace deepseek
