// The weights' gradient of a convolution on blocked channels, as sums of products over the pixels in one order, so that
// they don't depend on the number of threads.
#include <algorithm>
#include <cstring>

#include "backends/cpu/block_gemm.h"
#include "backends/cpu/conv_geometry.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

// For each pair of blocks and each tap a product over the pixels, rows and images in order.
class WeightGradient : public Kernel {
 public:
  static KernelOrError make(const Geometry& g) {
    auto k = std::unique_ptr<WeightGradient>(new WeightGradient);
    k->g_ = g;
    const Axis& w = g.axes[2];
    for (int64_t kw = 0; kw < w.kernel; ++kw) {
      Column c{w.overlap(kw), {}};
      if (c.overlap.count == 0) continue;
      DS_ASSIGN(c.gemm,
                BlockGemm::make({g.y_block, g.x_block, c.overlap.count, g.y_rows() * w.y * g.y_block, 1,
                                 w.stride * g.x_block, g.x_blocks * g.taps() * g.x_block * g.y_block, g.y_block}));
      k->columns_.push_back(c);
    }
    k->shares_ = Shares(g.y_blocks, g.y_block, (num_threads() + g.x_blocks - 1) / g.x_blocks);
    k->tile_rows_ = std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, w.y * g.y_block * 4));
    const RowTaps rows = row_taps(g, true);
    for (int64_t first = 0; first < g.y_rows(); first += k->tile_rows_)
      k->tiles_.push_back(pairs_by_tap(g, rows, first, std::min(g.y_rows(), first + k->tile_rows_)));
    return std::unique_ptr<Kernel>(std::move(k));
  }

  Status run(const KernelArgs& args) const override {
    const auto* dy = static_cast<const float*>(args.in[1]);
    const auto* x = static_cast<const float*>(copy_windows(g_, args.in[0], args.scratch));
    auto* dw = static_cast<float*>(args.out[0]);
    const int64_t width = g_.axes[2].kernel, x_row = g_.axes[2].x * g_.x_block, y_row = g_.axes[2].y * g_.y_block;
    const int64_t x_plane = g_.x_rows() * x_row, y_plane = g_.y_rows() * y_row;
    const int64_t tap_size = g_.x_block * g_.y_block, size = g_.taps() * tap_size;
    parallel_for(shares_.count * g_.x_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task)
        for (int64_t y = shares_.first(task / g_.x_blocks); y < shares_.first(task / g_.x_blocks + 1); ++y)
          std::memset(dw + (y * g_.x_blocks + task % g_.x_blocks) * size, 0, static_cast<size_t>(size) * sizeof(float));
      std::vector<const float*> a(static_cast<size_t>(tile_rows_)), b(a.size());
      for (int64_t n = 0; n < g_.batch; ++n)
        for (const auto& tile : tiles_)
          for (int64_t task = begin; task < end; ++task) {
            const int64_t share = task / g_.x_blocks, first = shares_.first(share);
            const int64_t blocks = shares_.first(share + 1) - first;
            const float* const px = x + (n * g_.x_blocks + task % g_.x_blocks) * x_plane;
            const float* const py = dy + (n * g_.y_blocks + first) * y_plane;
            float* const to = dw + (first * g_.x_blocks + task % g_.x_blocks) * size;
            for (size_t tap = 0; tap < tile.size(); ++tap) {
              if (tile[tap].empty()) continue;
              for (const Column& c : columns_) {
                for (size_t i = 0; i < tile[tap].size(); ++i) {
                  a[i] = py + tile[tap][i].y * y_row + c.overlap.y_first * g_.y_block;
                  b[i] = px + tile[tap][i].x * x_row + c.overlap.x_first * g_.x_block;
                }
                c.gemm(a.data(), b.data(), static_cast<int64_t>(tile[tap].size()),
                       to + (static_cast<int64_t>(tap) * width + c.overlap.tap) * tap_size, blocks, true);
              }
            }
          }
    });
    return {};
  }
  size_t scratch_bytes() const override { return window_bytes(g_); }
  std::string detail() const override { return fmt::format("blocks {} and {}", g_.x_block, g_.y_block); }

 private:
  struct Column {
    Overlap overlap;
    BlockGemm gemm;
  };
  Geometry g_;
  std::vector<Column> columns_;
  std::vector<TapPairs> tiles_;
  Shares shares_;
  int64_t tile_rows_ = 1;
};

