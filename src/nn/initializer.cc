#include "nn/initializer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/simd.h"
#include "base/threads.h"

namespace deepseek::nn {

using graph::Dims;
using graph::Tensor;

namespace {

constexpr int64_t kBlocks = 256, kDraw = 4 * kBlocks;  // Philox blocks side by side, and the words they give
constexpr int64_t kGrain = 16;                         // draws per thread below which a second one does not pay
constexpr uint32_t kNoStep = 0xFFFFFFFF;               // apart from the counters of random ops, which hold a step there

struct Words {
  uint32_t w[4][kBlocks];  // word of a block, block
};

// philox4x32 of base/philox.h, a block in a lane.
DS_SIMD void draw(uint64_t seed, uint32_t stream, uint64_t first, Words& out) {
  for (int64_t j = 0; j < kBlocks; ++j) {
    const uint64_t block = first + static_cast<uint64_t>(j);
    uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = stream, c3 = kNoStep;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * c0, b = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(b);
      c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(a);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    out.w[0][j] = c0;
    out.w[1][j] = c1;
    out.w[2][j] = c2;
    out.w[3][j] = c3;
  }
}

// In (0, 1], exactly.
inline float unit(uint32_t word) { return static_cast<float>(static_cast<int32_t>(word >> 8) + 1) * 0x1p-24f; }

// ln x for normal x > 0: exponent, and the series of atanh for the mantissa in [sqrt(1/2), sqrt 2).
inline float log_of(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x) - 0x3F3504F3;
  const float exponent = static_cast<float>(bits >> 23);
  const float m = std::bit_cast<float>((bits & 0x007FFFFF) + 0x3F3504F3);
  const float s = (m - 1) / (m + 1), z = s * s;
  const float series = s * (2 + z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f))));
  return exponent * 0.69314718f + series;
}

struct Pair {
  float cosine, sine;
};
// Of 2 pi t for t in (0, 1]: Taylor series in [-pi/4, pi/4], then a turn by quarters.
inline Pair circle(float t) {
  const float quarters = t * 4;
  const int32_t k = static_cast<int32_t>(quarters + 0.5f);
  const float a = (quarters - static_cast<float>(k)) * 1.57079633f, z = a * a;
  const float s = a * (1 + z * (-0.16666667f + z * (8.3333333e-3f + z * (-1.9841270e-4f + z * 2.7557319e-6f))));
  const float c = 1 + z * (-0.5f + z * (4.1666667e-2f + z * (-1.3888889e-3f + z * 2.4801587e-5f)));
  const bool odd = (k & 1) != 0;
  const float x = odd ? s : c, y = odd ? c : s;
  return {((k + 1) & 2) != 0 ? -x : x, (k & 2) != 0 ? -y : y};
}

DS_SIMD void to_uniform(const Words& words, float bound, float* out) {
  for (int64_t j = 0; j < kBlocks; ++j)
    for (int64_t i = 0; i < 4; ++i)
      out[4 * j + i] = (static_cast<float>(static_cast<int32_t>(words.w[i][j] >> 8)) * 0x1p-23f - 1) * bound;
}

DS_SIMD void to_normal(const Words& words, float mean, float deviation, float* out) {
  float made[4][kBlocks];
  for (int64_t half = 0; half < 4; half += 2)
    for (int64_t j = 0; j < kBlocks; ++j) {
      const float radius = deviation * std::sqrt(-2 * log_of(unit(words.w[half][j])));
      const Pair p = circle(unit(words.w[half + 1][j]));
      made[half][j] = mean + radius * p.cosine;
      made[half + 1][j] = mean + radius * p.sine;
    }
  for (int64_t j = 0; j < kBlocks; ++j)
    for (int64_t i = 0; i < 4; ++i) out[4 * j + i] = made[i][j];
}

// convert(words, the kDraw elements to write)
template <class Convert>
Tensor fill(Dims dims, uint64_t seed, uint32_t stream, const Convert& convert) {
  Tensor t(DType::kF32, std::move(dims));
  const int64_t n = t.num_elements();
  parallel_for((n + kDraw - 1) / kDraw, kGrain, [&](int64_t begin, int64_t end) {
    Words words;
    float last[kDraw];
    for (int64_t k = begin; k < end; ++k) {
      draw(seed, stream, static_cast<uint64_t>(k * kBlocks), words);
      float* const to = t.as<float>() + k * kDraw;
      const bool whole = n - k * kDraw >= kDraw;
      convert(words, whole ? to : last);
      if (!whole) std::copy_n(last, n - k * kDraw, to);
    }
  });
  return t;
}

}  // namespace

Tensor Initializer::uniform(Dims dims, double bound) {
  if (!draws_) return Tensor(DType::kF32, std::move(dims));
  return fill(std::move(dims), seed_, drawn_++,
              [b = static_cast<float>(bound)](const Words& words, float* out) { to_uniform(words, b, out); });
}

Tensor Initializer::normal(Dims dims, double mean, double deviation) {
  if (!draws_) return Tensor(DType::kF32, std::move(dims));
  return fill(std::move(dims), seed_, drawn_++,
              [m = static_cast<float>(mean), d = static_cast<float>(deviation)](const Words& words, float* out) {
                to_normal(words, m, d, out);
              });
}

uint64_t Initializer::next_seed() {
  uint64_t z = seed_ + 0x9E3779B97F4A7C15 * ++seeds_;  // SplitMix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return (z ^ (z >> 31)) >> 12;
}

Initializer& default_initializer() {
  thread_local Initializer initializer(0);
  return initializer;
}
void manual_seed(uint64_t seed) { default_initializer() = Initializer(seed); }

}  // namespace deepseek::nn
