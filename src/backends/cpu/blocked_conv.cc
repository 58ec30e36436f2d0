// f32 convolution on blocked channels, forward and both gradients, as loops around a small product: its rows are the
// channels of a few blocks, its columns the pixels of a row. Padding costs nothing: a tap that falls outside is left
// out. Few input channels, as of pictures, make one block; the taps of a row then join it, on a copy of the windows, so
// that products are long enough.
#include "ops/blocked_conv.h"

#include <array>
#include <cstring>
#include <optional>

#include "backends/cpu/anchored.h"
#include "backends/cpu/block_gemm.h"
#include "backends/cpu/conv_axis.h"
#include "backends/cpu/conv_place.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/registry.h"

namespace deepseek::backends::cpu {

namespace {

// Bytes of one operand's tile that should stay in the first-level cache.
constexpr int64_t kTileBytes = 24 * 1024;
// Of the weights that a product reads: over many pixels they come again.
constexpr int64_t kWeightBytes = 24 * 1024;
// Taps times blocks of a product's sum, by which reading and writing the result no longer counts.
constexpr int64_t kLongProduct = 36;
constexpr int64_t kMaxColumns = 256;
// Of the source of a tile, which all blocks of the destination read: a part of the second-level cache.
constexpr int64_t kSourceBytes = 384 * 1024;
// Below this many channels taps join.
constexpr int64_t kFewChannels = 8;

struct Geometry {
  int64_t batch = 0, x_blocks = 0, y_blocks = 0, x_block = 0, y_block = 0;
  std::array<Axis, 3> axes;  // leading ones of size 1

  // The copy of x that is read instead of it, in rows of windows one after another: where taps have joined, those that
  // slide over a row of x; where one tap skips pixels, those that it reaches.
  struct Windows {
    int64_t count = 0, floats = 0, step = 0;  // per row; of one; from one to the next
    int64_t row = 0, low = 0;                 // floats of x's row, and of padding before it
    int64_t plane = 0;                        // rows of x
    std::vector<int64_t> rows;                // of x, which are copied
  } windows;

  int64_t x_rows() const { return axes[0].x * axes[1].x; }
  int64_t y_rows() const { return axes[0].y * axes[1].y; }
  int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
};

bool joins_taps(const ops::BlockedConvShape& s) {
  return s.x_block == s.conv.in_channels && s.x_block < kFewChannels && s.conv.window.dilation.back() == 1;
}

// `reads_x`: not the gradient by x, which is written pixel by pixel.
Geometry geometry(const ops::BlockedConvShape& s, bool reads_x) {
  Geometry g;
  g.batch = s.conv.batch;
  g.x_block = s.x_block;
  g.y_block = s.y_block;
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
    g.x_block = g.windows.floats;
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
    const int64_t most = std::clamp<int64_t>(kSourceBytes / (channels * 4), 32, kMaxColumns);
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
  return static_cast<size_t>(g.batch * g.x_blocks * rows * g.windows.count * g.windows.floats) * sizeof(float);
}

// x as the products read it: itself, or the copy of its windows in `scratch`.
const float* copy_windows(const Geometry& g, const float* x, void* scratch) {
  const Geometry::Windows& w = g.windows;
  if (w.count == 0) return x;
  auto* const copy = static_cast<float*>(scratch);
  const auto rows = static_cast<int64_t>(w.rows.size());
  parallel_for(g.batch * g.x_blocks * rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = 0; i < w.count; ++i) {
        const float* const from = x + (r / rows * w.plane + w.rows[static_cast<size_t>(r % rows)]) * w.row;
        float* const to = copy + (r * w.count + i) * w.floats;
        const int64_t at = i * w.step - w.low;  // in the row of x
        const int64_t first = std::clamp<int64_t>(-at, 0, w.floats);
        const int64_t last = std::clamp<int64_t>(w.row - at, first, w.floats);
        std::fill_n(to, first, 0.0f);
        std::copy(from + at + first, from + at + last, to + first);
        std::fill(to + last, to + w.floats, 0.0f);
      }
  });
  return copy;
}

