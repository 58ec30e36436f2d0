// How a camera was held, as Exif tells it (JEITA CP-3451, tag 0x0112): in APP1 of a JPEG, eXIf of a PNG, EXIF of a WebP.
// Invariant: no byte outside of the file is read; what is damaged counts as upright. Test: tests/python/test_images.py
#pragma once

#include <cstddef>
#include <span>

#include "graph/tensor.h"

namespace deepseek::io {

// 1 to 8; 1 is upright, also where the file says nothing.
int orientation_of(std::span<const std::byte> file);

// u8 [C, H, W] turned upright: 2 mirrored, 3 by 180 degrees, 4 upside down, 5 transposed, 6 by 90 degrees clockwise, 7
// transposed along the other diagonal, 8 by 90 degrees counter-clockwise.
graph::Tensor upright(const graph::Tensor& image, int orientation);

}  // namespace deepseek::io
