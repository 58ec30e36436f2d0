// Our matrix products against plain sums in double, on each instruction set that this CPU has: odd sizes,
// transpositions, batches, broadcasting, constant operands; the same bits for any number of threads; NaN and infinity
// as in a plain product; nothing written beside the result.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/gemm_tiles.h"
#include "base/threads.h"
#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::backends::cpu {
namespace {

using namespace graph;

// Each instruction set in turn; afterwards the best one again.
class Gemm : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { use(GetParam()); }
  void TearDown() override { use(0); }

 private:
  static void use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
  }
};

Tensor numbers(const Dims& dims, int64_t seed) {
  Tensor t(DType::kF32, dims);
  for (int64_t i = 0; i < t.num_elements(); ++i)
    t.as<float>()[i] = static_cast<float>((i * 7919 + seed * 104729) % 1009) / 504 - 1;
  return t;
}

struct Case {
  Dims a, b;  // of the matrices that are multiplied; a transposed operand has its last two dims exchanged
  bool transpose_a = false, transpose_b = false, constant = false;
};

Dims stored(Dims dims, bool transposed) {
  if (transposed) std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
  return dims;
}

// The product, with the kernel it runs on.
std::pair<Tensor, std::string> run(const Case& c, const Tensor& a, const Tensor& b) {
  Builder builder(ops::registry());
  Expr x = builder.input("a", a.type());
  Expr w = c.constant ? builder.constant(b) : builder.input("b", b.type());
  builder.output("y", builder.op("matmul", {x, w}, {{"transpose_a", c.transpose_a}, {"transpose_b", c.transpose_b}}));
  std::vector<Tensor> inputs = {a};
  if (!c.constant) inputs.push_back(b);
  Result<Graph> graph = builder.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  auto program = CpuBackend().compile(*graph, {});
  EXPECT_TRUE(program.ok()) << program.status().to_string();
  auto out = (*program)->run(inputs);
  EXPECT_TRUE(out.ok()) << out.status().to_string();
  return {(*out)[0], (*program)->report()[0].implementation};
}

void check(const Case& c) {
  const int threads = num_threads();
  const Tensor a = numbers(stored(c.a, c.transpose_a), 1), b = numbers(stored(c.b, c.transpose_b), 2);
  std::vector<Tensor> results;
  for (const int n : {1, 2, 5}) {
    set_num_threads(n);
    const auto [y, implementation] = run(c, a, b);
    EXPECT_THAT(implementation, ::testing::StartsWith("gemm"));
    EXPECT_EQ(implementation.find("packed before") != std::string::npos, c.constant) << implementation;
    results.push_back(y);
  }
  set_num_threads(threads);
  for (const Tensor& y : results)
    EXPECT_EQ(std::memcmp(y.data(), results[0].data(), y.num_bytes()), 0) << "depends on the number of threads";
  const Dims& y = results[0].dims();
  const int64_t m = y[y.size() - 2], n = y.back(), k = c.a.back();
  for (int64_t batch = 0; batch < results[0].num_elements() / (m * n); ++batch) {
    const auto matrix = [&](const Dims& dims) {  // broadcast: the strides of dims of one are zero
      int64_t number = 0, stride = 1, rest = batch;
      for (size_t d = 2; d < y.size(); ++d) {
        const int64_t at = rest % y[y.size() - 1 - d];
        rest /= y[y.size() - 1 - d];
        const int64_t own = d < dims.size() ? dims[dims.size() - 1 - d] : 1;
        if (own > 1) number += at * stride;
        stride *= own;
      }
      return number;
    };
    const float* const x = a.as<float>() + matrix(c.a) * m * k;
    const float* const w = b.as<float>() + matrix(c.b) * k * n;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;  // and of absolute values, for the bound on rounding errors of k additions in f32
        for (int64_t p = 0; p < k; ++p) {
          const double term = static_cast<double>(c.transpose_a ? x[p * m + i] : x[i * k + p]) *
                              static_cast<double>(c.transpose_b ? w[j * k + p] : w[p * n + j]);
          sum += term;
          size += std::fabs(term);
        }
        ASSERT_NEAR(results[0].as<float>()[(batch * m + i) * n + j], sum, static_cast<double>(k + 3) * size * 0x1p-24)
            << to_string(a.type()) << to_string(b.type()) << batch << " " << i << " " << j;
      }
  }
}

