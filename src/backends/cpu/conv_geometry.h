// What loops around small products need to know of a convolution on blocked channels: rows of pixels, which of them
// flow into which, and copies of x that make products longer. Test: tests/ops/samples_test.cc (the blocked
// convolutions)
#pragma once

#include <array>
#include <vector>

#include "backends/cpu/conv_axis.h"
#include "backends/cpu/kernel.h"
#include "ops/blocked_conv.h"

namespace deepseek::backends::cpu {

// Bytes of one operand's tile that should stay in the first-level cache.
constexpr int64_t kTileBytes = 24 * 1024;
// Of the source of a tile, which all blocks of the destination read: a part of the second-level cache.
constexpr int64_t kSourceBytes = 384 * 1024;
// Below this many channels taps join.
constexpr int64_t kFewChannels = 8;

struct Geometry {
  int64_t batch = 0, x_blocks = 0, y_blocks = 0;
  int64_t x_block = 0, y_block = 0;  // elements of a pixel in one block; of bf16 an even number
  int64_t weight_rows = 0;           // of the weights of one tap and pair of blocks: x_block without what makes it even
  size_t element = 4;                // bytes: 4 of f32, 2 of bf16
  std::array<Axis, 3> axes;          // leading ones of size 1

  // The copy of x that is read instead of it, in rows of windows one after another: where taps have joined, those that
  // slide over a row of x; where one tap skips pixels, those that it reaches.
  struct Windows {
    int64_t count = 0, size = 0, step = 0;  // per row; elements of one; from one to the next
    int64_t row = 0, low = 0;               // elements of x's row, and of padding before it
    int64_t plane = 0;                      // rows of x
    std::vector<int64_t> rows;              // of x, which are copied
  } windows;

  int64_t x_rows() const { return axes[0].x * axes[1].x; }
  int64_t y_rows() const { return axes[0].y * axes[1].y; }
  int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
};

// `reads_x`: not the gradient by x, which is written pixel by pixel.
Geometry geometry(const ops::BlockedConvShape& s, bool reads_x, DType dtype);

// Of that copy, up to the next cache line.
size_t window_bytes(const Geometry& g);
// x as the products read it: itself, or the copy of its windows in `scratch`.
const void* copy_windows(const Geometry& g, const void* x, void* scratch);

// A row of the destination and what flows into it: source rows, each by one (depth, height) tap.
struct RowTap {
  int64_t row, tap;
};
using RowTaps = std::vector<std::vector<RowTap>>;
RowTaps row_taps(const Geometry& g, bool to_y);

// By (depth, height) tap: the rows of x and y that it joins.
struct RowPair {
  int64_t x, y;
};
using TapPairs = std::vector<std::vector<RowPair>>;
// Of rows [first, last) of y; `rows` are row_taps to y.
TapPairs pairs_by_tap(const Geometry& g, const RowTaps& rows, int64_t first, int64_t last);

// Of the convolution's weights.
KernelOrError make_blocked_weight_gradient(const Geometry& g);

}  // namespace deepseek::backends::cpu
