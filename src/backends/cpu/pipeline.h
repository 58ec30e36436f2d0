// Which passes a graph goes through before kernels are chosen, and in which order.
// Test: tests/backends_cpu/program_test.cc
#pragma once

#include "graph/graph.h"
#include "runtime/program.h"

namespace deepseek::backends::cpu {

// The pass that runs only where a memory limit asks for it; like the others it may be disabled by its name.
constexpr std::string_view kRecompute = "recompute";

// An unknown name among options.disabled_passes is an error.
Result<graph::Graph> optimize(const graph::Graph& graph, const runtime::CompileOptions& options);
// Element-wise nodes that came after the other passes, as loops.
Result<graph::Graph> fuse_loops(const graph::Graph& graph, const runtime::CompileOptions& options);

}  // namespace deepseek::backends::cpu
