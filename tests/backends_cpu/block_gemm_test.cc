// Small products of several blocks against plain sums, for all shares of blocks and columns.
#include "backends/cpu/block_gemm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/dtype.h"

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

// Of bf16, against sums in double of what its values are.
TEST(BlockGemm, MultipliesPairsOfBf16) {
  if (!has_bf16_products()) GTEST_SKIP() << "this CPU has no bf16 products";
  constexpr int64_t kBlock = kHalfBlock, kDepth = 7, kCount = 2, kPairs = (kDepth + 1) / 2;  // odd: a zero is added
  const auto halves = [](int64_t n, int seed) {
    std::vector<uint16_t> out;
    for (const float x : numbers(n, seed)) out.push_back(f32_to_bf16(x));
    return out;
  };
  for (int64_t columns = 1; columns <= 19; ++columns)
    for (int64_t blocks = 1; blocks <= BlockGemm::most_blocks(kBlock); ++blocks) {
      const std::vector<uint16_t> a = halves(kCount * blocks * kDepth * kBlock, 1),
                                  b = halves(kCount * kDepth * columns, 2);
      std::vector<uint32_t> packed_a(static_cast<size_t>(kCount * blocks * kPairs * kBlock));
      std::vector<uint32_t> packed_b(static_cast<size_t>(kCount * kPairs * columns));
      for (int64_t i = 0; i < kCount * blocks; ++i)
        pack_pairs(a.data() + i * kDepth * kBlock, kDepth, kBlock, kBlock, packed_a.data() + i * kPairs * kBlock);
      for (int64_t i = 0; i < kCount; ++i)
        pack_pairs(b.data() + i * kDepth * columns, kDepth, columns, columns, packed_b.data() + i * kPairs * columns);
      const Result<BlockGemm> gemm =
          BlockGemm::make({kBlock, columns, kPairs, kPairs * kBlock, 1, columns, columns * kBlock, kBlock, true});
      ASSERT_TRUE(gemm.ok()) << gemm.status().to_string();
      const std::vector<float> before = numbers(blocks * columns * kBlock, 3);
      for (const bool accumulate : {true, false}) {
        std::vector<float> c = before;
        std::vector<const float*> as, bs;
        for (int64_t i = 0; i < kCount; ++i) {
          as.push_back(reinterpret_cast<const float*>(packed_a.data()) + i * blocks * kPairs * kBlock);
          bs.push_back(reinterpret_cast<const float*>(packed_b.data()) + i * kPairs * columns);
        }
        (*gemm)(as.data(), bs.data(), kCount, c.data(), blocks, accumulate);
        for (int64_t at = 0; at < blocks * columns * kBlock; ++at) {
          const int64_t f = at / (columns * kBlock), j = at / kBlock % columns, i = at % kBlock;
          double sum = accumulate ? before[static_cast<size_t>(at)] : 0;
          for (int64_t n = 0; n < kCount; ++n)
            for (int64_t k = 0; k < kDepth; ++k)
              sum += static_cast<double>(
                         bf16_to_f32(a[static_cast<size_t>(((n * blocks + f) * kDepth + k) * kBlock + i)])) *
                     bf16_to_f32(b[static_cast<size_t>((n * kDepth + k) * columns + j)]);
          ASSERT_NEAR(c[static_cast<size_t>(at)], sum, 1e-5) << columns << " " << blocks << " " << at;
        }
      }
    }
}

TEST(BlockGemm, NarrowsToNearestEven) {
  for (const int64_t n : {3, 16, 48}) {
    const std::vector<float> x = numbers(n, 5);
    std::vector<uint16_t> y(x.size());
    narrow(x.data(), n, y.data());
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], f32_to_bf16(x[i])) << x[i];
  }
}

}  // namespace
}  // namespace deepseek::backends::cpu
