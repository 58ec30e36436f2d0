#include "python_dataset.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/strings.h"
#include "io/event_file.h"

namespace deepseek::python {

Result<data::Batch> PythonDataset::call(std::span<const int64_t> indices, bool targets_only) const {
  data::Batch batch;
  {
    const Acquired gil;
    try {
      const nb::object given = (*read_)(std::vector<int64_t>(indices.begin(), indices.end()), targets_only);
      for (auto [name, value] : nb::cast<nb::dict>(given)) {
        Array array;
        if (!array.read(value)) {
          PyErr_Clear();
          return internal_error("[data] samples of '{}' are no array", nb::cast<std::string>(name));
        }
        batch[nb::cast<std::string>(name)] = to_tensor(array);
      }
    } catch (nb::python_error& error) {
      if (error.matches(PyExc_KeyboardInterrupt)) return Status(ErrorCode::kInterrupted, "interrupted in a data set");
      return invalid("[data] {}", nb::cast<std::string>(nb::str(error.value())));
    }
  }
  for (const data::Field& f : fields_) {
    const auto it = batch.find(f.name);
    if (it == batch.end() || it->second.dims().empty() || it->second.dims()[0] != static_cast<int64_t>(indices.size()))
      continue;  // who asked finds that it isn't what he asked for
    for (size_t i = 0; i < indices.size(); ++i)
      DS_TRY(data::check_values(f, it->second.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1), indices[i]));
  }
  return batch;
}

Result<uint32_t> PythonDataset::checksum() const {
  std::string text = fmt::format("{} samples\n", size_);
  for (const data::Field& f : fields_)
    text += fmt::format("{} {} {}\n", f.name, to_string(f.sample), join(f.class_names, ","));
  return io::crc32c(std::as_bytes(std::span(text)));
}

}  // namespace deepseek::python
