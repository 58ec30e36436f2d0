// Any bytes are a TensorFile or an error with a message, and a TensorFile's tensors are readable. Text that begins with
// '{' is read a second time as header, newline, data: the length before the header is then right, so that mutations
// reach the rules behind it (and seeds can be text).
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace {

void check(std::span<const std::byte> bytes) {
  const auto file = deepseek::io::parse_safetensors(bytes, "fuzz");
  if (!file.ok()) {
    if (file.status().message().empty()) std::abort();
    return;
  }
  for (const auto& [name, tensor] : file->tensors) {
    volatile double last = tensor.num_elements() > 0 ? tensor.at(tensor.num_elements() - 1) : 0.0;
    (void)last;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  check(bytes);
  if (size == 0 || data[0] != '{') return 0;
  const size_t header = std::min(size, std::string_view(reinterpret_cast<const char*>(data), size).find('\n'));
  std::vector<std::byte> file(8);
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<std::byte>(header >> (8 * i));
  file.insert(file.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(header));
  if (header < size) file.insert(file.end(), bytes.begin() + static_cast<std::ptrdiff_t>(header) + 1, bytes.end());
  check(file);
  return 0;
}
