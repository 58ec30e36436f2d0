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

// u8 [C, H, W] in sRGB: C = 1 for grey files, 3 for colour and palette files. Transparency is laid on white, 16-bit
// samples are reduced to 8. Errors: kNotFound, kIo, kDataCorrupt (libpng's reason), kInvalidArgument (too large).
Result<graph::Tensor> load_png(const std::string& path, int64_t max_side = kMaxPngSide);
Result<graph::Tensor> parse_png(std::span<const std::byte> bytes, std::string_view where,
                                int64_t max_side = kMaxPngSide);
// image: u8 [1, H, W], [3, H, W] or [H, W]. Atomic.
Status save_png(const std::string& path, const graph::Tensor& image);

}  // namespace deepseek::io
