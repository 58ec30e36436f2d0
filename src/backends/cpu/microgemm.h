// A small matrix product compiled for its sizes at run time (libxsmm), for kernels that block a larger one around it.
// Column-major as in BLAS: C[m, n] = sum over the batch of A[m, k] B[k, n], added to C if `accumulate`.
// Test: tests/ops/samples_test.cc (the blocked convolutions)
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/status.h"

namespace deepseek::backends::cpu {

struct MicroGemmShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;  // A(i, p) = a[p * lda + i], C(i, j) = c[j * ldc + i]
  bool transpose_b = false;           // B(p, j) = b[j * ldb + p], or b[p * ldb + j] if transposed
  bool accumulate = false;
};

// Whether the code generated here has vectors of 16 floats; otherwise they are of 8, or there is none.
bool has_wide_vectors();

class MicroGemm {
 public:
  // kUnsupported where libxsmm has no code generator for this CPU, or for products of such sizes and strides.
  static Status takes(std::initializer_list<int64_t> sizes = {});
  // Of a shape whose sizes it takes.
  static Result<MicroGemm> make(const MicroGemmShape& shape);
  // `count` >= 1 pairs of operands; the code moves the pointers in a and b.
  void operator()(const float** a, const float** b, unsigned long long count, float* c) const {
    function_(a, b, c, &count);
  }

 private:
  using Function = void (*)(const float** a, const float** b, float* c, const unsigned long long* count, ...);
  Function function_ = nullptr;
};

}  // namespace deepseek::backends::cpu