// In bf16 a product's elements are pairs of pixels. Both operands are put so, some rows at a time, x once for each tap
// along a row, with zeros where it falls outside; then all threads multiply them. Sums are f32.
class Bf16WeightGradient : public Kernel {
 public:
  static KernelOrError make(const Geometry& g) {
    // Of both operands' rows that go together: they stay in cache while they are multiplied, and the longer the sums
    // the less often their results are read and written.
    constexpr int64_t kGroupBytes = 4 << 20;
    auto k = std::unique_ptr<Bf16WeightGradient>(new Bf16WeightGradient);
    k->g_ = g;
    const Axis &w = g.axes[2], &h = g.axes[1];
    k->pairs_ = (w.y + 1) / 2;
    k->shares_ = Shares(g.y_blocks, g.y_block, (num_threads() + g.x_blocks - 1) / g.x_blocks);
    // The rows of x that rows of y need are neighbours.
    const RowTaps rows = row_taps(g, true);
    const int64_t y_bytes = g.y_blocks * k->y_row() * 4, x_bytes = g.x_blocks * w.kernel * k->x_row() * 4;
    const int64_t image = g.y_rows() * y_bytes + g.x_rows() * x_bytes;
    k->images_ = std::clamp<int64_t>(kGroupBytes / image, 1, g.batch);
    int64_t step = kGroupBytes / (y_bytes + g.axes[0].stride * h.stride * x_bytes);
    if (g.axes[0].kernel > 1) step = step / h.y * h.y;  // whole slices, which share those of x
    step = std::clamp<int64_t>(step, g.axes[0].kernel > 1 ? h.y : 1, g.y_rows());
    for (int64_t first = 0; first < g.y_rows(); first += step) {
      const int64_t last = std::min(g.y_rows(), first + step);
      Part part{first, last, g.x_rows(), 0, pairs_by_tap(g, rows, first, last)};
      for (const std::vector<RowPair>& tap : part.pairs)
        for (const RowPair& pair : tap) {
          part.x_first = std::min(part.x_first, pair.x);
          part.x_last = std::max(part.x_last, pair.x + 1);
        }
      part.x_first = std::min(part.x_first, part.x_last);
      k->most_y_ = std::max(k->most_y_, part.last - part.first);
      k->most_x_ = std::max(k->most_x_, part.x_last - part.x_first);
      k->parts_.push_back(std::move(part));
    }
    DS_ASSIGN(k->gemm_, BlockGemm::make({g.y_block, g.weight_rows, k->pairs_, k->y_offset(1, 0), 1, g.x_block,
                                         k->sum_stride(), g.y_block, true}));
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override {
    const int64_t packed = y_offset(g_.y_blocks, 0) + x_offset(g_.x_blocks, 0, 0);
    return window_bytes(g_) + static_cast<size_t>(packed + num_sums()) * sizeof(float);
  }
  std::string detail() const override { return fmt::format("blocks {} and {}", g_.weight_rows, g_.y_block); }

  Status run(const KernelArgs& args) const override {
    const auto* x = static_cast<const uint16_t*>(copy_windows(g_, args.in[0], args.scratch));
    auto* const memory = reinterpret_cast<float*>(static_cast<char*>(args.scratch) + window_bytes(g_));
    float* const packed_y = memory;                               // [y_blocks, images, rows, pairs, y_block]
    float* const packed_x = packed_y + y_offset(g_.y_blocks, 0);  // [x_blocks, kernel, images, rows, pairs, x_block]
    float* const sums = packed_x + x_offset(g_.x_blocks, 0, 0);
    bool add = false;
    for (int64_t n = 0; n < g_.batch; n += images_)
      for (const Part& part : parts_) {
        const Group group{part, n, std::min(images_, g_.batch - n)};
        pack(group, x, static_cast<const uint16_t*>(args.in[1]), packed_x, packed_y);
        multiply(group, packed_x, packed_y, sums, add);
        add = true;
      }
    parallel_for(num_sums() / kHalfBlock, 1024, [&](int64_t begin, int64_t end) {
      narrow(sums + begin * kHalfBlock, (end - begin) * kHalfBlock,
             static_cast<uint16_t*>(args.out[0]) + begin * kHalfBlock);
    });
    return {};
  }

 private:
  struct Part {  // rows of an image
    int64_t first, last, x_first, x_last;
    TapPairs pairs;
  };
  struct Group {
    const Part& part;
    int64_t image, images;
  };

  int64_t y_offset(int64_t block, int64_t image) const { return (block * images_ + image) * most_y_ * y_row(); }
  int64_t x_offset(int64_t block, int64_t kw, int64_t image) const {
    return ((block * g_.axes[2].kernel + kw) * images_ + image) * most_x_ * x_row();
  }
  // Packed rows, in pairs.
  int64_t y_row() const { return pairs_ * g_.y_block; }
  int64_t x_row() const { return pairs_ * g_.x_block; }
  int64_t tap_size() const { return g_.weight_rows * g_.y_block; }
  int64_t sum_stride() const { return g_.x_blocks * g_.taps() * tap_size(); }  // from a block of y to the next
  int64_t num_sums() const { return g_.y_blocks * sum_stride(); }

  void pack(const Group& group, const uint16_t* x, const uint16_t* dy, float* packed_x, float* packed_y) const {
    const Part& part = group.part;
    const Axis& w = g_.axes[2];
    const int64_t y_rows = part.last - part.first, x_rows = part.x_last - part.x_first;
    parallel_for((g_.y_blocks + g_.x_blocks) * group.images, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t i = task % group.images, block = task / group.images, n = group.image + i;
        if (block < g_.y_blocks) {
          const uint16_t* const from = dy + ((n * g_.y_blocks + block) * g_.y_rows() + part.first) * w.y * g_.y_block;
          auto* const to = reinterpret_cast<uint32_t*>(packed_y) + y_offset(block, i);
          for (int64_t r = 0; r < y_rows; ++r)
            pack_pairs(from + r * w.y * g_.y_block, w.y, g_.y_block, g_.y_block, to + r * y_row());
          continue;
        }
        const int64_t b = block - g_.y_blocks;
        const uint16_t* const from = x + ((n * g_.x_blocks + b) * g_.x_rows() + part.x_first) * w.x * g_.x_block;
        auto* const to = reinterpret_cast<uint32_t*>(packed_x);
        for (int64_t kw = 0; kw < w.kernel; ++kw) pack_x(from, x_rows, kw, to + x_offset(b, kw, i));
      }
    });
  }

  void pack_x(const uint16_t* from, int64_t rows, int64_t kw, uint32_t* to) const {
    const Axis& w = g_.axes[2];
    const Overlap o = w.overlap(kw);
    // What joins y from its first pixel on: an odd one is the second of its pair.
    const int64_t before = o.y_first / 2, odd = o.y_first % 2 == 1 && o.count > 0 ? 1 : 0;
    for (int64_t r = 0; r < rows; ++r, from += w.x * g_.x_block, to += x_row()) {
      const uint16_t* pixel = from + o.x_first * g_.x_block;
      uint32_t* pair = std::fill_n(to, before * g_.x_block, 0u);
      if (odd == 1) {
        for (int64_t c = 0; c < g_.x_block; ++c) *pair++ = static_cast<uint32_t>(pixel[c]) << 16;
        pixel += w.stride * g_.x_block;
      }
      pack_pairs(pixel, o.count - odd, w.stride * g_.x_block, g_.x_block, pair);
      pair += (o.count - odd + 1) / 2 * g_.x_block;
      std::fill(pair, to + x_row(), 0u);
    }
  }

  void multiply(const Group& group, const float* packed_x, const float* packed_y, float* sums, bool add) const {
    const Part& part = group.part;
    const int64_t width = g_.axes[2].kernel;
    parallel_for(shares_.count * g_.x_blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> a(static_cast<size_t>(images_ * most_y_)), b(a.size());
      for (int64_t task = begin; task < end; ++task) {
        const int64_t share = task / g_.x_blocks, xb = task % g_.x_blocks;
        const int64_t first = shares_.first(share), blocks = shares_.first(share + 1) - first;
        for (size_t tap = 0; tap < part.pairs.size(); ++tap)
          for (int64_t kw = 0; kw < width; ++kw) {
            int64_t count = 0;
            for (int64_t i = 0; i < group.images; ++i)
              for (const RowPair& pair : part.pairs[tap]) {
                a[static_cast<size_t>(count)] = packed_y + y_offset(first, i) + (pair.y - part.first) * y_row();
                b[static_cast<size_t>(count++)] = packed_x + x_offset(xb, kw, i) + (pair.x - part.x_first) * x_row();
              }
            float* const to =
                sums + first * sum_stride() + (xb * g_.taps() + static_cast<int64_t>(tap) * width + kw) * tap_size();
            if (count > 0) {
              gemm_(a.data(), b.data(), count, to, blocks, add);
              continue;
            }
            for (int64_t f = 0; !add && f < blocks; ++f)
              std::memset(to + f * sum_stride(), 0, static_cast<size_t>(tap_size()) * sizeof(float));
          }
      }
    });
  }

  Geometry g_;
  BlockGemm gemm_;
  Shares shares_;
  std::vector<Part> parts_;
  int64_t pairs_ = 0, images_ = 1;   // of pixels of a row; that go together
  int64_t most_y_ = 0, most_x_ = 0;  // rows of a part
};

}  // namespace

KernelOrError make_blocked_weight_gradient(const Geometry& g) {
  if (g.element == 2) return Bf16WeightGradient::make(g);
  return WeightGradient::make(g);
}

}  // namespace deepseek::backends::cpu
