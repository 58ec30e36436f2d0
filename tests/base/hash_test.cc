#include "base/hash.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

namespace deepseek {
namespace {

TEST(Hash, OrderLengthAndEveryBitCount) {
  std::vector<unsigned char> data((size_t{3} << 20) + 5, 0);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(i * 7);
  std::set<Hash128> seen{hash_bytes(data.data(), data.size()), hash_bytes(data.data(), data.size() - 1)};
  for (const size_t at : {size_t{0}, size_t{31}, size_t{32}, data.size() / 2, data.size() - 1})
    for (int bit = 0; bit < 8; ++bit) {
      data[at] ^= static_cast<unsigned char>(1 << bit);
      EXPECT_TRUE(seen.insert(hash_bytes(data.data(), data.size())).second) << at << " " << bit;
      data[at] ^= static_cast<unsigned char>(1 << bit);
    }
  // Rows that change places.
  std::vector<double> rows{1, 2, 3, 4}, swapped{3, 4, 1, 2};
  EXPECT_NE(hash_bytes(rows.data(), 32), hash_bytes(swapped.data(), 32));
  for (size_t zeros = 0; zeros < 100; ++zeros)
    EXPECT_TRUE(seen.insert(hash_bytes(std::vector<char>(zeros + 1).data(), zeros)).second) << zeros;
}

// Of words that differ in one bit about half of the bits differ, in each half of the hash.
TEST(Hash, BitsSpread) {
  double low = 0, high = 0;
  int pairs = 0;
  for (uint64_t w = 0; w < 64; ++w)
    for (int bit = 0; bit < 64; ++bit, ++pairs) {
      Hasher a, b;
      a.word(w);
      b.word(w ^ (uint64_t{1} << bit));
      low += std::popcount(a.value().low ^ b.value().low);
      high += std::popcount(a.value().high ^ b.value().high);
    }
  EXPECT_NEAR(low / pairs, 32, 0.5);
  EXPECT_NEAR(high / pairs, 32, 0.5);
}

}  // namespace
}  // namespace deepseek