TEST_P(Gemm, EqualsPlainSums) {
  for (const auto& [m, k, n] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                   {7, 5, 15},
                                                                   {25, 17, 16},
                                                                   {131, 33, 65},
                                                                   {70, 385, 130},
                                                                   {135, 450, 139},   // parts of the sum
                                                                   {130, 9, 3},       // few columns
                                                                   {131, 1024, 133},  // rows of a that are copied
                                                                   {128, 1024, 32}})  // and too few strips for it
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const bool constant : {false, true}) check({{m, k}, {k, n}, transpose_a, transpose_b, constant});
}

TEST_P(Gemm, BatchesAndBroadcasting) {
  for (const bool transpose : {false, true})
    for (const int64_t m : {5, 130}) {
      check({{3, m, 9}, {3, 9, 20}, transpose, !transpose, false});
      check({{3, m, 9}, {9, 20}, transpose, transpose, true});
      check({{m, 9}, {2, 3, 9, 20}, transpose, !transpose, false});
      check({{2, 1, m, 9}, {3, 9, 20}, transpose, transpose, false});
      check({{2, 1, m, 9}, {2, 3, 9, 20}, transpose, !transpose, false});
      check({{1, m, 9}, {1, 1, 9, 20}, transpose, transpose, false});
    }
}

TEST_P(Gemm, PassesOnWhatIsNotANumber) {
  for (const int64_t m : {30, 140})
    for (const bool transposed : {false, true}) {
      Tensor a = numbers({m, 20}, 1), b = numbers(stored({20, 35}, transposed), 2);
      a.as<float>()[3 * 20 + 4] = std::numeric_limits<float>::quiet_NaN();
      b.as<float>()[transposed ? 34 * 20 + 2 : 2 * 35 + 34] = std::numeric_limits<float>::infinity();
      const Tensor y = run({.transpose_b = transposed}, a, b).first;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < 35; ++j) {
          const float v = y.as<float>()[i * 35 + j];
          EXPECT_EQ(std::isnan(v), i == 3 || (j == 34 && a.as<float>()[i * 20 + 2] == 0)) << i << " " << j;
          EXPECT_EQ(std::isfinite(v), i != 3 && j != 34) << i << " " << j;
        }
    }
}

TEST_P(Gemm, TilesWriteNothingBeside) {
  const GemmFunctions f = gemm_functions();
  constexpr int64_t kSpace = 64;
  const std::vector<float> a(1000, 1.0f), b(10000, 2.0f);
  for (int64_t rows = 1; rows <= f.rows; ++rows)
    for (int64_t columns = 1; columns <= f.columns; ++columns)
      for (const bool inner : {false, true}) {
        const int64_t pitch = columns + 3;
        std::vector<float> y(static_cast<size_t>(f.rows * pitch + kSpace), -1.0f);
        GemmTile t{rows, columns, 5, a.data(), 5, 1, b.data(), inner ? 5 : f.columns, y.data(), pitch, false};
        (inner ? f.inner : f.outer)(t);
        t.accumulate = true;
        if (!inner) f.outer(t);
        for (size_t i = 0; i < y.size(); ++i) {
          const auto at = static_cast<int64_t>(i);
          const bool own = at / pitch < rows && at % pitch < columns;
          EXPECT_EQ(y[i], own ? (inner ? 10.0f : 20.0f) : -1.0f) << rows << " x " << columns << " at " << i;
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Targets, Gemm, ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

}  // namespace
}  // namespace deepseek::backends::cpu
