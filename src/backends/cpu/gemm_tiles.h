// The inner loops of f32 matrix products, compiled once per instruction set and chosen at run time.
// Test: tests/backends_cpu/gemm_test.cc
#pragma once

#include <cstdint>

namespace deepseek::backends::cpu {

// A tile of y: y[i * y_row + j] = sum over k < depth of a(i, k) * b(k, j), added to y if `accumulate`.
struct GemmTile {
  int64_t rows = 0, columns = 0, depth = 0;
  const float* a = nullptr;  // a(i, k) = a[i * a_row + k * a_depth]
  int64_t a_row = 0, a_depth = 0;
  const float* b = nullptr;  // b(k, j) = b[k * b_step + j]; in inner products b[j * b_step + k], and a_depth is 1
  int64_t b_step = 0;
  float* y = nullptr;
  int64_t y_row = 0;
  bool accumulate = false;
};

struct GemmFunctions {
  int64_t rows, columns;  // the most of a tile
  void (*outer)(const GemmTile&);
  // For any number of columns; sums along k stay apart in each lane until the end, and nothing is accumulated.
  void (*inner)(const GemmTile&);
  // b(k, j) for k < depth, j < n <= columns as rows of `columns` floats, zeros where there is no b; b(k, j) is
  // b[k * step + j], or b[j * step + k].
  void (*pack)(const float* b, int64_t step, int64_t depth, int64_t n, float* to);
  void (*pack_transposed)(const float* b, int64_t step, int64_t depth, int64_t n, float* to);
};
GemmFunctions gemm_functions();

}  // namespace deepseek::backends::cpu
