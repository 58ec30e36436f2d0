#include "base/interrupt.h"

#include <unistd.h>

namespace deepseek {

namespace {

volatile std::sig_atomic_t arrived = 0;

void on_signal(int number) {
  if (arrived) _exit(128 + number);  // the second one means it
  arrived = 1;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  arrived = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // system calls under way, such as the checkpoint's writes, go on
  sigaction(SIGINT, &action, &old_int_);
  sigaction(SIGTERM, &action, &old_term_);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &old_int_, nullptr);
  sigaction(SIGTERM, &old_term_, nullptr);
}

bool InterruptGuard::requested() const { return arrived != 0; }

}  // namespace deepseek
