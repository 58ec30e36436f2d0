// Zip archives in memory (APPNOTE 6.3, with zip64), such as NumPy's .npz: stored and deflated entries.
// Invariants: no entry reaches outside of the archive, and one that claims more than deflate could have packed into its
// bytes is refused before memory is taken. Test: tests/io/npy_test.cc, tests/fuzz/npy_fuzz.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace deepseek::io {

struct ZipEntry {
  std::string name;
  uint64_t packed = 0, bytes = 0;  // sizes in the archive, and unpacked
  uint64_t offset = 0;             // of its own header
  uint32_t crc = 0;
  int method = 0;  // 0: stored, 8: deflated
};

// The entries in the order of the archive's directory, without folders. Errors: kDataCorrupt; kUnsupported for encrypted
// entries.
Result<std::vector<ZipEntry>> zip_entries(std::span<const std::byte> archive, std::string_view where);
// The content of one. Errors: kDataCorrupt, also where its checksum is another; kUnsupported for other methods.
Result<std::vector<std::byte>> read_zip_entry(std::span<const std::byte> archive, const ZipEntry& entry,
                                              std::string_view where);

}  // namespace deepseek::io
