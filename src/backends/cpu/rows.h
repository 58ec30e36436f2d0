// f32 operations on one contiguous row, compiled once per instruction set and chosen at run time; y may be x.
// Test: tests/ops/samples_test.cc, tests/backends_cpu/kernels_test.cc
#pragma once

#include <cstdint>

namespace deepseek::backends::cpu {

struct RowFunctions {
  void (*softmax)(const float* x, int64_t n, float* y);
  void (*log_softmax)(const float* x, int64_t n, float* y);
  // From the result y and its gradient.
  void (*softmax_grad)(const float* y, const float* dy, int64_t n, float* dx);
  void (*log_softmax_grad)(const float* y, const float* dy, int64_t n, float* dx);
};
const RowFunctions& row_functions();

}  // namespace deepseek::backends::cpu
