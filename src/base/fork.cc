#include "base/fork.h"

#include <omp.h>
#include <pthread.h>

namespace deepseek {

void survive_forks() {
#ifndef KMP_VERSION_MAJOR  // LLVM's OpenMP begins anew in a child by itself, and doesn't survive being paused before
  static const int registered = pthread_atfork([] { omp_pause_resource_all(omp_pause_hard); }, nullptr, nullptr);
  static_cast<void>(registered);
#endif
}

}  // namespace deepseek
