// Counter-based randomness: every number is a pure function of its key, so order, threads and restarts do not
// change it. splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Test: tests/base/random_test.cc
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

namespace deepseek {

constexpr uint64_t splitmix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr uint64_t hash_of(uint64_t a, uint64_t b, uint64_t c = 0) {
  return splitmix64(splitmix64(splitmix64(a) ^ b) ^ c);
}

// Uniform in [0, n), n >= 1, by the high half of a 128-bit product (bias below n / 2^64).
inline int64_t bounded(uint64_t hash, int64_t n) {
  return static_cast<int64_t>((static_cast<unsigned __int128>(hash) * static_cast<uint64_t>(n)) >> 64);
}

// Fisher-Yates over 0..n-1, a function of the key alone.
inline std::vector<int64_t> permutation(int64_t n, uint64_t key) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)],
              order[static_cast<size_t>(bounded(hash_of(key, static_cast<uint64_t>(i)), i + 1))]);
  }
  return order;
}

// In (0, 1), 53 bits.
inline double uniform(uint64_t hash) { return (static_cast<double>(hash >> 11) + 0.5) * 0x1p-53; }

// A run of numbers of one key: uniform, normal (Box and Muller, 1958), gamma (Marsaglia and Tsang, 2000).
class Numbers {
 public:
  explicit Numbers(uint64_t key) : key_(key) {}
  double uniform() { return deepseek::uniform(hash_of(key_, next_++)); }
  double normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }
  double gamma(double shape) {
    if (shape < 1) {
      const double boosted = gamma(shape + 1);
      return boosted * std::pow(uniform(), 1 / shape);
    }
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), t = 1 + c * x, v = t * t * t;
      if (t <= 0) continue;
      if (std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }

 private:
  uint64_t key_, next_ = 0;
};

}  // namespace deepseek
