#include "base/hash.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/threads.h"

namespace deepseek {

namespace {

constexpr uint64_t kOdd[4] = {0xA4093822299F31D1, 0x082EFA98EC4E6C89, 0x452821E638D01377, 0xBE5466CF34E90C6D};

// Both halves of the product: every bit of x moves all of them.
inline uint64_t fold(uint64_t x, uint64_t odd) {
  const auto product = static_cast<unsigned __int128>(x) * odd;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t load(const unsigned char* p) {
  uint64_t w;
  std::memcpy(&w, p, sizeof(w));
  return w;
}

}  // namespace

void Hasher::word(uint64_t w) {
  a_ = fold(a_ ^ w, kOdd[0]) + std::rotl(w, 23);
  b_ = fold(b_ + w, kOdd[1]) ^ std::rotl(a_, 31);
}

void Hasher::bytes(const void* data, size_t size) {
  const auto* p = static_cast<const unsigned char*>(data);
  word(size);
  uint64_t lanes[4] = {a_, b_, a_ ^ kOdd[2], b_ ^ kOdd[3]};
  for (; size >= 32; size -= 32, p += 32)
    for (int i = 0; i < 4; ++i) {
      const uint64_t w = load(p + 8 * i);
      lanes[i] = fold(lanes[i] ^ w, kOdd[i]) + std::rotl(w, 29);
    }
  unsigned char rest[32] = {};
  if (size > 0) std::memcpy(rest, p, size);
  for (int i = 0; i < 4; ++i) {
    word(lanes[i]);
    word(load(rest + 8 * i));
  }
}

Hash128 Hasher::value() const {
  Hasher last = *this;
  last.word(kOdd[2]);
  last.word(kOdd[3]);
  return {last.a_, last.b_};
}

Hash128 hash_bytes(const void* data, size_t size) {
  constexpr size_t kPart = size_t{1} << 20;
  const size_t parts = size == 0 ? 0 : (size - 1) / kPart + 1;
  std::vector<Hash128> hashes(parts);
  parallel_for(static_cast<int64_t>(parts), 2, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      Hasher part;
      part.bytes(static_cast<const char*>(data) + i * kPart, std::min(kPart, size - i * kPart));
      hashes[i] = part.value();
    }
  });
  Hasher all;
  all.word(size);
  for (const Hash128& h : hashes) {
    all.word(h.low);
    all.word(h.high);
  }
  return all.value();
}

}  // namespace deepseek
