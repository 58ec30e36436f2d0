// Pictures of any known format. Test: tests/io/image_test.cc, tests/python/test_images.py
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

// Whether a file's name ends as that of a picture: .jpg, .jpeg, .png, in any case.
bool is_image_name(std::string_view name);

// u8 [channels, H, W] of a JPEG or PNG file, by its first bytes; channels is 1 or 3: grey is repeated, colour becomes
// ITU-R 601 luma as by Pillow. `least` as for parse_jpeg. Errors: kNotFound, kIo, and those of png.h and jpeg.h.
Result<graph::Tensor> load_image(const std::string& path, int64_t channels, int64_t least = 0);

// u8 [C, H, W] at another size, by a triangle that covers the pixels between (bilinear, with antialiasing); the same
// numbers as Pillow's BILINEAR. height and width >= 1.
graph::Tensor resize_image(const graph::Tensor& image, int64_t height, int64_t width);

// u8 [C, height, width]: resized so that it covers that size, the middle of what is left over.
graph::Tensor cover_image(const graph::Tensor& image, int64_t height, int64_t width);

}  // namespace deepseek::io
