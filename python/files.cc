// Weights in files: safetensors to and from dicts of arrays.
#include "base/files.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "base/file_kind.h"
#include "binding.h"
#include "io/safetensors.h"

namespace deepseek::python {

namespace {

// NumPy has it by the package ml_dtypes.
bool has_bfloat16() {
  try {
    nb::module_::import_("ml_dtypes");
    return true;
  } catch (const nb::python_error&) {
    return false;
  }
}

// f32 holds every bf16 exactly.
graph::Tensor widened(const graph::Tensor& brain) {
  graph::Tensor out(DType::kF32, brain.dims());
  const uint16_t* from = brain.as<uint16_t>();
  float* to = out.as<float>();
  for (int64_t i = 0; i < out.num_elements(); ++i) to[i] = bf16_to_f32(from[i]);
  return out;
}

// An error that says what the file is, where that is known and no safetensors.
Status other_file(const std::string& path) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  std::vector<std::byte> start(std::min(opened.bytes, kKindBytes));
  DS_ASSIGN(const size_t count, read_at(opened, 0, start, path));
  start.resize(count);
  const FileKind kind = kind_of_file(start, path);
  constexpr const char* kAsked = "'{}' {}, expected a file of safetensors; {}";
  switch (kind.type) {
    case FileKind::Type::kUnknown:
    case FileKind::Type::kModel: return {};
    case FileKind::Type::kTable:
      return invalid(
          kAsked, path, kind.what,
          kind.what.find("NumPy") == std::string::npos ? "deepseek.data.read() reads tables" : "numpy.load() reads it");
    case FileKind::Type::kConfig: return invalid(kAsked, path, kind.what, "`deepseek train` takes a config");
    case FileKind::Type::kText: return invalid(kAsked, path, kind.what, "deepseek.save() writes such");
    case FileKind::Type::kOther: break;
  }
  return invalid(kAsked, path, kind.what, kind.advice);
}

}  // namespace

void bind_files(nb::module_& m) {
  m.def(
      "save_safetensors",
      [](const std::filesystem::path& path, const std::map<std::string, Array>& arrays,
         const std::map<std::string, std::string>& metadata) {
        io::TensorFile file{{}, metadata};
        for (const auto& [name, array] : arrays) file.tensors[name] = to_tensor(array);
        check(io::save_safetensors(path.string(), file));
      },
      nb::arg("path"), nb::arg("arrays"), nb::arg("metadata"));
  m.def(
      "load_safetensors",
      [](const std::filesystem::path& path) {
        Result<io::TensorFile> read = io::load_safetensors(path.string());
        if (!read.ok() && read.status().code() == ErrorCode::kDataCorrupt) check(other_file(path.string()));
        const io::TensorFile file = unwrap(std::move(read));
        nb::dict tensors;
        for (const auto& [name, tensor] : file.tensors)
          tensors[name.c_str()] =
              to_numpy(tensor.dtype() == DType::kBF16 && !has_bfloat16() ? widened(tensor) : tensor);
        return nb::make_tuple(tensors, file.metadata);
      },
      nb::arg("path"), "The arrays by name, and the file's metadata.");
}

}  // namespace deepseek::python