// A row of the destination and what flows into it: source rows, each by one (depth, height) tap.
struct RowTap {
  int64_t row, tap;
};
using RowTaps = std::vector<std::vector<RowTap>>;

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

// Forward, or the input's gradient: the destination is stationary, all source blocks and taps flow into it.
class Accumulate : public Kernel {
 public:
  static KernelOrRefusal make(const Geometry& g, bool to_y, ConvPlace place = {}) {
    auto k = std::unique_ptr<Accumulate>(new Accumulate);
    const Axis& w = g.axes[2];
    k->place_ = std::move(place);
    k->batch_ = g.batch;
    k->blocks_ = to_y ? g.y_blocks : g.x_blocks;
    k->src_blocks_ = to_y ? g.x_blocks : g.y_blocks;
    k->block_ = to_y ? g.y_block : g.x_block;
    k->src_block_ = to_y ? g.x_block : g.y_block;
    k->columns_ = to_y ? w.y : w.x;
    if (to_y) k->geometry_ = g;
    k->src_row_ = (to_y ? w.x : w.y) * k->src_block_;
    k->src_rows_ = to_y ? g.x_rows() : g.y_rows();
    k->taps_ = g.taps();
    k->width_ = w.kernel;
    k->rows_ = row_taps(g, to_y);
    const int64_t step = to_y ? 1 : w.stride, src_step = to_y ? w.stride : 1;
    for (int64_t kw = 0; kw < w.kernel; ++kw) {
      const Overlap o = w.overlap(kw);
      if (o.count == 0) continue;
      const int64_t first = to_y ? o.y_first : o.x_first, src_first = to_y ? o.x_first : o.y_first;
      auto at = std::find_if(k->groups_.begin(), k->groups_.end(),
                             [&](const Group& x) { return x.first == first && x.count == o.count; });
      if (at == k->groups_.end()) at = k->groups_.insert(at, Group{first, o.count, {}, {}});
      at->taps.push_back({kw, src_first * k->src_block_});
    }
    // A group that covers the row comes first: it overwrites, so that the row needs no clearing.
    const auto covers = [&](const Group& x) { return step == 1 && x.first == 0 && x.count == k->columns_; };
    std::stable_partition(k->groups_.begin(), k->groups_.end(), covers);
    k->covered_ = !k->groups_.empty() && covers(k->groups_.front());
    k->shares_ = Shares(k->blocks_, k->block_);
    const int64_t rows = static_cast<int64_t>(k->rows_.size());
    k->weight_stride_ = k->src_blocks_ * k->taps_ * k->block_ * k->src_block_;
    for (Group& group : k->groups_) {
      DS_ASSIGN(group.gemm,
                BlockGemm::make({k->block_, group.count, k->src_block_, k->weight_stride_, src_step * k->src_block_, 1,
                                 rows * k->columns_ * k->block_, step * k->block_}));
    }
    const int64_t weight_bytes = std::max<int64_t>(1, k->taps_ * k->block_ * k->src_block_ * k->shares_.most() * 4);
    k->src_chunk_ = std::clamp<int64_t>(kWeightBytes / weight_bytes, 1, k->src_blocks_);
    if (k->taps_ > 1) k->src_chunk_ = std::clamp<int64_t>(kLongProduct / k->taps_, k->src_chunk_, k->src_blocks_);
    k->tile_rows_ =
        std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, k->columns_ * k->block_ * k->shares_.most() * 4));
    const int64_t source_row = std::max<int64_t>(1, k->src_blocks_ * k->src_row_ * 4);
    k->tile_rows_ = std::min(k->tile_rows_, std::max<int64_t>(1, kSourceBytes / source_row));
    k->weights_stay_ = k->weight_stride_ * k->blocks_ > k->src_rows_ * k->src_row_ * k->src_blocks_;
    return std::unique_ptr<Kernel>(std::move(k));
  }

  Status run(const KernelArgs& args) const override {
    const auto* weights = static_cast<const float*>(args.in[place_.weights]);
    const float* src = copy_windows(geometry_, static_cast<const float*>(args.in[place_.x]), args.scratch);
    auto* dst = static_cast<float*>(args.out[place_.result]);
    std::vector<const void*> in;
    std::vector<void*> out;
    if (place_.after) place_.after->bind(args, {}, in, out);
    const int64_t rows = static_cast<int64_t>(rows_.size()), tiles = (rows + tile_rows_ - 1) / tile_rows_;
    parallel_for(batch_ * shares_.count * tiles, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> a(static_cast<size_t>(src_chunk_ * taps_)), b(a.size());
      for (int64_t task = begin; task < end; ++task) {
        // Which operand is reused by neighbouring tasks: the larger one.
        const int64_t share = weights_stay_ ? task / (batch_ * tiles) : task % shares_.count;
        const int64_t place = weights_stay_ ? task % (batch_ * tiles) : task / shares_.count;
        const int64_t n = place / tiles, first = place % tiles * tile_rows_, last = std::min(rows, first + tile_rows_);
        const int64_t block = shares_.first(share), count = shares_.first(share + 1) - block;
        tile(src + n * src_blocks_ * src_rows_ * src_row_, weights + block * weight_stride_,
             dst + (n * blocks_ + block) * rows * columns_ * block_, count, first, last, a.data(), b.data());
        for (int64_t i = 0; place_.after && i < count; ++i) {  // on what is still in the cache
          const int64_t plane = (n * blocks_ + block + i) * rows;
          place_.after->program.run(in, out, (plane + first) * columns_ * block_, (plane + last) * columns_ * block_,
                                    nullptr);
        }
      }
    });
    return {};
  }
  size_t scratch_bytes() const override { return window_bytes(geometry_); }
  std::string detail() const override {
    return fmt::format("blocks {} and {}{}", src_block_, block_, place_.after ? ", with a loop after it" : "");
  }

 private:
  struct ColumnTap {
    int64_t tap, src_offset;
  };
  struct Group {  // taps that reach the same columns of the destination
    int64_t first, count;
    std::vector<ColumnTap> taps;
    BlockGemm gemm;
  };

  // Rows [first, last) of `blocks` blocks of the destination.
  void tile(const float* src, const float* weights, float* dst, int64_t blocks, int64_t first, int64_t last,
            const float** a, const float** b) const {
    const int64_t plane = src_rows_ * src_row_, tap_size = block_ * src_block_;
    const int64_t dst_plane = static_cast<int64_t>(rows_.size()) * columns_ * block_;
    for (int64_t s0 = 0; s0 < src_blocks_; s0 += src_chunk_) {
      const int64_t s1 = std::min(src_blocks_, s0 + src_chunk_);
      for (int64_t r = first; r < last; ++r) {
        const std::vector<RowTap>& row_taps = rows_[static_cast<size_t>(r)];
        float* const row = dst + r * columns_ * block_;
        bool clear = s0 == 0;
        if (clear && (!covered_ || row_taps.empty())) {
          for (int64_t i = 0; i < blocks; ++i)
            std::memset(row + i * dst_plane, 0, static_cast<size_t>(columns_ * block_) * sizeof(float));
          clear = false;
        }
        if (row_taps.empty()) continue;
        for (const Group& group : groups_) {
          int64_t count = 0;
          for (int64_t s = s0; s < s1; ++s)
            for (const RowTap& rt : row_taps)
              for (const ColumnTap& ct : group.taps) {
                a[count] = weights + (s * taps_ + rt.tap * width_ + ct.tap) * tap_size;
                b[count++] = src + s * plane + rt.row * src_row_ + ct.src_offset;
              }
          group.gemm(a, b, count, row + group.first * block_, blocks, !clear);
          clear = false;
        }
      }
    }
  }

  int64_t batch_ = 0, blocks_ = 0, src_blocks_ = 0, block_ = 0, src_block_ = 0, columns_ = 0, src_row_ = 0,
          src_rows_ = 0, taps_ = 0, width_ = 0, weight_stride_ = 0, src_chunk_ = 1, tile_rows_ = 1;
  Shares shares_;
  bool covered_ = false, weights_stay_ = false;
  Geometry geometry_;  // forward only: of the copy of windows
  ConvPlace place_;
  std::vector<Group> groups_;
  RowTaps rows_;
};

