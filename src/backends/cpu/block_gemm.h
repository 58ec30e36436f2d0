// Products for kernels on blocked channels: several blocks of the result at once, so that each value of b that is
// loaded serves them all. Test: tests/backends_cpu/block_gemm_test.cc
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/microgemm.h"

namespace deepseek::backends::cpu {

// C[f][j][i] = sum over pairs (A, B) of the batch and over k < depth of A[f][k][i] * B[j][k], for i in a block of
// `block` contiguous elements. Strides are in elements.
// Of bf16, an element of A and of B is two of them, neighbours along the sum, whose products are added up; C is f32.
struct BlockGemmShape {
  int64_t block = 0, columns = 0, depth = 0;
  int64_t a_stride = 0;                // of f; of k it is `block`
  int64_t b_column = 0, b_depth = 0;   // of j and of k; one of them is 1
  int64_t c_stride = 0, c_column = 0;  // of f and of j
  bool bf16 = false;
};

// Whether this CPU multiplies pairs of bf16, in blocks of kHalfBlock channels.
bool has_bf16_products();
constexpr int64_t kHalfBlock = 16;
// Rows of bf16, `pitch` apart, to pairs of rows [ceil(rows / 2), width, 2]; where one is missing, zeros.
void pack_pairs(const uint16_t* from, int64_t rows, int64_t pitch, int64_t width, uint32_t* to);
// To bf16, rounded to nearest even.
void narrow(const float* from, int64_t n, uint16_t* to);

class BlockGemm {
 public:
  // How many blocks a call may be given.
  static int64_t most_blocks(int64_t block);
  // kUnsupported where there is no code for this CPU and such blocks.
  static Status takes(int64_t block, bool bf16);
  // Of blocks that it takes.
  static Result<BlockGemm> make(const BlockGemmShape& shape);
  // `count` >= 1 pairs of operands, whose pointers may be changed; `blocks` in [1, most_blocks]; `accumulate` adds to
  // C. Of bf16, a and b point to pairs.
  void operator()(const float** a, const float** b, int64_t count, float* c, int64_t blocks, bool accumulate) const;

 private:
  BlockGemmShape shape_;
  bool wide_ = false;
  MicroGemm overwrite_, add_;  // if not wide
};

// The blocks of a result in shares that one call makes, as even as they come.
struct Shares {
  int64_t blocks = 0, count = 0;  // of all; of shares
  Shares() = default;
  // At least `least` of them, if there are as many blocks.
  Shares(int64_t all, int64_t block, int64_t least = 1) : blocks(all) {
    const int64_t most = BlockGemm::most_blocks(block);
    count = std::clamp<int64_t>(least, (all + most - 1) / most, all);
  }
  int64_t first(int64_t share) const { return share * blocks / count; }
  int64_t most() const { return (blocks + count - 1) / count; }
};

}  // namespace deepseek::backends::cpu
