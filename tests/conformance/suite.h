// What every backend owes, as checks that say what is wrong: each op sample forward and backward, state, donation,
// buffers, threads, errors, memory. A new backend is developed against them (src/backends/null is the shortest that
// passes): build/tests/test_conformance --backend=NAME [--gtest_filter=...].
#pragma once

#include <string>
#include <vector>

#include "runtime/backend.h"

namespace deepseek::conformance {

// One line per thing that is wrong; empty where all is right.
using Failures = std::vector<std::string>;

struct Check {
  std::string name, doc;
  Failures (*run)(const runtime::Backend&);
};
const std::vector<Check>& checks();

// The samples of one op: its outputs, and the gradients of all float inputs, against the reference kernels in double.
Failures check_forward(const runtime::Backend& backend, const std::string& op);
Failures check_gradient(const runtime::Backend& backend, const std::string& op);

}  // namespace deepseek::conformance
