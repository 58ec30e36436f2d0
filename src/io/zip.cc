#include "io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/guard.h"

namespace deepseek::io {
namespace {

constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50, kCentral = 0x02014b50,
                   kLocal = 0x04034b50;
constexpr size_t kEndBytes = 22, kLocator64Bytes = 20, kEnd64Bytes = 56, kCentralBytes = 46, kLocalBytes = 30;
constexpr uint64_t kMostRatio = 1040;  // deflate packs 258 bytes into two bits at best

// Little-endian numbers; the caller has checked that they lie within.
uint64_t number_at(std::span<const std::byte> bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(bytes[at + i]) << (8 * i);
  return value;
}

Status corrupt(std::string_view where, const std::string& why) {
  return make_error(ErrorCode::kDataCorrupt, "[zip] '{}': {}; the file is damaged or no zip archive", where, why);
}

struct Directory {
  uint64_t entries, bytes, offset;
};

Result<Directory> find_directory(std::span<const std::byte> archive, std::string_view where) {
  if (archive.size() < kEndBytes) return corrupt(where, "it ends before the directory");
  const size_t last = archive.size() - kEndBytes, first = last - std::min<size_t>(last, 65535);
  size_t at = last;  // a comment of up to 65535 bytes may follow
  while (number_at(archive, at, 4) != kEnd) {
    if (at == first) return corrupt(where, "it has no directory");
    --at;
  }
  Directory d{number_at(archive, at + 10, 2), number_at(archive, at + 12, 4), number_at(archive, at + 16, 4)};
  if (d.entries == 0xffff || d.bytes == 0xffffffff || d.offset == 0xffffffff) {
    if (at < kLocator64Bytes || number_at(archive, at - kLocator64Bytes, 4) != kLocator64)
      return corrupt(where, "its zip64 directory is not there");
    const uint64_t end = number_at(archive, at - kLocator64Bytes + 8, 8);
    if (end > archive.size() || archive.size() - end < kEnd64Bytes || number_at(archive, end, 4) != kEnd64)
      return corrupt(where, "its zip64 directory is not there");
    d = {number_at(archive, end + 32, 8), number_at(archive, end + 40, 8), number_at(archive, end + 48, 8)};
  }
  if (d.offset > archive.size() || archive.size() - d.offset < d.bytes)
    return corrupt(where, "its directory lies outside");
  return d;
}

// Sizes and the offset of entries beyond 4 GiB stand in an extra field.
bool read_zip64(ZipEntry& e, std::span<const std::byte> extra) {
  for (size_t at = 0; extra.size() - at >= 4;) {
    const uint64_t id = number_at(extra, at, 2), size = number_at(extra, at + 2, 2);
    at += 4;
    if (extra.size() - at < size) return false;
    if (id == 1) {
      size_t next = at;
      for (uint64_t* value : {&e.bytes, &e.packed, &e.offset}) {
        if (*value != 0xffffffff) continue;
        if (at + size - next < 8) return false;
        *value = number_at(extra, next, 8);
        next += 8;
      }
      return true;
    }
    at += size;
  }
  return e.bytes != 0xffffffff && e.packed != 0xffffffff && e.offset != 0xffffffff;
}

Result<std::vector<std::byte>> inflated(std::span<const std::byte> packed, size_t bytes, std::string_view where,
                                        const std::string& name) {
  std::vector<std::byte> out(bytes);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return make_error(ErrorCode::kIo, "[zip] no memory to unpack");
  constexpr size_t kMost = size_t{1} << 30;  // zlib counts in 32 bits
  size_t read = 0, written = 0;
  std::byte past{};  // where to write what is more than was claimed
  int result = Z_OK;
  while (result == Z_OK) {
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + read));
    stream.avail_in = static_cast<uInt>(std::min(kMost, packed.size() - read));
    const bool full = written == bytes;
    stream.next_out = reinterpret_cast<Bytef*>(full ? &past : out.data() + written);
    stream.avail_out = full ? 1 : static_cast<uInt>(std::min(kMost, bytes - written));
    const uInt in = stream.avail_in, space = stream.avail_out;
    result = inflate(&stream, Z_NO_FLUSH);
    read += in - stream.avail_in;
    if (full && stream.avail_out == 0) result = Z_DATA_ERROR;
    if (!full) written += space - stream.avail_out;
    if (result == Z_OK && in == stream.avail_in && space == stream.avail_out) result = Z_BUF_ERROR;
  }
  inflateEnd(&stream);
  if (result != Z_STREAM_END || written != bytes)
    return corrupt(where, fmt::format("'{}' does not unpack to the {} bytes that it claims", name, bytes));
  return out;
}

