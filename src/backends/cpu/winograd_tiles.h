// The transforms of Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308) and their
// transposes, on tiles with a block of channels, a multiple of 16. Each transform has 36 numbers; number i goes to, or
// comes from, i * step elements on. Test: tests/ops/samples_test.cc (the blocked convolutions)
#pragma once

#include <cstdint>

namespace deepseek::backends::cpu {

constexpr int64_t kWinogradNumbers = 36, kWinogradSide = 4;

// Pixels and weights are f32 or bf16; numbers are f32, and so are strides of theirs.
struct WinogradTiles {
  // The 6 x 6 pixels from (h, w) on of a plane [height, width, block]; outside are zeros.
  void (*input)(const void* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* v,
                int64_t step);
  // Weights [3, 3, block], `tap` elements from one tap to the next, and `flipped` back to front.
  void (*weights)(const void* g, int64_t tap, bool flipped, int64_t block, float* u, int64_t step);
  // To those of the 4 x 4 pixels from (h, w) on that are inside of the plane.
  void (*output)(const float* m, int64_t step, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block,
                 void* plane);
  // The transpose of `output`: of its gradient.
  void (*output_grad)(const void* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* m,
                      int64_t step);
  // The transpose of `weights`, taps in order.
  void (*weight_grad)(const float* u, int64_t step, int64_t block, void* g, int64_t tap);
};
// For this CPU.
WinogradTiles winograd_tiles(bool bf16);

}  // namespace deepseek::backends::cpu
