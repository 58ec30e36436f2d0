// NumPy's files of arrays: .npy (format 1.0 to 3.0) and .npz, a zip archive of them. Numbers of any size and byte order,
// in C's or Fortran's order, and text; pickled objects are never read.
// Invariant: memory is bounded by what the file holds, whatever its header claims. Test: tests/io/npy_test.cc,
// tests/python/test_array_source.py, tests/fuzz/npy_fuzz.cc
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

// Numbers, or text in UTF-8.
struct NpyArray {
  graph::Tensor values;            // undefined where it is text
  std::vector<std::string> texts;  // row by row
  graph::Dims dims;
  bool is_text() const { return !values.defined(); }
};

// Files of so many bytes and more are mapped: what is read of them is the system's cache, and takes no memory of ours.
inline constexpr size_t kMappedBytes = size_t{64} << 20;

// Row-major, in this machine's byte order. bool, u8, i8, i32, i64, f16, f32 and f64 keep their types; i16 and u16 become
// i32, u32 and u64 become i64. A large file whose numbers need no change is mapped and not read; it must not be cut
// short while it is in use. Errors: kNotFound, kIo, kDataCorrupt; kUnsupported for pickled objects, structured arrays,
// complex numbers, times; kInvalidArgument for numbers beyond i64.
Result<NpyArray> load_npy(const std::string& path, size_t mapped = kMappedBytes);
Result<NpyArray> parse_npy(std::span<const std::byte> bytes, std::string_view where);

// By the names that np.savez() was given. The whole archive is read.
Result<std::map<std::string, NpyArray>> load_npz(const std::string& path);
Result<std::map<std::string, NpyArray>> parse_npz(std::span<const std::byte> bytes, std::string_view where);

// By a file's first bytes.
bool is_npy(std::span<const std::byte> bytes);
bool is_npz(std::span<const std::byte> bytes);

}  // namespace deepseek::io
