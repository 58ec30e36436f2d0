// SIGINT and SIGTERM as a question that long work asks between steps, so that it can save before it ends. A second
// signal ends the process at once. Test: tests/base/interrupt_test.cc
#pragma once

#include <csignal>

namespace deepseek {

// While it lives, SIGINT and SIGTERM set a flag instead of ending the process; earlier handlers come back afterwards.
// One at a time per process.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Has a signal arrived since the guard was made?
  bool requested() const;

 private:
  struct sigaction old_int_, old_term_;
};

}  // namespace deepseek
