#include "base/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <latch>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/fork.h"

namespace deepseek {
namespace {

std::atomic<int> chosen{0};  // by set_num_threads(); 0: nothing yet

// OpenMP ends the process where it can't start a thread, so it is tried here first.
Status try_threads(int n) {
  static std::mutex mutex;
  static int tried = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::lock_guard lock(mutex);
  if (n <= tried) return {};
  std::latch over(1);
  std::vector<std::thread> threads;
  Status status;
  try {
    threads.reserve(static_cast<size_t>(n));
    for (int i = 1; i < n; ++i) threads.emplace_back([&over] { over.wait(); });
  } catch (const std::exception& e) {
    status = invalid("threads: the system has room for {}, got {}: {}; raise the limit (ulimit -u) or take fewer",
                     threads.size() + 1, n, e.what());
  }
  over.count_down();
  for (std::thread& thread : threads) thread.join();
  if (status.ok()) tried = n;
  return status;
}

}  // namespace

int num_threads() {
  const int own = omp_get_max_threads(), wanted = chosen.load(std::memory_order_relaxed);
  if (wanted == 0 || own == wanted) return own;
  omp_set_num_threads(wanted);  // of this thread, for oneDNN's loops
  return wanted;
}

Status set_num_threads(int64_t n) {
  if (n < 1 || n > kMaxThreads) return invalid("threads: expected 1 to {}, got {}", kMaxThreads, n);
  DS_TRY(try_threads(static_cast<int>(n)));
  chosen = static_cast<int>(n);
  omp_set_num_threads(static_cast<int>(n));
  return {};
}

void internal::parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  if (n <= 0) return;
  const int64_t parts =
      std::min<int64_t>(omp_in_parallel() ? 1 : num_threads(), std::max<int64_t>(1, n / std::max<int64_t>(1, grain)));
  if (parts == 1) return body(context, 0, n);
  survive_forks();
  std::exception_ptr thrown;
#pragma omp parallel num_threads(static_cast <int>(parts))
  {
    const int64_t part = omp_get_thread_num();
    const int64_t count = omp_get_num_threads();
    try {
      body(context, n * part / count, n * (part + 1) / count);
    } catch (...) {  // none may leave the region
#pragma omp critical(deepseek_parallel_ranges)
      if (!thrown) thrown = std::current_exception();
    }
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace deepseek
