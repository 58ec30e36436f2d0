#include "base/fork.h"

#include <omp.h>
#include <pthread.h>

namespace deepseek {

void survive_forks() {
  static const int registered = pthread_atfork([] { omp_pause_resource_all(omp_pause_hard); }, nullptr, nullptr);
  static_cast<void>(registered);
}

}  // namespace deepseek
