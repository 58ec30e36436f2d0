// Reader and writer of safetensors (github.com/huggingface/safetensors, format 0.x): 8 bytes of little-endian header
// length, a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes without gaps.
// Invariant: no byte outside the given file is touched, whatever the header says. Test: tests/io/safetensors_test.cc,
// tests/fuzz/safetensors_fuzz.cc
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

struct TensorFile {
  std::map<std::string, graph::Tensor> tensors;
  std::map<std::string, std::string> metadata;  // the header's "__metadata__"
};

// Reads a file; each tensor owns its memory. Errors: kNotFound, kIo, kDataCorrupt (with where and why), kUnsupported
// for the format's dtypes that the framework lacks (U16, U32, U64, I16, F8_*).
Result<TensorFile> load_safetensors(const std::string& path);
// The same from memory; `where` names the source in messages.
Result<TensorFile> parse_safetensors(std::span<const std::byte> bytes, std::string_view where);

// Writes atomically, larger element types first so that every tensor is aligned to its element. Errors:
// kInvalidArgument (a tensor without data, the reserved name "__metadata__", text that is not UTF-8), kIo.
Status save_safetensors(const std::string& path, const TensorFile& file);

}  // namespace deepseek::io
