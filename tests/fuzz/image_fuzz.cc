// Any bytes are a picture of the header's size or an error with a message. Claims of size are limited, so that a
// mutation of a header does not cost the fuzzer its memory.
#include <cstdint>
#include <cstdlib>

#include "io/image.h"
#include "io/jpeg.h"
#include "io/png.h"
#include "io/webp.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  for (const auto& image :
       {deepseek::io::parse_jpeg(bytes, "fuzz", 0, 256), deepseek::io::parse_jpeg(bytes, "fuzz", 16, 256),
        deepseek::io::parse_png(bytes, "fuzz", 256), deepseek::io::parse_webp(bytes, "fuzz", 256),
        deepseek::io::parse_image(bytes, "fuzz", 3, 0, 256)}) {
    if (!image.ok()) {
      if (image.status().message().empty()) std::abort();
      continue;
    }
    if (deepseek::io::cover_image(*image, 9, 17).num_elements() != image->dims()[0] * 9 * 17) std::abort();
  }
  return 0;
}
