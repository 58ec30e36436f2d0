// The interpreter's lock. C++ works without it (Released, without_gil) and takes it back to call Python (Acquired).
// Invariants: an exception that leaves such work is thrown on with the lock held; once the interpreter ends, a thread
// that comes back for the lock waits for the end of the process instead, since Python would unwind it through C++.
// Test: tests/python/test_processes.py
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>

namespace deepseek::python {

// Without the lock, for a scope.
class Released {
 public:
  Released();
  ~Released();
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

 private:
  PyThreadState* state_;
};

// With it, for a scope: in what C++ calls back, on any thread; no harm where it is held already.
class Acquired {
 public:
  Acquired();
  ~Acquired();
  Acquired(const Acquired&) = delete;
  Acquired& operator=(const Acquired&) = delete;

 private:
  PyGILState_STATE state_;
};

// f() without the lock, which is held again when it returns or throws.
template <class F>
auto without_gil(F&& f) {
  const Released released;
  return std::forward<F>(f)();
}

// Whether the interpreter ends, or has ended: long work stops then.
bool is_ending();

// Whether this thread may still touch Python's objects.
bool may_touch_python() noexcept;

// A Python object, or what holds one, that C++ keeps and lets go on any thread. Once the interpreter has ended it
// stays.
template <class T>
std::shared_ptr<T> kept(T value) {
  return {new T(std::move(value)), [](T* held) {
            if (!may_touch_python()) return;
            const Acquired gil;
            delete held;
          }};
}

// Each extension module calls this when it is loaded: from then on the end of the interpreter waits for threads at
// work.
void watch_the_end();

}  // namespace deepseek::python
