#include "io/npy.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "base/guard.h"
#include "io/atomic_file.h"
#include "io/zip.h"

namespace deepseek::io {
namespace {

using graph::Tensor;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMostHeader = 65536, kMostRank = 64;

Status corrupt(std::string_view where, const std::string& why) {
  return make_error(ErrorCode::kDataCorrupt, "[npy] '{}': {}; the file is damaged or no array of NumPy", where, why);
}

struct Header {
  char order = '|', kind = 0;  // '<', '>', '|' or '='; 'b', 'i', 'u', 'f', 'U', 'S'
  size_t item = 0;             // bytes of an element
  bool fortran = false;
  graph::Dims dims;
  size_t begin = 0;  // of the data, in the file
};

// A header is a Python dict of three keys: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Result<Header> read() {
    Header h;
    bool descr = false, order = false, shape = false;
    if (!take('{')) return wrong();
    while (!take('}')) {
      const std::optional<std::string> key = quoted();
      if (!key || !take(':')) return wrong();
      if (*key == "descr" && !descr) {
        descr = true;
        DS_TRY(read_type(h));
      } else if (*key == "fortran_order" && !order) {
        order = h.fortran = word("True");
        if (!order) order = word("False");
        if (!order) return wrong();
      } else if (*key == "shape" && !shape) {
        shape = true;
        if (!read_shape(h.dims)) return wrong();
      } else {
        return wrong();
      }
      if (!take(',') && peek() != '}') return wrong();
    }
    if (!descr || !order || !shape) return wrong();
    return h;
  }

 private:
  Status wrong() const {
    return corrupt(where_, fmt::format("its header is not as expected at byte {} of {}", at_, text_.size()));
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view w) {
    if (peek(); !text_.substr(at_).starts_with(w)) return false;
    at_ += w.size();
    return true;
  }
  std::optional<std::string> quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return std::nullopt;
    const size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) return std::nullopt;
    std::string out(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return out;
  }
  std::optional<int64_t> whole() {
    if (const char c = peek(); c < '0' || c > '9') return std::nullopt;
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[at_] - '0', &value))
        return std::nullopt;
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote them so
    return value;
  }
  bool read_shape(graph::Dims& dims) {
    if (!take('(')) return false;
    while (!take(')')) {
      const std::optional<int64_t> size = whole();
      if (!size || dims.size() == kMostRank) return false;
      dims.push_back(*size);
      if (!take(',') && peek() != ')') return false;
    }
    return true;
  }

  Status read_type(Header& h) {
    if (peek() == '[')
      return make_error(ErrorCode::kUnsupported,
                        "[npy] '{}' is a structured array; save its fields as arrays: np.savez(path, **{{name: "
                        "a[name] for name in a.dtype.names}})",
                        where_);
    const std::optional<std::string> type = quoted();
    if (!type || type->size() < 2) return wrong();
    std::string_view rest = *type;
    if (const char c = rest[0]; c == '<' || c == '>' || c == '|' || c == '=') {
      h.order = c;
      rest.remove_prefix(1);
    }
    if (rest.empty()) return wrong();
    h.kind = rest[0];
    if (h.kind == 'O')
      return make_error(ErrorCode::kUnsupported,
                        "[npy] '{}' holds Python objects (a pickle), which could run any code and is not read; save "
                        "numbers or text: np.save(path, a.astype(...))",
                        where_);
    const auto other = [&](const char* what) {
      return make_error(ErrorCode::kUnsupported,
                        "[npy] '{}' holds {} ('{}'), expected numbers or text; convert it first", where_, what, *type);
    };
    if (h.kind == 'c') return other("complex numbers");
    if (h.kind == 'M' || h.kind == 'm') return other("times");
    if (h.kind == 'V') return other("bytes without a type");
    for (const char c : rest.substr(1)) {
      if (c < '0' || c > '9' || h.item > kMostHeader * 16) return wrong();
      h.item = h.item * 10 + static_cast<size_t>(c - '0');
    }
    if (h.kind == 'U') h.item *= 4;
    const bool known = h.kind == 'b'                    ? h.item == 1
                       : h.kind == 'f'                  ? h.item == 2 || h.item == 4 || h.item == 8
                       : h.kind == 'i' || h.kind == 'u' ? h.item == 1 || h.item == 2 || h.item == 4 || h.item == 8
                                                        : (h.kind == 'U' || h.kind == 'S') && h.item > 0;
    return known ? Status() : other("what we do not know");
  }

  std::string_view text_, where_;
  size_t at_ = 0;
};

size_t little(std::span<const std::byte> bytes) {
  size_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<size_t>(bytes[i]) << (8 * i);
  return value;
}