Result<std::vector<std::byte>> content(std::span<const std::byte> archive, const ZipEntry& e, std::string_view where) {
  if (e.offset > archive.size() || archive.size() - e.offset < kLocalBytes || number_at(archive, e.offset, 4) != kLocal)
    return corrupt(where, fmt::format("'{}' is not where the directory says", e.name));
  const uint64_t skip = kLocalBytes + number_at(archive, e.offset + 26, 2) + number_at(archive, e.offset + 28, 2);
  if (archive.size() - e.offset < skip || archive.size() - e.offset - skip < e.packed)
    return corrupt(where, fmt::format("'{}' reaches beyond the end", e.name));
  const std::span<const std::byte> packed = archive.subspan(e.offset + skip, e.packed);
  std::vector<std::byte> out;
  if (e.method == 0) {
    if (e.packed != e.bytes) return corrupt(where, fmt::format("'{}' has two sizes", e.name));
    out.assign(packed.begin(), packed.end());
  } else if (e.method == Z_DEFLATED) {
    if (e.bytes / kMostRatio > e.packed)
      return corrupt(where,
                     fmt::format("'{}' claims {} bytes, more than {} bytes can hold", e.name, e.bytes, e.packed));
    DS_ASSIGN(out, inflated(packed, e.bytes, where, e.name));
  } else {
    return make_error(ErrorCode::kUnsupported,
                      "[zip] '{}': '{}' is packed by method {}, expected stored or deflated entries; pack it again by "
                      "np.savez",
                      where, e.name, e.method);
  }
  uLong crc = crc32(0, nullptr, 0);
  for (size_t at = 0; at < out.size();) {
    const size_t part = std::min<size_t>(out.size() - at, size_t{1} << 30);
    crc = crc32(crc, reinterpret_cast<const Bytef*>(out.data() + at), static_cast<uInt>(part));
    at += part;
  }
  if (crc != e.crc) return corrupt(where, fmt::format("the checksum of '{}' is another", e.name));
  return out;
}

}  // namespace

Result<std::vector<ZipEntry>> zip_entries(std::span<const std::byte> archive, std::string_view where) {
  DS_ASSIGN(const Directory directory, find_directory(archive, where));
  const std::span<const std::byte> all = archive.subspan(directory.offset, directory.bytes);
  std::vector<ZipEntry> entries;
  uint64_t packed = 0;
  for (size_t at = 0, i = 0; i < directory.entries; ++i) {
    if (all.size() - at < kCentralBytes || number_at(all, at, 4) != kCentral)
      return corrupt(where, fmt::format("its directory ends after {} of {} entries", i, directory.entries));
    ZipEntry e;
    const uint64_t flags = number_at(all, at + 8, 2);
    e.method = static_cast<int>(number_at(all, at + 10, 2));
    e.crc = static_cast<uint32_t>(number_at(all, at + 16, 4));
    e.packed = number_at(all, at + 20, 4);
    e.bytes = number_at(all, at + 24, 4);
    e.offset = number_at(all, at + 42, 4);
    const size_t name = number_at(all, at + 28, 2), extra = number_at(all, at + 30, 2),
                 comment = number_at(all, at + 32, 2);
    at += kCentralBytes;
    if (all.size() - at < name + extra + comment) return corrupt(where, "its directory is cut off");
    e.name.assign(reinterpret_cast<const char*>(all.data() + at), name);
    if (!read_zip64(e, all.subspan(at + name, extra))) return corrupt(where, "its directory lacks sizes of zip64");
    at += name + extra + comment;
    if ((flags & 1) != 0)
      return make_error(ErrorCode::kUnsupported, "[zip] '{}': '{}' is encrypted; unpack it first", where, e.name);
    // Entries that share bytes would make any number of copies of them.
    if (e.packed > archive.size() - packed) return corrupt(where, "its entries claim more bytes than it has");
    packed += e.packed;
    if (!e.name.ends_with('/')) entries.push_back(std::move(e));
  }
  return entries;
}

Result<std::vector<std::byte>> read_zip_entry(std::span<const std::byte> archive, const ZipEntry& entry,
                                              std::string_view where) {
  return guarded(fmt::format("while unpacking '{}' of '{}'", entry.name, where),
                 [&] { return content(archive, entry, where); });
}

}  // namespace deepseek::io
