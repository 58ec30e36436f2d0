#include "gil.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace deepseek::python {

namespace {

// How long the end of the interpreter waits for threads at work: a run ends on its own, a callback may not.
constexpr std::chrono::seconds kPatience{10};

struct Threads {
  std::mutex mutex;
  std::condition_variable changed;
  int at_work = 0;  // threads in a Released, until they have the lock again
  std::atomic<bool> ending = false;
  std::thread::id last;  // the thread that ends the interpreter
};
Threads& threads() {
  static Threads* const t = new Threads;  // outlives every thread
  return *t;
}
thread_local int depth = 0;  // of Released on this thread

[[noreturn]] void wait_for_the_end() {
  while (true) pause();
}

void begin_work() {
  if (depth++ > 0) return;
  const std::lock_guard lock(threads().mutex);
  ++threads().at_work;
}
void end_work() {
  if (--depth > 0) return;
  const std::lock_guard lock(threads().mutex);
  --threads().at_work;
  threads().changed.notify_all();
}
// Before this thread takes the lock: not any more once the interpreter ends.
void may_return() {
  Threads& t = threads();
  {
    const std::lock_guard lock(t.mutex);
    if (!t.ending || t.last == std::this_thread::get_id()) return;
    if (depth > 0) --t.at_work;
    t.changed.notify_all();
  }
  wait_for_the_end();
}

void end() {
  Threads& t = threads();
  PyThreadState* const state = PyEval_SaveThread();  // those on their way back still get it
  {
    std::unique_lock lock(t.mutex);
    t.last = std::this_thread::get_id();
    t.ending = true;
    const int own = depth > 0 ? 1 : 0;
    t.changed.wait_for(lock, kPatience, [&] { return t.at_work <= own; });
  }
  PyEval_RestoreThread(state);
}

// A child of fork() has one thread, whatever its parent's threads did meanwhile.
void after_fork() {
  Threads* const t = &threads();
  new (&t->mutex) std::mutex;
  new (&t->changed) std::condition_variable;
  t->at_work = depth > 0 ? 1 : 0;
}

}  // namespace

Released::Released() {
  begin_work();
  state_ = PyEval_SaveThread();
  may_return();  // a thread that begins work when the interpreter ends does not begin
}
Released::~Released() {
  may_return();
  PyEval_RestoreThread(state_);
  end_work();
}

Acquired::Acquired() {
  if (!PyGILState_Check()) may_return();
  state_ = PyGILState_Ensure();
}
Acquired::~Acquired() { PyGILState_Release(state_); }

bool is_ending() { return threads().ending; }

bool may_touch_python() noexcept {
  Threads& t = threads();
  if (t.ending) {
    const std::lock_guard lock(t.mutex);
    if (t.last != std::this_thread::get_id()) return false;
  }
  return Py_IsInitialized() != 0;
}

void watch_the_end() {
  pthread_atfork(nullptr, nullptr, after_fork);
  nanobind::module_::import_("atexit").attr("register")(nanobind::cpp_function(&end));
}

}  // namespace deepseek::python
