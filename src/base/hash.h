// A fast hash of 128 bits, for keys of caches and for noticing changes; not against people who look for collisions.
// The same on every run of one machine's byte order. Test: tests/base/hash_test.cc
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace deepseek {

struct Hash128 {
  uint64_t low = 0, high = 0;
  auto operator<=>(const Hash128&) const = default;
};

class Hasher {
 public:
  void word(uint64_t w);
  // Length and contents; at about the speed of memory.
  void bytes(const void* data, size_t size);
  void text(std::string_view s) { bytes(s.data(), s.size()); }
  Hash128 value() const;

 private:
  uint64_t a_ = 0x243F6A8885A308D3, b_ = 0x13198A2E03707344;  // digits of pi
};

// Of one block, by all threads where it is large.
Hash128 hash_bytes(const void* data, size_t size);

}  // namespace deepseek
