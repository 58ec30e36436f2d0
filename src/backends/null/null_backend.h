// The shortest right backend: host buffers of its own and the ops' reference kernels, for every dtype and op. What a new
// backend must do, and nothing else: start from a copy. Slow; its numbers are what ops mean.
// Test: tests/conformance
#pragma once

#include "base/status.h"

namespace deepseek::backends::null {

// As "null".
Status register_null();

}  // namespace deepseek::backends::null
