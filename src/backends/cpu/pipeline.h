// Which passes a graph goes through before kernels are chosen, and in which order.
// Test: tests/backends_cpu/program_test.cc, tests/passes/driver_test.cc
#pragma once

#include <span>

#include "passes/driver.h"
#include "runtime/program.h"

namespace deepseek::backends::cpu {

// Before all, and after it; between them those of pipeline().
constexpr std::string_view kBindInputs = "bind_inputs", kPrecompute = "precompute";
// Only where a memory limit asks for it, with loops fused once more.
constexpr std::string_view kRecompute = "recompute", kFuseRecomputed = "fuse_recomputed";

std::span<const passes::Pass> pipeline();

// That all of options.disabled_passes are passes that may be disabled: a misspelt name would silently measure the wrong
// thing, and without bind_inputs or decompose_composites there is no right program.
Status check_passes(const runtime::CompileOptions& options);

}  // namespace deepseek::backends::cpu