// The weights' gradient: for each pair of blocks and each tap a product over the pixels, rows and images in order, so
// that the sum doesn't depend on the number of threads.
class WeightGradient : public Kernel {
 public:
  static KernelOrRefusal make(const Geometry& g) {
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
    // by_tap: the pairs of rows per tile and tap
    const RowTaps rows = row_taps(g, true);
    const int64_t count = g.y_rows(), taps = g.axes[0].kernel * g.axes[1].kernel;
    for (int64_t first = 0; first < count; first += k->tile_rows_) {
      std::vector<std::vector<RowPair>> tile(static_cast<size_t>(taps));
      for (int64_t y = first; y < std::min(count, first + k->tile_rows_); ++y)
        for (const RowTap& rt : rows[static_cast<size_t>(y)]) tile[static_cast<size_t>(rt.tap)].push_back({rt.row, y});
      k->tiles_.push_back(std::move(tile));
    }
    return std::unique_ptr<Kernel>(std::move(k));
  }

  Status run(const KernelArgs& args) const override {
    const auto* dy = static_cast<const float*>(args.in[1]);
    const float* x = copy_windows(g_, static_cast<const float*>(args.in[0]), args.scratch);
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
  struct RowPair {
    int64_t x, y;
  };
  Geometry g_;
  std::vector<Column> columns_;
  std::vector<std::vector<std::vector<RowPair>>> tiles_;
  Shares shares_;
  int64_t tile_rows_ = 1;
};

}  // namespace

