// Weights in files: safetensors to and from dicts of arrays.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include "binding.h"
#include "io/safetensors.h"

namespace deepseek::python {

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
        const io::TensorFile file = unwrap(io::load_safetensors(path.string()));
        nb::dict tensors;
        for (const auto& [name, tensor] : file.tensors) tensors[name.c_str()] = to_numpy(tensor);
        return nb::make_tuple(tensors, file.metadata);
      },
      nb::arg("path"), "The arrays by name, and the file's metadata.");
}

}  // namespace deepseek::python
