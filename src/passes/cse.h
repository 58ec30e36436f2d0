// Common subexpressions: of nodes with the same op, inputs and attributes, the first serves for all; not of random
// ones. Given:  %1 = exp(%0); %2 = exp(%0); %3 = add(%1, %2) Result: %1 = exp(%0); %2 = add(%1, %1) Test:
// tests/passes/golden_test.cc
#pragma once

#include "passes/driver.h"

namespace deepseek::passes {

Result<graph::Graph> cse(const graph::Graph& graph, const PassContext& context = {});

}  // namespace deepseek::passes
