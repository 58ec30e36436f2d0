// WebP images as tensors, by libwebp. Invariant: no pixel memory is taken before the header's size has been checked
// against the limit. Test: tests/io/image_test.cc, tests/python/test_images.py
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

inline constexpr int64_t kMaxWebpSide = 16383;  // of the format

// u8 [3, H, W]; transparency is laid on white; of an animation the first frame. Errors: kDataCorrupt, kInvalidArgument
// (larger than max_side, or more than kMaxPixels of png.h).
Result<graph::Tensor> parse_webp(std::span<const std::byte> bytes, std::string_view where,
                                 int64_t max_side = kMaxWebpSide);

}  // namespace deepseek::io
