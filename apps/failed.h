// How the programs end on an error: its text on stderr, and the exit code.
#pragma once

#include <fmt/core.h>

#include "base/status.h"

namespace deepseek {

inline int failed(const Status& status) {
  fmt::print(stderr, "error: {}\n", status.to_string());
  if (status.code() == ErrorCode::kInterrupted) return 130;
  return status.code() == ErrorCode::kInvalidArgument ? 2 : 1;
}

}  // namespace deepseek
