// Machine code against the tile functions that it stands for: every operation on numbers of all kinds and lengths that
// leave a tail, operands of every form, and what there is no code for.
#include "backends/cpu/tile_code.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/tile_ops.h"

namespace deepseek::backends::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
using Operation = TileCode::Operation;

// With vectors of 16 and of 8 floats.
class TileCodeTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (TileCode::best_lanes() < GetParam()) GTEST_SKIP() << "this CPU has no vectors of " << GetParam() << " floats";
  }
  static std::optional<TileCode> make(const std::vector<TileCode::Leaf>& leaves,
                                      const std::vector<Operation>& operations,
                                      const std::vector<TileCode::Store>& stores) {
    return TileCode::make(leaves, operations, stores, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Lanes, TileCodeTest, ::testing::Values(16, 8));

// Ordinary numbers around the special ones; normal in half floats too.
std::vector<float> numbers(int64_t n, int seed) {
  const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, kInf, -kInf, kNan, 88.8f, -104.0f, 1e-3f, 3e4f, -2.5f};
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = i * 7 + seed;
    x.push_back(k % 3 == 0 ? special[k % 13] : static_cast<float>((k * 37) % 101 - 50) / 8.0f);
  }
  return x;
}

void expect_near(float actual, float expected, float tolerance, const std::string& what) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(actual)) << what << " gives " << actual;
  } else if (std::isinf(expected) || tolerance == 0) {
    EXPECT_EQ(actual, expected) << what;
    EXPECT_EQ(std::signbit(actual), std::signbit(expected)) << what;
  } else {
    EXPECT_NEAR(actual, expected, tolerance * std::max(std::fabs(expected), 1e-6f)) << what;
  }
}

TEST_P(TileCodeTest, OperationsOfNumbersEqualTileFunctions) {
  struct Case {
    TileOp op;
    int operands;
    float tolerance = 0;  // relative; 0: the same bits
  };
  for (const Case& c : {Case{TileOp::kAdd, 2},
                        {TileOp::kSub, 2},
                        {TileOp::kMul, 2},
                        {TileOp::kDiv, 2},
                        {TileOp::kMaximum, 2},
                        {TileOp::kMinimum, 2},
                        {TileOp::kNeg, 1},
                        {TileOp::kAbs, 1},
                        {TileOp::kSign, 1},
                        {TileOp::kSqrt, 1},
                        {TileOp::kRsqrt, 1},
                        {TileOp::kReciprocal, 1},
                        {TileOp::kRelu, 1},
                        {TileOp::kFloor, 1},
                        {TileOp::kCeil, 1},
                        {TileOp::kRound, 1},
                        {TileOp::kMulAdd, 3},
                        {TileOp::kMulSub, 3},
                        {TileOp::kNegMulAdd, 3},
                        {TileOp::kExp, 1, 3e-7f},
                        {TileOp::kSilu, 1, 1e-6f},
                        {TileOp::kSiluGrad, 2, 2e-6f},
                        {TileOp::kSigmoid, 1, 1e-6f},
                        {TileOp::kErf, 1, 1e-6f},
                        {TileOp::kTanh, 1, 5e-7f},
                        {TileOp::kLog, 1, 5e-7f}}) {
    const TileFn fn = tile_fn(c.op, DType::kF32, DType::kF32);
    ASSERT_NE(fn, nullptr) << info_of(c.op).name;
    std::vector<TileCode::Leaf> leaves(static_cast<size_t>(c.operands));
    Operation operation{c.op, DType::kF32, DType::kF32, {}, 0};
    for (int i = 0; i < c.operands; ++i) operation.operands.push_back(i);
    const auto code = make(leaves, {operation}, {});
    ASSERT_TRUE(code) << info_of(c.op).name;
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 300}) {
      std::vector<std::vector<float>> x;
      std::vector<const void*> in;
      for (int i = 0; i < c.operands; ++i) x.push_back(numbers(n, i));
      for (const auto& v : x) in.push_back(v.data());
      std::vector<float> expected(static_cast<size_t>(n)), actual(static_cast<size_t>(n) + 16, 7.0f);
      fn(in.data(), expected.data(), n);
      void* out[] = {actual.data()};
      code->run(in.data(), out, n);
      for (int64_t i = 0; i < n; ++i)
        expect_near(actual[static_cast<size_t>(i)], expected[static_cast<size_t>(i)], c.tolerance,
                    std::string(info_of(c.op).name) + " of " + std::to_string(x[0][static_cast<size_t>(i)]));
      for (size_t i = static_cast<size_t>(n); i < actual.size(); ++i) EXPECT_EQ(actual[i], 7.0f) << "past the end";
    }
  }
}

