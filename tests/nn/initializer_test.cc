#include "nn/initializer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "base/philox.h"
#include "base/threads.h"

namespace deepseek::nn {
namespace {

using graph::Tensor;

constexpr uint64_t kSeed = 0x123456789ABCDEF0;

// Word i of the stream, in (0, 1].
double word(uint32_t stream, int64_t i) {
  const auto block = static_cast<uint64_t>(i / 4);
  const auto words = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0xFFFFFFFF},
                                {static_cast<uint32_t>(kSeed), static_cast<uint32_t>(kSeed >> 32)});
  return (words[static_cast<size_t>(i % 4)] >> 8) * 0x1p-24;
}

TEST(Initializer, NormalIsBoxMullerOfPhilox) {
  Initializer initializer(kSeed);
  initializer.uniform({3}, 1);  // the next one is stream 1
  const Tensor t = initializer.normal({7, 1001}, 0.5, 2);
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const double u = word(1, i / 2 * 2) + 0x1p-24, v = word(1, i / 2 * 2 + 1) + 0x1p-24;
    const double angle = 2 * std::numbers::pi * v;
    const double z = std::sqrt(-2 * std::log(u)) * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
    ASSERT_NEAR(t.at(i), 0.5 + 2 * z, 1e-5) << i;
  }
}

TEST(Initializer, UniformIsPhilox) {
  Initializer initializer(kSeed);
  const Tensor t = initializer.uniform({5000}, 0.25);
  for (int64_t i = 0; i < t.num_elements(); ++i)
    ASSERT_EQ(t.at(i), static_cast<float>((2 * word(0, i) - 1) * 0.25)) << i;
}

TEST(Initializer, MomentsAreThoseOfTheDistribution) {
  const int64_t n = 1 << 20;
  const Tensor t = Initializer(7).normal({n}, 0, 1);
  double moments[4] = {}, neighbours = 0;
  for (int64_t i = 0; i < n; ++i) {
    double power = 1;
    for (double& m : moments) m += (power *= t.at(i)) / static_cast<double>(n);
    neighbours += t.at(i) * t.at((i + 1) % n) / static_cast<double>(n);
  }
  // Six standard errors: those of the moments are 1, sqrt 2, sqrt 15 and sqrt 96 over sqrt n.
  const double error = 6 / std::sqrt(static_cast<double>(n));
  EXPECT_NEAR(moments[0], 0, error);
  EXPECT_NEAR(moments[1], 1, error * 1.5);
  EXPECT_NEAR(moments[2], 0, error * 3.9);
  EXPECT_NEAR(moments[3], 3, error * 9.8);
  EXPECT_NEAR(neighbours, 0, error);
}

TEST(Initializer, ThreadsDrawTheSame) {
  const int threads = num_threads();
  const auto draw = [](int n) {
    EXPECT_TRUE(set_num_threads(n).ok());
    return Initializer(3).normal({100003}, 0, 1);
  };
  const Tensor one = draw(1), three = draw(3);
  ASSERT_TRUE(set_num_threads(threads).ok());
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.num_bytes()), 0);
}

TEST(Initializer, SeedsAndTensorsDiffer) {
  Initializer a(1), b(2);
  const Tensor x = a.uniform({64}, 1), y = a.uniform({64}, 1), z = b.uniform({64}, 1);
  EXPECT_NE(x.at(0), y.at(0));
  EXPECT_NE(x.at(0), z.at(0));
}

}  // namespace
}  // namespace deepseek::nn
