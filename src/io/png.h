// PNG images as tensors, by libpng. Invariant: no pixel memory is taken before the header's size has been checked
// against the limit. Test: tests/io/png_test.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::io {

inline constexpr int64_t kMaxPngSide = 16384;
// Of a picture of any format, where Pillow speaks of a decompression bomb: a file of some bytes may claim so much.
inline constexpr int64_t kMaxPixels = 178'956'970;
// Its error: "[png] 'x' is 99999x99999, at most ...".
Status too_many_pixels(std::string_view format, std::string_view where, int64_t width, int64_t height);

// A sample on white by its alpha, 255 being opaque.
inline uint8_t over_white(uint32_t sample, uint32_t alpha) {
  return static_cast<uint8_t>((sample * alpha + 255 * (255 - alpha) + 127) / 255);
}

// u8 [C, H, W] in sRGB: C = 1 for grey files, 3 for colour and palette files. Transparency is laid on white, sample by
// sample as browsers and Pillow do; samples of 16 bits become the nearest of 8 (v / 257). Errors: kNotFound, kIo,
// kDataCorrupt (libpng's reason), kInvalidArgument (a longer side, or more than kMaxPixels).
Result<graph::Tensor> load_png(const std::string& path, int64_t max_side = kMaxPngSide);
Result<graph::Tensor> parse_png(std::span<const std::byte> bytes, std::string_view where,
                                int64_t max_side = kMaxPngSide);
// image: u8 [1, H, W], [3, H, W] or [H, W]. Atomic.
Status save_png(const std::string& path, const graph::Tensor& image);

}  // namespace deepseek::io
