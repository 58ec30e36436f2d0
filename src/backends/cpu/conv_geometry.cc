#include "backends/cpu/conv_geometry.h"

#include <algorithm>
#include <cstring>

#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kMaxColumns = 256;

bool joins_taps(const ops::BlockedConvShape& s) {
  return s.x_block == s.conv.in_channels && s.x_block < kFewChannels && s.conv.window.dilation.back() == 1;
}

}  // namespace

Geometry geometry(const ops::BlockedConvShape& s, bool reads_x, DType dtype) {
  Geometry g;
  g.element = size_of(dtype);
  g.batch = s.conv.batch;
  g.x_block = s.x_block;
  g.y_block = s.y_block;
  g.weight_rows = s.x_block;
  g.x_blocks = s.conv.in_channels / s.x_block;
  g.y_blocks = s.conv.out_channels / s.y_block;
  const ops::Window& w = s.conv.window;
  const size_t lead = 3 - s.conv.input.size();
  bool pointwise = true, skips = true;
  for (size_t i = 0; i < s.conv.input.size(); ++i) {
    g.axes[lead + i] = {s.conv.input[i], s.conv.output[i], w.kernel[i], w.stride[i], w.padding_low[i], w.dilation[i]};
    pointwise = pointwise && w.kernel[i] == 1 && w.stride[i] == 1 && s.conv.input[i] == s.conv.output[i] &&
                w.padding_low[i] == 0;
    skips = skips && w.kernel[i] == 1 && w.padding_low[i] == 0 && w.padding_high[i] == 0;
  }
  if (Axis& across = g.axes[2]; reads_x && joins_taps(s)) {
    const int64_t c = s.x_block;
    g.windows = {across.y, across.kernel * c, across.stride * c, across.x * c, across.low * c, g.x_rows(), {}};
    for (int64_t r = 0; r < g.x_rows(); ++r) g.windows.rows.push_back(r);
    g.weight_rows = g.windows.size;
    g.x_block = dtype == DType::kF32 ? g.windows.size : (g.windows.size + 1) / 2 * 2;
    across = {across.y, across.y, 1, 1, 0, 1};
    return g;
  }
  if (skips && !pointwise && reads_x) {
    const Axis &d = g.axes[0], &h = g.axes[1], &across = g.axes[2];
    g.windows = {across.y, s.x_block, across.stride * s.x_block, across.x * s.x_block, 0, g.x_rows(), {}};
    for (int64_t i = 0; i < d.y; ++i)
      for (int64_t j = 0; j < h.y; ++j) g.windows.rows.push_back(i * d.stride * h.x + j * h.stride);
    pointwise = true;
  }
  if (pointwise) {  // the plane is one run of pixels: cut it into long rows
    const int64_t pixels = graph::product(s.conv.output);
    const int64_t channels = reads_x ? s.conv.in_channels : s.conv.out_channels;
    const int64_t most =
        std::clamp<int64_t>(kSourceBytes / (channels * static_cast<int64_t>(g.element)), 32, kMaxColumns);
    int64_t columns = std::min(pixels, most);
    while (pixels % columns != 0) --columns;
    if (columns < 16 && pixels < 4 * kMaxColumns) columns = pixels;
    g.axes = {};
    g.axes[1].x = g.axes[1].y = pixels / columns;
    g.axes[2].x = g.axes[2].y = columns;
  }
  return g;
}

size_t window_bytes(const Geometry& g) {
  const auto rows = static_cast<int64_t>(g.windows.rows.size());
  const size_t bytes = static_cast<size_t>(g.batch * g.x_blocks * rows * g.windows.count * g.x_block) * g.element;
  return (bytes + 63) / 64 * 64;
}

namespace {

template <class T>
void copy_windows(const Geometry& g, const T* x, T* copy) {
  const Geometry::Windows& w = g.windows;
  const auto rows = static_cast<int64_t>(w.rows.size());
  parallel_for(g.batch * g.x_blocks * rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = 0; i < w.count; ++i) {
        const T* const from = x + (r / rows * w.plane + w.rows[static_cast<size_t>(r % rows)]) * w.row;
        T* const to = copy + (r * w.count + i) * g.x_block;
        const int64_t at = i * w.step - w.low;  // in the row of x
        const int64_t first = std::clamp<int64_t>(-at, 0, w.size);
        const int64_t last = std::clamp<int64_t>(w.row - at, first, w.size);
        std::fill_n(to, first, T());
        std::copy(from + at + first, from + at + last, to + first);
        std::fill(to + last, to + g.x_block, T());
      }
  });
}

}  // namespace

const void* copy_windows(const Geometry& g, const void* x, void* scratch) {
  if (g.windows.count == 0) return x;
  if (g.element == 4)
    copy_windows(g, static_cast<const uint32_t*>(x), static_cast<uint32_t*>(scratch));
  else
    copy_windows(g, static_cast<const uint16_t*>(x), static_cast<uint16_t*>(scratch));
  return scratch;
}

RowTaps row_taps(const Geometry& g, bool to_y) {
  const Axis &d = g.axes[0], &h = g.axes[1];
  RowTaps rows(static_cast<size_t>(to_y ? g.y_rows() : g.x_rows()));
  for (int64_t kd = 0; kd < d.kernel; ++kd)
    for (int64_t kh = 0; kh < h.kernel; ++kh) {
      const Overlap od = d.overlap(kd), oh = h.overlap(kh);
      for (int64_t i = 0; i < od.count; ++i)
        for (int64_t j = 0; j < oh.count; ++j) {
          const int64_t x = (od.x_first + i * d.stride) * h.x + oh.x_first + j * h.stride;
          const int64_t y = (od.y_first + i) * h.y + oh.y_first + j;
          const int64_t tap = kd * h.kernel + kh;
          rows[static_cast<size_t>(to_y ? y : x)].push_back({to_y ? x : y, tap});
        }
    }
  return rows;
}

TapPairs pairs_by_tap(const Geometry& g, const RowTaps& rows, int64_t first, int64_t last) {
  TapPairs pairs(static_cast<size_t>(g.axes[0].kernel * g.axes[1].kernel));
  for (int64_t y = first; y < last; ++y)
    for (const RowTap& rt : rows[static_cast<size_t>(y)]) pairs[static_cast<size_t>(rt.tap)].push_back({rt.row, y});
  return pairs;
}

}  // namespace deepseek::backends::cpu
