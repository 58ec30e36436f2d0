// What this machine can do, measured with all threads: f32 multiply-adds on registers, and the triad a = b + s c over
// arrays beyond the caches, of which the fastest rounds count. Test: tests/backends_cpu/peak_test.cc
#pragma once

#include "runtime/program.h"

namespace deepseek::backends::cpu {

// About 0.15 s each; the memory it needs, up to 384 MiB, is given back.
runtime::Peak measure_peak();

}  // namespace deepseek::backends::cpu
