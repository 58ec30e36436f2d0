#include "infer/file_kind.h"

#include <algorithm>
#include <cctype>

#include "base/strings.h"

namespace deepseek::infer {

namespace {

struct Kind {
  std::string_view magic, what;
};
constexpr Kind kKinds[] = {
    {"\x89HDF\r\n\x1a\n",
     "is an HDF5 file, as Keras writes them; save the weights as safetensors there, and load them "
     "into a module of the same layers"},
    {"GGUF", "is a GGUF file of llama.cpp, which is not read; take the model's safetensors"},
    {"\x93NUMPY", "is a NumPy array; give the model file, and the array as the data"},
    {"PAR1", "is a Parquet table; give the model file, and the table as the data"},
    {"ARROW1", "is an Arrow table; give the model file, and the table as the data"},
    {"\x1f\x8b", "is compressed by gzip; unpack it first"},
    {"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"},
    {"\xfd"
     "7zXZ",
     "is compressed by xz; unpack it first"},
    {"version https://git-lfs", "is a pointer of Git LFS, its content was not fetched; run `git lfs pull`"},
};

// A zip archive's first entries name what it holds.
std::string zip_kind(std::string_view text, std::string_view name) {
  const auto ends = [&](std::string_view e) { return name.ends_with(e); };
  if (text.find("data.pkl") != text.npos || ends(".pt") || ends(".pth") || ends(".ckpt") || ends(".bin"))
    return "is a PyTorch file, whose pickle could run any code and is not read; save the weights in PyTorch by "
           "safetensors.torch.save_file(model.state_dict(), path), and load them into a module of the same layers";
  if (text.find(".npy") != text.npos || ends(".npz"))
    return "is a NumPy archive (.npz); give the model file, and the arrays as the data";
  return "is a zip archive; if a model file is in it, unpack it first";
}

// Of printable text; one character may be cut off at the end.
bool is_text(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 32 && !std::isspace(c) && c != '\f'; };
  return !text.empty() && std::none_of(text.begin(), text.end(), control) && first_invalid_utf8(text) + 4 > text.size();
}

std::string text_kind(std::string_view text, std::string_view name) {
  const std::string start = lower(trim(text.substr(0, 64)));
  if (start.starts_with("<!doctype html") || start.starts_with("<html"))
    return "is a web page, which a download brought in the place of the file";
  for (const char* table : {".csv", ".tsv", ".txt", ".jsonl"})
    if (name.ends_with(table)) return "is text, a table it seems; give the model file, and the table as the data";
  if (name.ends_with(".yaml") || name.ends_with(".yml"))
    return "is text, a config it seems; train a model by it first (`deepseek train`)";
  return "is text, and no model file";
}

}  // namespace

std::string other_kind(std::span<const std::byte> start, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(start.data()), std::min(start.size(), kKindBytes));
  const std::string lowered = lower(name);
  if (text.empty()) return "is empty; was it copied or downloaded to the end?";
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  // A length of at most 100 MB ends in four zeros.
  if (byte(8) == '{' && byte(4) == 0 && byte(5) == 0 && byte(6) == 0 && byte(7) == 0) return "";
  if (text.starts_with("PK\x03\x04")) return zip_kind(text, lowered);
  for (const Kind& kind : kKinds)
    if (text.starts_with(kind.magic)) return std::string(kind.what);
  if (byte(0) == 0x80 && byte(1) >= 2 && byte(1) <= 5)
    return "is a Python pickle (an old PyTorch file, or scikit-learn's), which could run any code and is not read; save "
           "the weights as safetensors where it was made";
  // Protobuf: ir_version, then producer_name, doc_string, graph or opset_import.
  const bool onnx = byte(0) == 0x08 && byte(1) > 0 && byte(1) < 32 &&
                    (byte(2) == 0x12 || byte(2) == 0x1a || byte(2) == 0x32 || byte(2) == 0x3a || byte(2) == 0x42);
  if (onnx || lowered.ends_with(".onnx"))
    return "is an ONNX model, which is not read; export the model that it was made of, or run it by ONNX Runtime";
  if (is_text(text)) return text_kind(text, lowered);
  return "";
}

}  // namespace deepseek::infer