// `start`: the file's first bytes, kMostHeader + 12 of them where there are so many; `size`: all it has.
Result<Header> read_header(std::span<const std::byte> start, size_t size, std::string_view where) {
  if (!is_npy(start)) return corrupt(where, "it does not begin as one");
  if (start.size() < 10) return corrupt(where, "it ends within the header");
  const int version = std::to_integer<int>(start[6]);
  const size_t width = version == 1 ? 2 : 4;
  if (version < 1 || version > 3) return corrupt(where, fmt::format("its format is {}, expected 1 to 3", version));
  if (start.size() < 8 + width) return corrupt(where, "it ends within the header");
  const size_t length = little(start.subspan(8, width)), begin = 8 + width;
  if (length > kMostHeader) return corrupt(where, fmt::format("its header is of {} bytes", length));
  if (start.size() - begin < length) return corrupt(where, "it ends within the header");
  DS_ASSIGN(Header h, HeaderReader({reinterpret_cast<const char*>(start.data()) + begin, length}, where).read());
  h.begin = begin + length;
  int64_t elements = 1, bytes = 0;
  for (const int64_t d : h.dims)
    if (__builtin_mul_overflow(elements, d, &elements)) return corrupt(where, "its shape is larger than any memory");
  if (__builtin_mul_overflow(elements, static_cast<int64_t>(h.item), &bytes))
    return corrupt(where, "its shape is larger than any memory");
  if (static_cast<uint64_t>(bytes) > size - h.begin)
    return corrupt(where, fmt::format("it should hold {} of {} bytes, but ends after {}", graph::to_string(h.dims),
                                      bytes, size - h.begin));
  return h;
}

bool foreign(const Header& h) {
  const char ours = std::endian::native == std::endian::little ? '<' : '>';
  return h.item > 1 && (h.order == '<' || h.order == '>') && h.order != ours;
}

// What holds elements of the header's type as they are, if anything does.
std::optional<DType> same_type(const Header& h) {
  switch (h.kind) {
    case 'b': return DType::kBool;
    case 'f': return h.item == 2 ? DType::kF16 : h.item == 4 ? DType::kF32 : DType::kF64;
    case 'u': return h.item == 1 ? std::optional(DType::kU8) : std::nullopt;
    case 'i':
      if (h.item == 2) return std::nullopt;
      return h.item == 1 ? DType::kI8 : h.item == 4 ? DType::kI32 : DType::kI64;
    default: return std::nullopt;
  }
}

int64_t count_of(const graph::Dims& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

// f(i, bytes of the element) in row-major order, the bytes in this machine's order; f may return false to stop.
template <class F>
void each_element(const Header& h, std::span<const std::byte> data, const F& f) {
  const int64_t n = count_of(h.dims);
  const size_t rank = h.dims.size(), unit = h.kind == 'U' ? 4 : h.item;
  graph::Dims index(rank, 0), stride(rank, 1);
  for (size_t a = 1; a < rank; ++a) stride[a] = stride[a - 1] * h.dims[a - 1];  // Fortran's
  std::vector<std::byte> element(h.item);
  int64_t from = 0;
  for (int64_t i = 0; i < n; ++i) {
    std::memcpy(element.data(), data.data() + static_cast<size_t>(h.fortran ? from : i) * h.item, h.item);
    if (foreign(h) && h.kind != 'S')
      for (size_t at = 0; at < h.item; at += unit)
        std::reverse(element.begin() + static_cast<std::ptrdiff_t>(at),
                     element.begin() + static_cast<std::ptrdiff_t>(at + unit));
    if (!f(i, element.data())) return;
    for (size_t a = rank; h.fortran && a-- > 0;) {
      from += stride[a];
      if (++index[a] < h.dims[a]) break;
      from -= stride[a] * h.dims[a];
      index[a] = 0;
    }
  }
}

void append_utf8(std::string& out, uint32_t c) {
  const auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xc0 | (c >> 6));
  } else if (c < 0x10000) {
    add(0xe0 | (c >> 12));
    add(0x80 | ((c >> 6) & 0x3f));
  } else {
    add(0xf0 | (c >> 18));
    add(0x80 | ((c >> 12) & 0x3f));
    add(0x80 | ((c >> 6) & 0x3f));
  }
  add(0x80 | (c & 0x3f));
}

// Text without the zeros at its end; 'S' is bytes, of which each is a character (Latin-1), so that any are UTF-8.
Result<NpyArray> read_texts(Header h, std::span<const std::byte> data, std::string_view where) {
  NpyArray out;
  out.dims = h.dims;
  out.texts.resize(static_cast<size_t>(count_of(h.dims)));
  Status status;
  each_element(h, data, [&](int64_t i, const std::byte* element) {
    std::string& text = out.texts[static_cast<size_t>(i)];
    const size_t unit = h.kind == 'U' ? 4 : 1;
    size_t length = h.item / unit;
    const auto character = [&](size_t k) {
      uint32_t c = 0;
      if (unit == 4)
        std::memcpy(&c, element + k * 4, 4);
      else
        c = std::to_integer<uint32_t>(element[k]);
      return c;
    };
    while (length > 0 && character(length - 1) == 0) --length;
    for (size_t k = 0; k < length; ++k) {
      const uint32_t c = character(k);
      if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        status = corrupt(where, fmt::format("text {} holds {:#x}, which is no character", i, c));
        return false;
      }
      append_utf8(text, c);
    }
    return true;
  });
  DS_TRY(status);
  return out;
}

template <class T>
T as(const std::byte* element) {
  T value;
  std::memcpy(&value, element, sizeof(T));
  return value;
}