namespace {

// By measurement: a vector of AVX-512 does; with those of AVX2 the products want two rows of two vectors.
int64_t block_of(int64_t channels) {
  for (const int64_t block : {32, 16, 8})
    if (channels % block == 0 && (block <= 16 || !has_wide_vectors())) return block;
  return 0;
}

}  // namespace

passes::ChannelBlocks channel_blocks(const NodeInfo& node) {
  const auto& off = node.options->disabled_implementations;
  if (std::find(off.begin(), off.end(), "microgemm") != off.end()) return {};
  const Result<ops::ConvShape> s = ops::conv_geometry(node.context);
  if (!s.ok() || node.context.in(0).dtype != DType::kF32 || s->batch == 0) return {};
  if (s->groups > 1) {  // by multiply-adds, where each channel is a group
    const int64_t block = s->groups == s->in_channels && s->groups == s->out_channels ? block_of(s->groups) : 0;
    return {block, block};
  }
  if (s->in_channels == 0 || s->out_channels == 0 || graph::product(s->output) == 0) return {};
  passes::ChannelBlocks blocks{block_of(s->in_channels), block_of(s->out_channels)};
  if (blocks.x == 0 && s->in_channels < kFewChannels && s->window.dilation.back() == 1 &&
      node.context.op->name.value != "conv_input_grad")
    blocks.x = s->in_channels;
  // Whether there is a code generator for this CPU at all.
  if (blocks.x == 0 || blocks.y == 0 || !MicroGemm::make({16, 1, 16, 16, 16, 16}).ok()) return {};
  return blocks;
}

KernelOrRefusal make_blocked_conv(const NodeInfo& node) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const std::string& op = a.node().op_name();
  if (!op.starts_with("blocked_conv")) return refuse("the heavy op is " + op);
  const graph::OpContext context = a.body.context(a.node());
  if (context.in(0).dtype != DType::kF32)
    return refuse(fmt::format("dtype {} is not supported", to_string(context.in(0).dtype)));
  DS_ASSIGN(const ops::BlockedConvShape s, ops::blocked_conv_geometry(context));
  for (const graph::TensorType& t : {context.in(0), context.in(1), a.body.type(a.node().output())})
    if (t.num_elements() == 0) return refuse("an operand is empty");
  const Geometry g = geometry(s, op != "blocked_conv_input_grad");
  if (op == "blocked_conv_weight_grad") return WeightGradient::make(g);
  if (op == "blocked_conv_input_grad") return Accumulate::make(g, false);
  DS_ASSIGN(ConvPlace place, place_of(a, s.y_block));
  return Accumulate::make(g, true, std::move(place));
}

}  // namespace deepseek::backends::cpu