// Against <cmath> in double, where both ways could share an error.
TEST_P(TileCodeTest, FunctionsAreThoseOfTheLibrary) {
  struct Case {
    TileOp op;
    double (*f)(double);
    float low, high;
  };
  for (const Case& c : {Case{TileOp::kTanh, [](double x) { return std::tanh(x); }, -12, 12},
                        Case{TileOp::kLog, [](double x) { return std::log(x); }, 1e-6f, 30},
                        Case{TileOp::kExp, [](double x) { return std::exp(x); }, -80, 80},
                        Case{TileOp::kErf, [](double x) { return std::erf(x); }, -5, 5},
                        Case{TileOp::kSigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -60, 60}}) {
    const auto code = make({{}}, {{c.op, DType::kF32, DType::kF32, {0}, 0}}, {});
    ASSERT_TRUE(code);
    constexpr int64_t kCount = 4000;
    std::vector<float> x(kCount), y(kCount);
    for (int64_t i = 0; i < kCount; ++i)
      x[static_cast<size_t>(i)] = c.low + (c.high - c.low) * static_cast<float>(i) / kCount;
    const void* in[] = {x.data()};
    void* out[] = {y.data()};
    code->run(in, out, kCount);
    for (int64_t i = 0; i < kCount; ++i) {
      const double e = c.f(static_cast<double>(x[static_cast<size_t>(i)]));
      ASSERT_NEAR(y[static_cast<size_t>(i)], e, 1e-6 * std::fabs(e) + 1e-30)
          << info_of(c.op).name << " " << x[static_cast<size_t>(i)];
    }
  }
}

// Comparisons, logic and choices keep their results in masks; they come from memory and go there as bytes.
TEST_P(TileCodeTest, MasksEqualTileFunctions) {
  for (const TileOp compare :
       {TileOp::kEqual, TileOp::kNotEqual, TileOp::kLess, TileOp::kLessEqual, TileOp::kGreater, TileOp::kGreaterEqual})
    for (const TileOp logic : {TileOp::kLogicalAnd, TileOp::kLogicalOr, TileOp::kEqual, TileOp::kNotEqual}) {
      const DType f = DType::kF32, b = DType::kBool;
      // m = a <compare> b; k = m <logic> c; n = not k; y = n ? a : b; s = k ? m : n; t = number(s) + truth(a)
      const std::vector<Operation> operations = {{compare, f, b, {0, 1}, 0},
                                                 {logic, b, b, {3, 2}, 1},
                                                 {TileOp::kLogicalNot, b, b, {4}, -1},
                                                 {TileOp::kSelect, f, f, {5, 0, 1}, 2},
                                                 {TileOp::kSelect, b, b, {4, 3, 5}, 3},
                                                 {TileOp::kCast, b, f, {7}, -1},
                                                 {TileOp::kCast, f, b, {0}, -1},
                                                 {TileOp::kCast, b, f, {9}, -1},
                                                 {TileOp::kAdd, f, f, {8, 10}, 4}};
      const auto code = make({{}, {}, {b, false}}, operations, {});
      ASSERT_TRUE(code) << info_of(compare).name << " " << info_of(logic).name;
      for (const int64_t n : {5, 16, 53}) {
        const std::vector<float> x = numbers(n, 0), z = numbers(n, 5);
        std::vector<uint8_t> c;
        for (int64_t i = 0; i < n; ++i) c.push_back(i % 5 < 2);
        const void* in[] = {x.data(), z.data(), c.data()};
        std::vector<std::vector<uint8_t>> masks(3, std::vector<uint8_t>(static_cast<size_t>(n) + 16, 9));
        std::vector<float> y(static_cast<size_t>(n)), t(y.size());
        void* out[] = {masks[0].data(), masks[1].data(), y.data(), masks[2].data(), t.data()};
        code->run(in, out, n);
        std::vector<uint8_t> m(y.size()), k(y.size());
        tile_fn(compare, f, b)(in, m.data(), n);
        const void* both[] = {m.data(), c.data()};
        tile_fn(logic, b, b)(both, k.data(), n);
        for (size_t i = 0; i < y.size(); ++i) {
          const uint8_t not_k = k[i] == 0, s = k[i] != 0 ? m[i] : not_k;
          EXPECT_EQ(masks[0][i], m[i]) << info_of(compare).name << " " << x[i] << " " << z[i];
          EXPECT_EQ(masks[1][i], k[i]) << info_of(logic).name;
          EXPECT_EQ(masks[2][i], s);
          expect_near(y[i], not_k != 0 ? x[i] : z[i], 0, "select");
          EXPECT_EQ(t[i], static_cast<float>(s) + static_cast<float>(x[i] != 0));
        }
        for (const auto& mask : masks) EXPECT_EQ(mask[static_cast<size_t>(n)], 9) << "past the end";
      }
    }
}