Result<NpyArray> read_data(const Header& h, std::span<const std::byte> data, std::string_view where) {
  if (h.kind == 'U' || h.kind == 'S') return read_texts(h, data, where);
  NpyArray out;
  out.dims = h.dims;
  const std::optional<DType> same = same_type(h);
  out.values = Tensor(same ? *same : h.item == 2 ? DType::kI32 : DType::kI64, h.dims);
  if (same && !h.fortran && !foreign(h)) {
    std::memcpy(out.values.data(), data.data(), out.values.num_bytes());
  } else if (same) {
    each_element(h, data, [&](int64_t i, const std::byte* element) {
      std::memcpy(out.values.as<std::byte>() + static_cast<size_t>(i) * h.item, element, h.item);
      return true;
    });
  } else {
    int64_t beyond = -1;
    each_element(h, data, [&](int64_t i, const std::byte* element) {
      if (h.item == 2) {
        out.values.as<int32_t>()[i] = h.kind == 'i' ? as<int16_t>(element) : as<uint16_t>(element);
        return true;
      }
      const uint64_t value = h.item == 4 ? as<uint32_t>(element) : as<uint64_t>(element);
      out.values.as<int64_t>()[i] = static_cast<int64_t>(value);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) beyond = i;
      return beyond < 0;
    });
    if (beyond >= 0)
      return invalid("[npy] '{}': element {} is {}, expected numbers below 2^63; convert them first", where, beyond,
                     static_cast<uint64_t>(out.values.as<int64_t>()[beyond]));
  }
  // A byte other than 0 and 1 is no bool.
  if (h.kind == 'b')
    for (int64_t i = 0; i < out.values.num_elements(); ++i)
      if (out.values.as<uint8_t>()[i] > 1) return corrupt(where, fmt::format("element {} is no bool", i));
  return out;
}

// Whether a file's bytes are a tensor's as they lie there.
bool can_be_mapped(const Header& h) {
  return same_type(h) && h.kind != 'b' && !h.fortran && !foreign(h) && h.begin % 16 == 0;
}

Result<NpyArray> mapped_array(const Header& h, const OpenFile& opened, const std::string& path) {
  // Private: who writes to the tensor, as Python may, changes pages of its own and not the file.
  void* const start =
      ::mmap(nullptr, opened.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, opened.file.get(), 0);
  if (start == MAP_FAILED) return system_error("map", path, errno);
  const std::shared_ptr<void> owner(start, [bytes = opened.bytes](void* p) { ::munmap(p, bytes); });
  NpyArray out;
  out.dims = h.dims;
  out.values = Tensor({*same_type(h), h.dims}, static_cast<char*>(start) + h.begin, owner);
  return out;
}

}  // namespace

bool is_npy(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

bool is_npz(std::span<const std::byte> bytes) {
  return bytes.size() >= 4 && (std::memcmp(bytes.data(), "PK\x03\x04", 4) == 0 ||
                               std::memcmp(bytes.data(), "PK\x05\x06", 4) == 0);  // an empty one
}

Result<NpyArray> parse_npy(std::span<const std::byte> bytes, std::string_view where) {
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<NpyArray> {
    DS_ASSIGN(const Header h, read_header(bytes.first(std::min(bytes.size(), kMostHeader + 12)), bytes.size(), where));
    return read_data(h, bytes.subspan(h.begin), where);
  });
}

Result<NpyArray> load_npy(const std::string& path, size_t mapped) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  return guarded(fmt::format("while reading '{}'", path), [&]() -> Result<NpyArray> {
    std::vector<std::byte> start(std::min(opened.bytes, kMostHeader + 12));
    DS_ASSIGN(const size_t got, read_at(opened, 0, start, path));
    start.resize(got);
    DS_ASSIGN(const Header h, read_header(start, opened.bytes, path));
    if (opened.bytes >= mapped && can_be_mapped(h)) return mapped_array(h, opened, path);
    DS_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
    return parse_npy(bytes, path);
  });
}

Result<std::map<std::string, NpyArray>> parse_npz(std::span<const std::byte> bytes, std::string_view where) {
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<std::map<std::string, NpyArray>> {
    DS_ASSIGN(const std::vector<ZipEntry> entries, zip_entries(bytes, where));
    std::map<std::string, NpyArray> out;
    for (const ZipEntry& e : entries) {
      if (!e.name.ends_with(".npy"))
        return corrupt(where, fmt::format("it holds '{}', expected arrays (.npy) alone", e.name));
      const std::string name = e.name.substr(0, e.name.size() - 4);
      DS_ASSIGN(const std::vector<std::byte> content, read_zip_entry(bytes, e, where));
      DS_ASSIGN(NpyArray array, parse_npy(content, fmt::format("{}:{}", where, name)));
      if (!out.emplace(name, std::move(array)).second)
        return corrupt(where, fmt::format("it holds '{}' twice", e.name));
    }
    return out;
  });
}

Result<std::map<std::string, NpyArray>> load_npz(const std::string& path) {
  DS_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  return parse_npz(bytes, path);
}

}  // namespace deepseek::io
