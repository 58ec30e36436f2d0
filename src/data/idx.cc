#include "data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/guard.h"
#include "io/atomic_file.h"

namespace deepseek::data {
namespace {

template <class... Args>
Status corrupt(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kDataCorrupt, "[idx] '{}': {}", where, fmt::format(format, std::forward<Args>(args)...));
}

uint32_t big_endian(const std::byte* p) {
  return static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 | static_cast<uint32_t>(p[2]) << 8 |
         static_cast<uint32_t>(p[3]);
}

struct Element {
  DType dtype;
  size_t file_size;
};

Result<Element> element_of(unsigned code, std::string_view where) {
  switch (code) {
    case 0x08: return Element{DType::kU8, 1};
    case 0x09: return Element{DType::kI8, 1};
    case 0x0B: return Element{DType::kI32, 2};
    case 0x0C: return Element{DType::kI32, 4};
    case 0x0D: return Element{DType::kF32, 4};
    case 0x0E: return Element{DType::kF64, 8};
    default: return corrupt(where, "unknown element type 0x{:02x}", code);
  }
}

// What a header says of the bytes behind it.
struct Layout {
  Element element;
  graph::Dims dims;
  size_t header = 0, count = 1, data = 0;
};
Result<Layout> layout_of(std::span<const std::byte> bytes, std::string_view where) {
  if (bytes.size() < 4) return corrupt(where, "is {} bytes long, expected at least 4", bytes.size());
  if (bytes[0] != std::byte{0} || bytes[1] != std::byte{0}) {
    return corrupt(where, "does not begin with two zero bytes; is this an IDX file?");
  }
  Layout layout;
  DS_ASSIGN(layout.element, element_of(static_cast<unsigned>(bytes[2]), where));
  const size_t rank = static_cast<size_t>(bytes[3]);
  if (rank == 0 || rank > 8) return corrupt(where, "has {} dimensions, expected 1 to 8", rank);
  layout.header = 4 + 4 * rank;
  if (bytes.size() < layout.header) return corrupt(where, "is truncated within its header ({} bytes)", bytes.size());
  for (size_t i = 0; i < rank; ++i) {
    const uint32_t d = big_endian(bytes.data() + 4 + 4 * i);
    layout.dims.push_back(d);
    if (__builtin_mul_overflow(layout.count, size_t{d}, &layout.count))
      return corrupt(where, "dimensions overflow 64 bits");
  }
  if (__builtin_mul_overflow(layout.count, layout.element.file_size, &layout.data))
    return corrupt(where, "dimensions overflow 64 bits");
  return layout;
}

// Unpacked, but no more than the unpacked header itself asks for, so that a small file can't fill the memory.
Result<std::vector<std::byte>> inflate_gzip(std::span<const std::byte> bytes, std::string_view where,
                                            size_t max_bytes) {
  constexpr size_t kHeader = 4 + 4 * 8;  // the longest
  z_stream stream{};
  if (::inflateInit2(&stream, 15 + 16) != Z_OK) return internal_error("[idx] zlib cannot start");
  struct End {
    z_stream* s;
    ~End() { ::inflateEnd(s); }
  } end{&stream};
  std::vector<std::byte> out;
  std::vector<std::byte> piece(1 << 18);
  size_t consumed = 0, most = max_bytes;
  bool known = false;
  int state = Z_OK;
  while (state != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      const size_t n = std::min<size_t>(bytes.size() - consumed, 1 << 30);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + consumed));
      stream.avail_in = static_cast<uInt>(n);
      consumed += n;
      if (n == 0) return corrupt(where, "the gzip stream ends too early; the file is truncated, download it again");
    }
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    state = ::inflate(&stream, Z_NO_FLUSH);
    if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) {
      return corrupt(where, "the gzip stream is damaged: {}", stream.msg != nullptr ? stream.msg : "unknown fault");
    }
    const size_t made = piece.size() - stream.avail_out;
    if (made > most - out.size()) return corrupt(where, "unpacks to more than {} bytes", most);
    out.insert(out.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(made));
    if (known || (out.size() < kHeader && state != Z_STREAM_END)) continue;
    known = true;
    DS_ASSIGN(const Layout layout, layout_of(out, where));
    if (layout.data > max_bytes - layout.header)
      return corrupt(where, "claims {} bytes of data, at most {} are allowed", layout.data, max_bytes);
    most = layout.header + layout.data;
    if (out.size() > most) return corrupt(where, "unpacks to more than {} bytes", most);
  }
  return out;
}

Result<graph::Tensor> parse(std::span<const std::byte> bytes, std::string_view where, size_t max_bytes) {
  std::vector<std::byte> unpacked;
  if (bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b}) {
    DS_ASSIGN(unpacked, inflate_gzip(bytes, where, max_bytes));
    bytes = unpacked;
  }
  DS_ASSIGN(Layout layout, layout_of(bytes, where));
  if (layout.data != bytes.size() - layout.header) {
    return corrupt(where, "dims {} need {} bytes of data, the file has {}; it is truncated or damaged",
                   graph::to_string(layout.dims), layout.data, bytes.size() - layout.header);
  }
  const Element element = layout.element;
  const size_t count = layout.count, needed = layout.data;
  graph::Tensor out(element.dtype, std::move(layout.dims));
  const std::byte* from = bytes.data() + layout.header;
  if (element.file_size == 1) {
    if (needed > 0) std::memcpy(out.data(), from, needed);
    return out;
  }
  if (element.file_size == 2) {
    for (size_t i = 0; i < count; ++i) {
      const auto raw =
          static_cast<uint16_t>(static_cast<uint32_t>(from[2 * i]) << 8 | static_cast<uint32_t>(from[2 * i + 1]));
      out.as<int32_t>()[i] = static_cast<int16_t>(raw);
    }
    return out;
  }
  auto* to = static_cast<std::byte*>(out.data());
  for (size_t i = 0; i < count; ++i) {
    std::reverse_copy(from + i * element.file_size, from + (i + 1) * element.file_size, to + i * element.file_size);
  }
  return out;
}

}  // namespace

Result<graph::Tensor> parse_idx(std::span<const std::byte> bytes, std::string_view where, size_t max_bytes) {
  return guarded(fmt::format("[idx] '{}'", where), [&] { return parse(bytes, where, max_bytes); });
}

Result<graph::Tensor> load_idx(const std::string& path, size_t max_bytes) {
  DS_ASSIGN(const std::vector<std::byte> bytes, io::read_file(path));
  return parse_idx(bytes, path, max_bytes);
}

}  // namespace deepseek::data
