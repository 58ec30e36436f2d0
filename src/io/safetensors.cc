#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <vector>

#include "base/guard.h"
#include "io/atomic_file.h"

namespace deepseek::io {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr size_t kMaxDepth = 4;               // the format itself needs 3
constexpr size_t kMaxRank = 32;
constexpr const char* kMetadataKey = "__metadata__";

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr std::array kDTypes = {
    DTypeName{"BOOL", DType::kBool}, DTypeName{"U8", DType::kU8},   DTypeName{"I8", DType::kI8},
    DTypeName{"I32", DType::kI32},   DTypeName{"I64", DType::kI64}, DTypeName{"F16", DType::kF16},
    DTypeName{"BF16", DType::kBF16}, DTypeName{"F32", DType::kF32}, DTypeName{"F64", DType::kF64},
};
constexpr std::array kOtherDTypes = {"U16",     "U32",     "U64",     "I16", "F8_E4M3", "F8_E5M2",
                                     "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4",  "C64"};

template <class... Args>
Status corrupt(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kDataCorrupt, "[safetensors] '{}': {}", where,
                    fmt::format(format, std::forward<Args>(args)...));
}

struct Entry {
  std::string name;
  DType dtype;
  graph::Dims dims;
  uint64_t begin, end;  // within the data section
};

// What is wrong with a header as text, before anything is made of it. JSON allows a key twice and keeps the last; here
// that would let two readers see two different files.
struct HeaderCheck : nlohmann::json_sax<json> {
  std::vector<std::set<std::string>> seen;
  size_t depth = 0;
  std::string wrong;

  bool deeper() {
    if (++depth <= kMaxDepth) return true;
    wrong = fmt::format("nests deeper than {} levels", kMaxDepth);
    return false;
  }
  bool start_object(size_t) override {
    seen.emplace_back();
    return deeper();
  }
  bool end_object() override {
    seen.pop_back();
    --depth;
    return true;
  }
  bool start_array(size_t) override { return deeper(); }
  bool end_array() override {
    --depth;
    return true;
  }
  bool key(std::string& name) override {
    if (seen.back().insert(name).second) return true;
    wrong = fmt::format("names '{}' twice", name);
    return false;
  }
  bool parse_error(size_t, const std::string&, const json::exception& e) override {
    wrong = fmt::format("is not valid JSON: {}", e.what());
    return false;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
};

// By two passes, since a parser that asks a callback looks at all values again for each one that ends.
Result<json> parse_header(std::string_view text, std::string_view where) {
  if (text.empty() || text.front() != '{') {
    return corrupt(where, "the header must start with '{{'; is this a safetensors file?");
  }
  HeaderCheck check;
  if (!json::sax_parse(text.begin(), text.end(), &check)) return corrupt(where, "the header {}", check.wrong);
  json header = json::parse(text.begin(), text.end(), nullptr, false);
  if (header.is_discarded()) return corrupt(where, "the header is not valid JSON");
  return header;
}

Status parse_metadata(const json& value, std::string_view where, std::map<std::string, std::string>& out) {
  if (!value.is_object()) return corrupt(where, "'{}' must be an object of strings", kMetadataKey);
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return corrupt(where, "metadata '{}': expected a string, got {}", key, text.type_name());
    }
    out[key] = text.get<std::string>();
  }
  return {};
}

