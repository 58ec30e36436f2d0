// JPEG images as tensors, by libjpeg-turbo. Invariant: no pixel memory is taken before the header's size has been
// checked against the limit. Test: tests/io/image_test.cc, tests/python/test_images.py
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

inline constexpr int64_t kMaxJpegSide = 65500;  // of the format

// u8 [C, H, W]: C = 1 for grey files, 3 for colour, also of the four colours of print (CMYK, YCCK), each multiplied by
// black; no colour profile is applied. Pixels come as they are stored: exif.h turns them. With `least` > 0 a larger
// image is decoded at 1/2, 1/4 or 1/8 of its size, as small as both sides stay at least that long. Errors: kDataCorrupt
// (also where the file ends early), kInvalidArgument (larger than max_side, or more than kMaxPixels of png.h).
Result<graph::Tensor> parse_jpeg(std::span<const std::byte> bytes, std::string_view where, int64_t least = 0,
                                 int64_t max_side = kMaxJpegSide);

}  // namespace deepseek::io