TEST_P(TileCodeTest, HalfFloatsAndScalars) {
  for (const DType h : {DType::kBF16, DType::kF16})
    for (const int64_t n : {3, 16, 77}) {
      const std::vector<float> x = numbers(n, 2), z = numbers(n, 4);
      std::vector<uint16_t> low(x.size()), sum(x.size() + 16, 5);
      const void* from[] = {x.data()};
      tile_fn(TileOp::kCast, DType::kF32, h)(from, low.data(), n);
      std::vector<float> wide(x.size());
      const void* from_low[] = {low.data()};
      tile_fn(TileOp::kCast, h, DType::kF32)(from_low, wide.data(), n);
      // round(x) * 1.5 + z, rounded; and round(z) as f32
      const float factor = 1.5f;
      const auto code = make({{h, false}, {}, {DType::kF32, true}},
                             {{TileOp::kMulAdd, DType::kF32, DType::kF32, {0, 2, 1}, -1},
                              {TileOp::kCast, DType::kF32, DType::kF32, {1}, -1},
                              {TileOp::kRoundTo, DType::kF32, h, {4}, -1}},
                             {{3, 0, h}, {5, 1, DType::kF32}});
      ASSERT_TRUE(code);
      std::vector<float> rounded(x.size()), exact(x.size()), expected_rounded(x.size());
      const void* in[] = {low.data(), z.data(), &factor};
      void* out[] = {sum.data(), rounded.data()};
      code->run(in, out, n);
      for (size_t i = 0; i < x.size(); ++i) exact[i] = std::fma(wide[i], factor, z[i]);
      std::vector<uint16_t> expected(x.size());
      const void* from_exact[] = {exact.data()};
      tile_fn(TileOp::kCast, DType::kF32, h)(from_exact, expected.data(), n);
      const void* from_z[] = {z.data()};
      tile_fn(TileOp::kRoundTo, DType::kF32, h)(from_z, expected_rounded.data(), n);
      for (size_t i = 0; i < x.size(); ++i) {
        if (std::isnan(exact[i]))
          EXPECT_TRUE((sum[i] & 0x7fff) > (h == DType::kBF16 ? 0x7f80 : 0x7c00)) << i;
        else
          EXPECT_EQ(sum[i], expected[i]) << to_string(h) << " " << exact[i];
        expect_near(rounded[i], expected_rounded[i], 0, "round_to");
      }
      EXPECT_EQ(sum[x.size()], 5) << "past the end";
    }
}

// Sums by lanes, the tail's in the first ones; beside a stored result.
TEST_P(TileCodeTest, SumsByLanes) {
  const DType f = DType::kF32;
  const auto code =
      make({{}, {}}, {{TileOp::kMul, f, f, {0, 1}, 0}}, {{2, 1, f, true}, {0, 2, f, true}, {1, 3, f, false}});
  ASSERT_TRUE(code);
  for (const int64_t n : {1, 16, 39, 160}) {
    std::vector<float> x, z;
    for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(i % 7)), z.push_back(static_cast<float>(i % 5) - 2);
    const auto lanes = static_cast<size_t>(GetParam());
    std::vector<float> product(x.size()), copy(x.size()), sums(lanes), plain(lanes);
    const void* in[] = {x.data(), z.data()};
    void* out[] = {product.data(), sums.data(), plain.data(), copy.data()};
    code->run(in, out, n);
    std::vector<float> expected(lanes), expected_plain(lanes);
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(product[i], x[i] * z[i]);
      expected[i % expected.size()] += x[i] * z[i];
      expected_plain[i % expected.size()] += x[i];
    }
    EXPECT_EQ(sums, expected);
    EXPECT_EQ(plain, expected_plain);
    EXPECT_EQ(copy, z);
  }
}

