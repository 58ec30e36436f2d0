// Counter-based randomness for data: every number is a pure function of its key, so order, threads and restarts do not
// change it. splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Test: tests/data/loader_test.cc
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace deepseek::data {

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

}  // namespace deepseek::data
