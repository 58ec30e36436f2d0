// The transforms of Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308) and their
// transposes, on tiles with a block of channels, a multiple of 16. Each transform has 36 numbers; number i goes to, or
// comes from, i * step elements on. Test: tests/ops/samples_test.cc (the blocked convolutions)
#pragma once

#include <cstdint>

namespace deepseek::backends::cpu {

constexpr int64_t kWinogradNumbers = 36, kWinogradSide = 4;

// The 6 x 6 pixels from (h, w) on of a plane [height, width, block]; outside are zeros.
void winograd_input(const float* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* v,
                    int64_t step);
// Weights [3, 3, block], `tap` elements from one tap to the next, and `flipped` back to front.
void winograd_weights(const float* g, int64_t tap, bool flipped, int64_t block, float* u, int64_t step);
// To those of the 4 x 4 pixels from (h, w) on that are inside of the plane.
void winograd_output(const float* m, int64_t step, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block,
                     float* plane);
// The transpose of winograd_output: of its gradient.
void winograd_output_grad(const float* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block,
                          float* m, int64_t step);
// The transpose of winograd_weights, taps in order.
void winograd_weight_grad(const float* u, int64_t step, int64_t block, float* g, int64_t tap);

}  // namespace deepseek::backends::cpu