// More operands than there are registers for addresses; a chain of sums.
TEST_P(TileCodeTest, ManyOperands) {
  constexpr int kLeaves = 20;
  std::vector<Operation> operations;
  for (int i = 1; i < kLeaves; ++i)
    operations.push_back({TileOp::kAdd, DType::kF32, DType::kF32, {i == 1 ? 0 : kLeaves + i - 2, i}, i - 1});
  const auto code = make(std::vector<TileCode::Leaf>(kLeaves), operations, {});
  ASSERT_TRUE(code);
  constexpr int64_t kCount = 21;
  std::vector<std::vector<float>> x(kLeaves, std::vector<float>(kCount)), y = x;
  std::vector<const void*> in;
  std::vector<void*> out;
  for (int i = 0; i < kLeaves; ++i) {
    for (int64_t k = 0; k < kCount; ++k) x[i][k] = static_cast<float>(i * k);
    in.push_back(x[i].data());
    out.push_back(y[i].data());
  }
  code->run(in.data(), out.data(), kCount);
  for (int i = 0; i + 1 < kLeaves; ++i)
    for (int64_t k = 0; k < kCount; ++k) EXPECT_EQ(y[i][k], static_cast<float>(k * (i + 1) * (i + 2) / 2));
}

TEST_P(TileCodeTest, ComparesIntegers) {
  const DType f = DType::kF32, i = DType::kI32;
  const auto code = make({{i, false}, {i, true}, {}},
                         {{TileOp::kEqual, i, DType::kBool, {0, 1}, -1},
                          {TileOp::kCast, DType::kBool, f, {3}, -1},
                          {TileOp::kAdd, f, f, {4, 2}, 0}},
                         {});
  ASSERT_TRUE(code);
  const int32_t wanted = -7;
  std::vector<int32_t> x;
  std::vector<float> z, y(37);
  for (int32_t k = 0; k < 37; ++k) x.push_back(k % 3 == 1 ? wanted : k << 20), z.push_back(static_cast<float>(k));
  const void* in[] = {x.data(), &wanted, z.data()};
  void* out[] = {y.data()};
  code->run(in, out, 37);
  for (size_t k = 0; k < y.size(); ++k) EXPECT_EQ(y[k], z[k] + (x[k] == wanted ? 1.0f : 0.0f));
}

TEST_P(TileCodeTest, SaysWhatItHasNoCodeFor) {
  const DType f = DType::kF32;
  EXPECT_FALSE(make({{}, {}}, {{TileOp::kPow, f, f, {0, 1}, 0}}, {}));
  EXPECT_FALSE(make({{DType::kI32, false}}, {{TileOp::kNeg, DType::kI32, DType::kI32, {0}, 0}}, {}));
  EXPECT_FALSE(make({{DType::kF64, false}}, {{TileOp::kCast, DType::kF64, f, {0}, 0}}, {}));
  EXPECT_FALSE(make({{DType::kBool, false}}, {{TileOp::kCast, DType::kBool, DType::kI32, {0}, 0}}, {}));
  EXPECT_FALSE(make({{}}, {{TileOp::kCast, f, DType::kI64, {0}, 0}}, {}));
  const DType i = DType::kI32;
  EXPECT_FALSE(make({{DType::kBool, false}, {i, false}}, {{TileOp::kSelect, i, i, {0, 1, 1}, 0}}, {}));
  // More values at once than registers.
  std::vector<Operation> operations;
  for (int i = 0; i < 40; ++i) operations.push_back({TileOp::kNeg, f, f, {0}, -1});
  for (int i = 0; i < 40; ++i) operations.push_back({TileOp::kExp, f, f, {i + 1}, i});
  EXPECT_FALSE(make({{}}, operations, {}));
}

}  // namespace
}  // namespace deepseek::backends::cpu
