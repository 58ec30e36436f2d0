// libFuzzer: any bytes are a TensorFile or an error with a message, and a TensorFile's tensors are readable.
#include <cstdint>
#include <cstdlib>

#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = deepseek::io::parse_safetensors({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (!file.ok()) {
    if (file.status().message().empty()) std::abort();
    return 0;
  }
  for (const auto& [name, tensor] : file->tensors) {
    volatile double last = tensor.num_elements() > 0 ? tensor.at(tensor.num_elements() - 1) : 0.0;
    (void)last;
  }
  return 0;
}
