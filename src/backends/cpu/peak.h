// What this machine can do, measured with all threads: f32 multiply-adds on registers, and the triad a = b + s c over
// arrays beyond the caches. Medians of short rounds per thread, so that a busy machine gives about the same. Test:
// tests/backends_cpu/peak_test.cc
#pragma once

#include "runtime/program.h"

namespace deepseek::backends::cpu {

// About 0.15 s each. The memory it needs is given back: three arrays as large as the last-level cache, but 32 to 128 MiB,
// and 1 MiB per thread at least.
runtime::Peak measure_peak();

}  // namespace deepseek::backends::cpu
