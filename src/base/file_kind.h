// What a file is that is not what was asked for, and what to do with it: people give what they have. Looks at the first
// bytes alone, and at the name where those are ambiguous. Tests: tests/infer/model_file_test.cc,
// tests/python/test_messages.py
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace deepseek {

// As much of a file as kind_of_file() looks at.
inline constexpr size_t kKindBytes = 1024;

struct FileKind {
  // kUnknown may be safetensors; kText is text of no known sort. kOther has its advice in `advice` whatever was asked for.
  enum class Type { kUnknown, kText, kConfig, kTable, kModel, kOther };
  Type type = Type::kUnknown;
  std::string what;    // "is an ONNX model"
  std::string advice;  // "export the model that it was made of, or ..."; of tables, arrays and configs none
};
FileKind kind_of_file(std::span<const std::byte> start, std::string_view name);

// In the place of a model file: "is an ONNX model, which is not read; ...", or "" where the bytes may be safetensors, or
// nothing that is known.
std::string other_kind(std::span<const std::byte> start, std::string_view name);

// Of a file that isn't there: "; did you mean 'runs/wine.yaml'?", or what else helps to find it.
std::string missing_file_hint(const std::string& path);

}  // namespace deepseek
