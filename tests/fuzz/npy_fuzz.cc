// Any bytes are arrays whose elements can be read, or an error with a message; as an array, and as an archive.
#include <cstdint>
#include <cstdlib>

#include "io/npy.h"

namespace {

void use(const deepseek::io::NpyArray& array) {
  int64_t n = 1;
  for (const int64_t d : array.dims) n *= d;
  if (n != (array.is_text() ? static_cast<int64_t>(array.texts.size()) : array.values.num_elements())) std::abort();
  volatile double last = !array.is_text() && n > 0 ? array.values.at(n - 1) : 0;
  (void)last;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  if (const auto array = deepseek::io::parse_npy(bytes, "fuzz"); array.ok())
    use(*array);
  else if (array.status().message().empty())
    std::abort();
  const auto archive = deepseek::io::parse_npz(bytes, "fuzz");
  if (!archive.ok() && archive.status().message().empty()) std::abort();
  if (archive.ok())
    for (const auto& [name, array] : *archive) use(array);
  return 0;
}
