// What a file is that is no model file, and what to do with it: people give what they have. Looks at the first bytes
// alone, and at the name where those are ambiguous. Test: tests/infer/model_file_test.cc
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace deepseek::infer {

// As much of a file as other_kind() looks at.
inline constexpr size_t kKindBytes = 1024;

// "is an ONNX model; ...", or "" where the bytes may be safetensors, or nothing that is known.
std::string other_kind(std::span<const std::byte> start, std::string_view name);

}  // namespace deepseek::infer
