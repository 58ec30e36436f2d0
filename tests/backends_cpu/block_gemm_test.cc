// Small products of several blocks against plain sums, for all shares of blocks and columns.
#include "backends/cpu/block_gemm.h"

#include <gtest/gtest.h>

#include <cmath>

namespace deepseek::backends::cpu {
namespace {

std::vector<float> numbers(int64_t n, int seed) {
  std::vector<float> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = static_cast<float>((i * 7 + seed) % 13) / 8 - 0.7f;
  return out;
}

TEST(BlockGemm, EqualsPlainSums) {
  for (const int64_t block : {8, 16, 32})
    for (int64_t columns = 1; columns <= 19; ++columns)
      for (const bool along : {true, false})  // which of b's strides is 1
        for (int64_t blocks = 1; blocks <= BlockGemm::most_blocks(block); ++blocks) {
          const int64_t depth = 5, count = 3, b_rows = std::max(columns, depth) + 2;
          const BlockGemmShape s{
              block, columns, depth, depth * block + 16, along ? 1 : b_rows, along ? b_rows : 1, columns * block + 16,
              block};
          const Result<BlockGemm> gemm = BlockGemm::make(s);
          if (!gemm.ok()) GTEST_SKIP() << gemm.status().to_string();  // no code generator for this CPU
          const std::vector<float> a = numbers(count * blocks * s.a_stride, 1), b = numbers(count * b_rows * b_rows, 2);
          const std::vector<float> before = numbers(blocks * s.c_stride, 3);
          for (const bool accumulate : {true, false}) {
            std::vector<float> c = before;
            std::vector<const float*> as, bs;
            for (int64_t i = 0; i < count; ++i) {
              as.push_back(a.data() + i * blocks * s.a_stride);
              bs.push_back(b.data() + i * b_rows * b_rows);
            }
            const std::vector<const float*> from_a = as, from_b = bs;
            (*gemm)(as.data(), bs.data(), count, c.data(), blocks, accumulate);
            for (int64_t f = 0; f < blocks; ++f)
              for (int64_t j = 0; j < columns; ++j)
                for (int64_t i = 0; i < block; ++i) {
                  const auto at = static_cast<size_t>(f * s.c_stride + j * s.c_column + i);
                  double sum = accumulate ? before[at] : 0;
                  for (size_t p = 0; p < from_a.size(); ++p)
                    for (int64_t k = 0; k < depth; ++k)
                      sum += static_cast<double>(from_a[p][f * s.a_stride + k * block + i]) *
                             from_b[p][j * s.b_column + k * s.b_depth];
                  ASSERT_NEAR(c[at], sum, 1e-5)
                      << block << " " << columns << " " << blocks << " " << along << accumulate << " " << j << " " << i;
                }
          }
        }
}

}  // namespace
}  // namespace deepseek::backends::cpu
