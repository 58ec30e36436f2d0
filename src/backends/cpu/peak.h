// What this machine can do, measured with all threads: f32 multiply-adds on registers, and the triad a = b + s c over
// arrays beyond the caches. Medians of short rounds per thread, so that a busy machine gives about the same. Test:
// tests/backends_cpu/peak_test.cc
#pragma once

#include "runtime/program.h"

namespace deepseek::backends::cpu {

// About 0.15 s each; the memory it needs, about 400 MiB at most, is given back.
runtime::Peak measure_peak();

}  // namespace deepseek::backends::cpu