Result<Entry> parse_entry(const std::string& name, const json& value, uint64_t data_size, std::string_view where) {
  if (!value.is_object()) return corrupt(where, "tensor '{}': expected an object, got {}", name, value.type_name());
  for (const auto& [key, field] : value.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return corrupt(where, "tensor '{}': unknown field '{}'", name, key);
    }
  }
  const auto dtype = value.find("dtype");
  if (dtype == value.end() || !dtype->is_string()) return corrupt(where, "tensor '{}': 'dtype' must be a string", name);
  const std::string& dtype_name = dtype->get_ref<const std::string&>();
  const auto known =
      std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeName& d) { return dtype_name == d.name; });
  if (known == kDTypes.end()) {
    for (const char* other : kOtherDTypes) {
      if (dtype_name != other) continue;
      return make_error(ErrorCode::kUnsupported,
                        "[safetensors] '{}': tensor '{}' has dtype {}, which is not supported; convert it to one of "
                        "BOOL, U8, I8, I32, I64, F16, BF16, F32, F64",
                        where, name, dtype_name);
    }
    return corrupt(where, "tensor '{}': unknown dtype '{}'", name, dtype_name);
  }

  Entry entry{name, known->dtype, {}, 0, 0};
  const auto shape = value.find("shape");
  if (shape == value.end() || !shape->is_array()) return corrupt(where, "tensor '{}': 'shape' must be an array", name);
  if (shape->size() > kMaxRank) {
    return corrupt(where, "tensor '{}': has {} dimensions, at most {} are allowed", name, shape->size(), kMaxRank);
  }
  int64_t bytes = static_cast<int64_t>(size_of(entry.dtype));
  int64_t ignoring_zeros = bytes;  // an empty tensor must not hide an overflow from later stride arithmetic
  for (const json& dim : *shape) {
    if (!dim.is_number_unsigned()) {
      return corrupt(where, "tensor '{}': the shape must hold non-negative integers below 2^63, got {}", name,
                     dim.dump(-1, ' ', true, json::error_handler_t::replace));
    }
    const uint64_t d = dim.get<uint64_t>();
    if (d > static_cast<uint64_t>(INT64_MAX) ||
        __builtin_mul_overflow(ignoring_zeros, std::max<int64_t>(static_cast<int64_t>(d), 1), &ignoring_zeros)) {
      return corrupt(where, "tensor '{}': the shape's size in bytes overflows 64 bits", name);
    }
    bytes *= static_cast<int64_t>(d);
    entry.dims.push_back(static_cast<int64_t>(d));
  }

  const auto offsets = value.find("data_offsets");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return corrupt(where, "tensor '{}': 'data_offsets' must be two non-negative integers", name);
  }
  entry.begin = (*offsets)[0].get<uint64_t>();
  entry.end = (*offsets)[1].get<uint64_t>();
  if (entry.begin > entry.end) {
    return corrupt(where, "tensor '{}': data_offsets [{}, {}] run backwards", name, entry.begin, entry.end);
  }
  if (entry.end > data_size) {
    return corrupt(where, "tensor '{}': data_offsets [{}, {}] reach past the {} bytes of data; is the file truncated?",
                   name, entry.begin, entry.end, data_size);
  }
  if (entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    return corrupt(where, "tensor '{}': dtype and shape need {} bytes, data_offsets give {}", name, bytes,
                   entry.end - entry.begin);
  }
  return entry;
}

// Every byte of the data section belongs to exactly one tensor.
Status check_coverage(std::vector<Entry>& entries, uint64_t data_size, std::string_view where) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin < covered) {
      return corrupt(where, "tensor '{}': its data overlaps the tensor before it (begins at {}, expected {})",
                     entry.name, entry.begin, covered);
    }
    if (entry.begin > covered) {
      return corrupt(where, "a hole of {} bytes lies before tensor '{}'", entry.begin - covered, entry.name);
    }
    covered = entry.end;
  }
  if (covered != data_size) {
    return corrupt(where, "{} bytes after the last tensor belong to none", data_size - covered);
  }
  return {};
}

}  // namespace

// Where the bytes come from.
struct Source {
  uint64_t size;
  std::function<Status(uint64_t offset, std::span<std::byte> out)> read;
};

static Result<TensorFile> parse(const Source& source, std::string_view where) {
  if (source.size < 8) {
    return corrupt(where, "is {} bytes long, a header length alone takes 8; the file is truncated", source.size);
  }
  std::array<std::byte, 8> length;
  DS_TRY(source.read(0, length));
  uint64_t header_size = 0;
  for (int i = 7; i >= 0; --i) header_size = header_size << 8 | static_cast<uint64_t>(length[static_cast<size_t>(i)]);
  if (header_size > kMaxHeader) {
    return corrupt(where, "claims a header of {} bytes, at most {} are allowed; is this a safetensors file?",
                   header_size, kMaxHeader);
  }
  if (header_size > source.size - 8) {
    return corrupt(where, "claims a header of {} bytes, only {} follow; the file is truncated", header_size,
                   source.size - 8);
  }
  const uint64_t data_begin = 8 + header_size, data_size = source.size - data_begin;
  std::string text(static_cast<size_t>(header_size), '\0');
  DS_TRY(source.read(8, std::as_writable_bytes(std::span(text))));
  DS_ASSIGN(const json header, parse_header(text, where));
  TensorFile file;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey) {
      DS_TRY(parse_metadata(value, where, file.metadata));
      continue;
    }
    DS_ASSIGN(Entry entry, parse_entry(name, value, data_size, where));
    entries.push_back(std::move(entry));
  }
  DS_TRY(check_coverage(entries, data_size, where));
  for (Entry& entry : entries) {
    graph::Tensor tensor(entry.dtype, std::move(entry.dims));
    const size_t size = static_cast<size_t>(entry.end - entry.begin);
    if (size > 0) DS_TRY(source.read(data_begin + entry.begin, {tensor.as<std::byte>(), size}));
    if (entry.dtype == DType::kBool) {
      const auto* values = tensor.as<uint8_t>();
      const size_t bad =
          static_cast<size_t>(std::find_if(values, values + size, [](uint8_t v) { return v > 1; }) - values);
      if (bad < size) {
        return corrupt(where, "tensor '{}': BOOL element {} is {}, expected 0 or 1", entry.name, bad, values[bad]);
      }
    }
    file.tensors.emplace(std::move(entry.name), std::move(tensor));
  }
  return file;
}

