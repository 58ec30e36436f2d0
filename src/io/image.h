// Pictures of any known format. Test: tests/io/image_test.cc, tests/python/test_images.py
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

// Whether a file's name ends as that of a picture that we read: .jpg, .jpeg, .png, .webp, in any case.
bool is_image_name(std::string_view name);
// The ending, where it is that of a picture that we do not read, ".bmp" for instance; else empty.
std::string_view foreign_image_ending(std::string_view name);
inline constexpr std::string_view kImageEndings = ".jpg, .jpeg, .png or .webp";

// u8 [channels, H, W] of a JPEG, PNG or WebP file, by its first bytes and not its name; channels is 1 or 3: grey is
// repeated, colour becomes ITU-R 601 luma as by Pillow. Turned as Exif says. `least` as for parse_jpeg. Errors: kNotFound,
// kIo, those of png.h, jpeg.h and webp.h; kUnsupported for other formats, which it names.
Result<graph::Tensor> load_image(const std::string& path, int64_t channels, int64_t least = 0);
Result<graph::Tensor> parse_image(std::span<const std::byte> bytes, const std::string& where, int64_t channels,
                                  int64_t least = 0, int64_t max_side = 65500);

// u8 [C, H, W] at another size, by a triangle that covers the pixels between (bilinear, with antialiasing); the same
// numbers as Pillow's BILINEAR. height and width >= 1.
graph::Tensor resize_image(const graph::Tensor& image, int64_t height, int64_t width);

// u8 [C, height, width]: resized so that it covers that size, the middle of what is left over.
graph::Tensor cover_image(const graph::Tensor& image, int64_t height, int64_t width);

}  // namespace deepseek::io
