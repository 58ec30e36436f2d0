#include "base/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "base/strings.h"

namespace deepseek {

namespace {

using Type = FileKind::Type;

struct Magic {
  std::string_view bytes;
  Type type;
  std::string_view what, advice;
};
constexpr Magic kMagic[] = {
    {"\x89HDF\r\n\x1a\n", Type::kOther, "is an HDF5 file, as Keras writes them",
     "save the weights as safetensors there, and load them into a module of the same layers"},
    {"GGUF", Type::kOther, "is a GGUF file of llama.cpp, which is not read", "take the model's safetensors"},
    {"\x93NUMPY", Type::kTable, "is a NumPy array", ""},
    {"PAR1", Type::kTable, "is a Parquet table", ""},
    {"ARROW1", Type::kTable, "is an Arrow table", ""},
    {"\x1f\x8b", Type::kOther, "is compressed by gzip", "unpack it first"},
    {"\x28\xb5\x2f\xfd", Type::kOther, "is compressed by zstd", "unpack it first"},
    {"\xfd"
     "7zXZ",
     Type::kOther, "is compressed by xz", "unpack it first"},
    {"version https://git-lfs", Type::kOther, "is a pointer of Git LFS, its content was not fetched",
     "run `git lfs pull`"},
};

// A zip archive's first entries name what it holds.
FileKind zip_kind(std::string_view text, std::string_view name) {
  const auto ends = [&](std::string_view e) { return name.ends_with(e); };
  if (text.find("data.pkl") != text.npos || ends(".pt") || ends(".pth") || ends(".ckpt") || ends(".bin"))
    return {
        Type::kOther, "is a PyTorch file, whose pickle could run any code and is not read",
        "save the weights in PyTorch by safetensors.torch.save_file(model.state_dict(), path), and load them into a "
        "module of the same layers"};
  if (text.find(".npy") != text.npos || ends(".npz")) return {Type::kTable, "is a NumPy archive (.npz)", ""};
  return {Type::kOther, "is a zip archive", "if what is asked for is in it, unpack it first"};
}

// Of printable text; one character may be cut off at the end.
bool is_text(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 32 && !std::isspace(c) && c != '\f'; };
  return !text.empty() && std::none_of(text.begin(), text.end(), control) && first_invalid_utf8(text) + 4 > text.size();
}

FileKind text_kind(std::string_view text, std::string_view name) {
  const std::string start = lower(trim(text.substr(0, 64)));
  if (start.starts_with("<!doctype html") || start.starts_with("<html"))
    return {Type::kOther, "is a web page, which a download brought in the place of the file", "download it again"};
  for (const char* table : {".csv", ".tsv", ".txt", ".jsonl"})
    if (name.ends_with(table)) return {Type::kTable, "is text, a table it seems", ""};
  if (name.ends_with(".yaml") || name.ends_with(".yml")) return {Type::kConfig, "is text, a config it seems", ""};
  return {Type::kText, "is text", ""};
}

}  // namespace

FileKind kind_of_file(std::span<const std::byte> start, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(start.data()), std::min(start.size(), kKindBytes));
  const std::string lowered = lower(name);
  if (text.empty()) return {Type::kOther, "is empty", "was it copied or downloaded to the end?"};
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  // A length of at most 100 MB ends in four zeros.
  if (byte(8) == '{' && byte(4) == 0 && byte(5) == 0 && byte(6) == 0 && byte(7) == 0)
    return {lowered.ends_with(".dsk") || lowered.ends_with(".safetensors") ? Type::kModel : Type::kUnknown,
            "is a file of safetensors", ""};
  if (text.starts_with("PK\x03\x04")) return zip_kind(text, lowered);
  for (const Magic& magic : kMagic)
    if (text.starts_with(magic.bytes)) return {magic.type, std::string(magic.what), std::string(magic.advice)};
  if (byte(0) == 0x80 && byte(1) >= 2 && byte(1) <= 5)
    return {Type::kOther,
            "is a Python pickle (an old PyTorch file, or scikit-learn's), which could run any code and is not read",
            "save the weights as safetensors where it was made"};
  // Protobuf: ir_version, then producer_name, doc_string, graph or opset_import.
  const bool onnx = byte(0) == 0x08 && byte(1) > 0 && byte(1) < 32 &&
                    (byte(2) == 0x12 || byte(2) == 0x1a || byte(2) == 0x32 || byte(2) == 0x3a || byte(2) == 0x42);
  if (onnx || lowered.ends_with(".onnx"))
    return {Type::kOther, "is an ONNX model, which is not read",
            "export the model that it was made of, or run it by ONNX Runtime"};
  if (is_text(text)) return text_kind(text, lowered);
  return {};
}

std::string other_kind(std::span<const std::byte> start, std::string_view name) {
  const FileKind kind = kind_of_file(start, name);
  switch (kind.type) {
    case Type::kUnknown:
    case Type::kModel: return "";
    case Type::kText: return kind.what + ", and no model file";
    case Type::kConfig: return kind.what + "; train a model by it first (`deepseek train`)";
    case Type::kTable:
      return kind.what + "; give the model file, and the " +
             (kind.what.find("array") == std::string::npos && kind.what.find("NumPy") == std::string::npos ? "table"
              : kind.what.ends_with("array")                                                               ? "array"
                                                                                                           : "arrays") +
             " as the data";
    case Type::kOther: break;
  }
  return kind.what + "; " + kind.advice;
}

std::string missing_file_hint(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr size_t kMostLooked = 10'000;
  const fs::path folder = fs::path(path).parent_path();
  const fs::path looked = folder.empty() ? "." : folder;
  std::error_code error;
  if (!fs::is_directory(looked, error)) return fmt::format("; its folder '{}' isn't there either", looked.string());
  std::vector<std::string> names;
  for (fs::directory_iterator it(looked, error), end; !error && it != end && names.size() < kMostLooked;
       it.increment(error))
    names.push_back(it->path().filename().string());
  const std::string stem = fs::path(path).stem().string();
  if (const std::string near = nearest(fs::path(path).filename().string(), names);
      !near.empty() &&
      2 * edit_distance(stem, fs::path(near).stem().string()) <= stem.size())  // no likeness of endings
    return fmt::format("; did you mean '{}'?", (folder / near).string());
  if (fs::path(path).is_absolute()) return "; check the path";
  return fmt::format("; check the path, it is looked for from '{}'", fs::current_path(error).string());
}

}  // namespace deepseek