Result<TensorFile> parse_safetensors(std::span<const std::byte> bytes, std::string_view where) {
  const Source source{bytes.size(), [&](uint64_t offset, std::span<std::byte> out) -> Status {
                        std::memcpy(out.data(), bytes.data() + offset, out.size());
                        return {};
                      }};
  return guarded(fmt::format("[safetensors] '{}'", where), [&] { return parse(source, where); });
}

// Tensors are read where they stay, so that a large file takes its own size of memory and no more.
Result<TensorFile> load_safetensors(const std::string& path) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  DS_TRY(check_fits(opened, path));
  const Source source{opened.bytes, [&](uint64_t offset, std::span<std::byte> out) -> Status {
                        DS_ASSIGN(const size_t read, read_at(opened, offset, out, path));
                        if (read < out.size()) return corrupt(path, "became shorter while it was read");
                        return {};
                      }};
  return guarded(fmt::format("[safetensors] '{}'", path), [&] { return parse(source, path); });
}

Status save_safetensors(const std::string& path, const TensorFile& file) {
  std::vector<std::pair<const std::string*, const graph::Tensor*>> order;
  for (const auto& [name, tensor] : file.tensors) {
    if (name == kMetadataKey) return invalid("[safetensors] '{}': the tensor name '{}' is reserved", path, name);
    if (!tensor.defined()) return invalid("[safetensors] '{}': tensor '{}' has no data", path, name);
    if (tensor.type().channel_block != 1) {
      return invalid("[safetensors] '{}': tensor '{}' is {}; bring it to row-major layout first", path, name,
                     to_string(tensor.type()));
    }
    order.emplace_back(&name, &tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return size_of(a.second->dtype()) > size_of(b.second->dtype());
  });
  json header = json::object();
  if (!file.metadata.empty()) header[kMetadataKey] = file.metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : order) {
    const auto dtype = std::find_if(kDTypes.begin(), kDTypes.end(),
                                    [wanted = tensor->dtype()](const DTypeName& d) { return d.dtype == wanted; });
    if (dtype == kDTypes.end()) {
      return internal_error("[safetensors] no name for dtype {} of tensor '{}'", to_string(tensor->dtype()), *name);
    }
    const uint64_t end = offset + tensor->num_bytes();
    header[*name] = {{"dtype", dtype->name},
                     {"shape", json(std::vector<int64_t>(tensor->dims().begin(), tensor->dims().end()))},
                     {"data_offsets", json::array({offset, end})}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& e) {
    return invalid("[safetensors] '{}': names and metadata must be UTF-8: {}", path, e.what());
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeader) {
    return invalid(
        "[safetensors] '{}': the header takes {} bytes, at most {} are allowed; use shorter names or "
        "several files",
        path, text.size(), kMaxHeader);
  }
  std::array<std::byte, 8> length;
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(text.size() >> (8 * i));
  return write_file_atomic(path, [&](const WriteBytes& write) -> Status {
    DS_TRY(write(length));
    DS_TRY(write(std::as_bytes(std::span(text))));
    for (const auto& [name, tensor] : order) {
      DS_TRY(write({static_cast<const std::byte*>(tensor->data()), tensor->num_bytes()}));
    }
    return {};
  });
}

}  // namespace deepseek::io
