// Reader of IDX files, the format of MNIST and its kin (yann.lecun.com/exdb/mnist): two zero bytes, a type code, the
// rank, big-endian 32-bit dims, then big-endian elements. Plain or gzip, told apart by content.
// Invariant: memory is bounded by max_bytes, and by what the header claims, whatever follows. Test:
// tests/data/idx_test.cc
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::data {

inline constexpr size_t kMaxIdxBytes = size_t{4} << 30;

// u8, i8, i32, f32 and f64 elements keep their type; i16 becomes i32. Errors: kNotFound, kIo, kDataCorrupt.
Result<graph::Tensor> load_idx(const std::string& path, size_t max_bytes = kMaxIdxBytes);
// The same from memory (plain or gzip); `where` names the source in messages.
Result<graph::Tensor> parse_idx(std::span<const std::byte> bytes, std::string_view where,
                                size_t max_bytes = kMaxIdxBytes);

}  // namespace deepseek::data
