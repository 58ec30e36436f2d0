// The one place where exceptions become errors: what a room offers runs its work in guarded(), so that memory that is
// not there, or what a library throws, comes back as a Status. Test: tests/base/guard_test.cc
#pragma once

#include <string_view>
#include <type_traits>

#include "base/status.h"

namespace deepseek {

// In a catch block: the exception under way as an error. `where` stands before what it says: "while reading 'a.png'".
Status status_of_exception(std::string_view where) noexcept;

// f(), which returns a Status or Result; what it throws is an error of the same kind.
template <class F>
std::invoke_result_t<F&> guarded(std::string_view where, F&& f) {
  try {
    return f();
  } catch (...) {
    return status_of_exception(where);
  }
}

}  // namespace deepseek
