// Convolution on blocked channels, forward and both gradients, as loops around a small product: its rows are the
// channels of a few blocks, its columns the pixels of a row. Padding costs nothing: a tap that falls outside is left
// out. Few input channels, as of pictures, make one block; the taps of a row then join it, on a copy of the windows, so
// that products are long enough.
// In bf16 a product's elements are pairs along the sum: two channels of a pixel, which are neighbours in memory, and
// weights put so at the start. Sums are f32, in a tile that stays in cache, and are rounded once.
#include "ops/blocked_conv.h"

#include <array>
#include <cstring>
#include <optional>

#include "backends/cpu/anchored.h"
#include "backends/cpu/block_gemm.h"
#include "backends/cpu/conv_geometry.h"
#include "backends/cpu/conv_place.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

// Of the weights that a product reads: over many pixels they come again.
constexpr int64_t kWeightBytes = 24 * 1024;
// Taps times blocks of a product's sum, by which reading and writing the result no longer counts.
constexpr int64_t kLongProduct = 36;

// Forward, or the input's gradient: the destination is stationary, all source blocks and taps flow into it.
class Accumulate : public Kernel {
 public:
  static KernelOrError make(const Geometry& g, bool to_y, ConvPlace place, bool fixed_weights) {
    auto k = std::unique_ptr<Accumulate>(new Accumulate);
    const Axis& w = g.axes[2];
    k->place_ = std::move(place);
    k->batch_ = g.batch;
    k->blocks_ = to_y ? g.y_blocks : g.x_blocks;
    k->src_blocks_ = to_y ? g.x_blocks : g.y_blocks;
    k->block_ = to_y ? g.y_block : g.x_block;
    k->bf16_ = g.element == 2;
    k->weight_rows_ = to_y ? g.weight_rows : g.y_block;
    k->src_block_ = (to_y ? g.x_block : g.y_block) / (k->bf16_ ? 2 : 1);
    k->fixed_weights_ = k->bf16_ && fixed_weights;
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
    k->weight_stride_ = k->src_blocks_ * k->taps_ * k->block_ * k->src_block_;
    const int64_t weight_bytes = std::max<int64_t>(1, k->taps_ * k->block_ * k->src_block_ * k->shares_.most() * 4);
    k->src_chunk_ = std::clamp<int64_t>(kWeightBytes / weight_bytes, 1, k->src_blocks_);
    if (k->taps_ > 1) k->src_chunk_ = std::clamp<int64_t>(kLongProduct / k->taps_, k->src_chunk_, k->src_blocks_);
    k->tile_rows_ =
        std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, k->columns_ * k->block_ * k->shares_.most() * 4));
    const int64_t source_row = std::max<int64_t>(1, k->src_blocks_ * k->src_row_ * 4);
    k->tile_rows_ = std::min(k->tile_rows_, std::max<int64_t>(1, kSourceBytes / source_row));
    for (Group& group : k->groups_) {
      DS_ASSIGN(group.gemm, BlockGemm::make({k->block_, group.count, k->src_block_, k->weight_stride_,
                                             src_step * k->src_block_, 1, k->sum_plane(), step * k->block_, k->bf16_}));
    }
    k->weights_stay_ = k->weight_stride_ * k->blocks_ > k->src_rows_ * k->src_row_ * k->src_blocks_;
    return std::unique_ptr<Kernel>(std::move(k));
  }

  Status prepare(const KernelArgs& args) const override {
    if (fixed_weights_) pack_weights(args.in[place_.weights], static_cast<uint32_t*>(args.prepared));
    return {};
  }
  size_t prepared_bytes() const override { return fixed_weights_ ? packed_bytes() : 0; }
  bool reads(int in) const override { return in != place_.weights || !fixed_weights_; }

  Status run(const KernelArgs& args) const override {
    const auto* weights = static_cast<const float*>(args.in[place_.weights]);
    if (bf16_) {
      void* const packed = fixed_weights_ ? args.prepared : static_cast<char*>(args.scratch) + window_bytes(geometry_);
      if (!fixed_weights_) pack_weights(weights, static_cast<uint32_t*>(packed));
      weights = static_cast<const float*>(packed);
    }
    const auto* src = static_cast<const float*>(copy_windows(geometry_, args.in[place_.x], args.scratch));
    void* const dst = args.out[place_.result];
    std::vector<const void*> in;
    std::vector<void*> out;
    if (place_.after) place_.after->bind(args, {}, in, out);
    const int64_t rows = static_cast<int64_t>(rows_.size()), tiles = (rows + tile_rows_ - 1) / tile_rows_;
    const int64_t row = columns_ * block_;
    parallel_for(batch_ * shares_.count * tiles, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> a(static_cast<size_t>(src_chunk_ * taps_)), b(a.size());
      // The sums of bf16, where vectors lie on cache lines.
      std::vector<float> memory(static_cast<size_t>(bf16_ ? shares_.most() * sum_plane() + 16 : 0));
      void* place = memory.data();
      size_t space = memory.size() * sizeof(float);
      auto* const sums = static_cast<float*>(std::align(64, sizeof(float), place, space));
      for (int64_t task = begin; task < end; ++task) {
        // Which operand is reused by neighbouring tasks: the larger one.
        const int64_t share = weights_stay_ ? task / (batch_ * tiles) : task % shares_.count;
        const int64_t place = weights_stay_ ? task % (batch_ * tiles) : task / shares_.count;
        const int64_t n = place / tiles, first = place % tiles * tile_rows_, last = std::min(rows, first + tile_rows_);
        const int64_t block = shares_.first(share), count = shares_.first(share + 1) - block;
        const auto at = [&](int64_t i) { return ((n * blocks_ + block + i) * rows + first) * row; };  // in dst
        tile(src + n * src_blocks_ * src_rows_ * src_row_, weights + block * weight_stride_,
             bf16_ ? sums : static_cast<float*>(dst) + at(0), count, first, last, a.data(), b.data());
        const int64_t size = (last - first) * row;
        for (int64_t i = 0; bf16_ && i < count; ++i)
          narrow(sums + i * sum_plane(), size, static_cast<uint16_t*>(dst) + at(i));
        for (int64_t i = 0; place_.after && i < count; ++i)  // on what is still in the cache
          place_.after->program.run(in, out, at(i), at(i) + size, nullptr);
      }
    });
    return {};
  }
  size_t scratch_bytes() const override { return window_bytes(geometry_) + (fixed_weights_ ? 0 : packed_bytes()); }
  std::string detail() const override {
    return fmt::format("blocks {} and {}{}", weight_rows_, block_, place_.after ? ", with a loop after it" : "");
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

  size_t packed_bytes() const { return bf16_ ? static_cast<size_t>(blocks_ * weight_stride_) * sizeof(uint32_t) : 0; }
  // From a block of sums to the next: those of f32 are the result.
  int64_t sum_plane() const { return (bf16_ ? tile_rows_ : static_cast<int64_t>(rows_.size())) * columns_ * block_; }

  void pack_weights(const void* weights, uint32_t* packed) const {
    const auto* from = static_cast<const uint16_t*>(weights);
    const int64_t size = block_ * src_block_;
    parallel_for(blocks_ * src_blocks_ * taps_, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        pack_pairs(from + i * weight_rows_ * block_, weight_rows_, block_, block_, packed + i * size);
    });
  }

  // Rows [first, last) of `blocks` blocks of the destination, which are at sums.
  void tile(const float* src, const float* weights, float* sums, int64_t blocks, int64_t first, int64_t last,
            const float** a, const float** b) const {
    const int64_t plane = src_rows_ * src_row_, tap_size = block_ * src_block_;
    for (int64_t s0 = 0; s0 < src_blocks_; s0 += src_chunk_) {
      const int64_t s1 = std::min(src_blocks_, s0 + src_chunk_);
      for (int64_t r = first; r < last; ++r) {
        const std::vector<RowTap>& row_taps = rows_[static_cast<size_t>(r)];
        float* const row = sums + (r - first) * columns_ * block_;
        bool clear = s0 == 0;
        if (clear && (!covered_ || row_taps.empty())) {
          for (int64_t i = 0; i < blocks; ++i)
            std::memset(row + i * sum_plane(), 0, static_cast<size_t>(columns_ * block_) * sizeof(float));
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
  int64_t weight_rows_ = 0;  // channels of the source block; src_block_ and what follows from it count pairs of bf16
  bool covered_ = false, weights_stay_ = false, bf16_ = false, fixed_weights_ = false;
  Geometry geometry_;  // forward only: of the copy of windows
  ConvPlace place_;
  std::vector<Group> groups_;
  RowTaps rows_;
};

// By measurement: a vector of AVX-512 does; with those of AVX2 the products want two rows of two vectors.
int64_t block_of(int64_t channels) {
  for (const int64_t block : {32, 16, 8})
    if (channels % block == 0 && (block <= 16 || !has_wide_vectors())) return block;
  return 0;
}

}  // namespace

passes::ChannelBlocks channel_blocks(const NodeInfo& node) {
  const Result<ops::ConvShape> s = ops::conv_geometry(node.context);
  const DType dtype = node.context.in(0).dtype;
  const bool bf16 = dtype == DType::kBF16 && has_bf16_products();
  if (!s.ok() || (dtype != DType::kF32 && !bf16) || is_empty(node)) return {};
  if (s->groups > 1) {  // by multiply-adds, where each channel is a group
    const bool depthwise = s->groups == s->in_channels && s->groups == s->out_channels && !bf16;
    const int64_t block = depthwise && !is_disabled(*node.options, "native") ? block_of(s->groups) : 0;
    return {block, block};
  }
  if (is_disabled(*node.options, "microgemm")) return {};
  passes::ChannelBlocks blocks{block_of(s->in_channels), block_of(s->out_channels)};
  if (bf16 && (blocks.y != kHalfBlock || (blocks.x != 0 && blocks.x != kHalfBlock))) return {};
  if (blocks.x == 0 && s->in_channels < kFewChannels && s->window.dilation.back() == 1 &&
      node.context.op->name.value != "conv_input_grad")
    blocks.x = s->in_channels;
  // Whether there is a code generator for this CPU at all.
  if (blocks.x == 0 || blocks.y == 0 || !MicroGemm::takes().ok()) return {};
  return blocks;
}

namespace {

// What is known of a node that it takes.
struct Problem {
  Geometry geometry;
  ConvPlace place;  // not of a gradient of the weights
  bool to_y = false, to_weights = false, fixed = false;
};

Result<Problem> problem_of(const NodeInfo& node, Purpose purpose) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const std::string& op = a.node().op_name();
  if (!op.starts_with("blocked_conv")) return refuse("the heavy op is " + op);
  const graph::OpContext context = a.body.context(a.node());
  const DType dtype = context.in(0).dtype;
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    return refuse(fmt::format("dtype {} is not supported", to_string(dtype)));
  DS_ASSIGN(const ops::BlockedConvShape s, ops::blocked_conv_geometry(context));
  for (const graph::TensorType& t : {context.in(0), context.in(1), a.body.type(a.node().output())})
    if (t.num_elements() == 0) return refuse("an operand is empty");
  Geometry g = geometry(s, op != "blocked_conv_input_grad", dtype);
  if (dtype == DType::kBF16 && (!has_bf16_products() || g.x_block % 2 != 0 || g.y_block % 2 != 0))
    return refuse("bf16 on this CPU, or in blocks of an odd number of channels");
  const bool bf16 = dtype == DType::kBF16, to_y = op == "blocked_conv";
  if (op == "blocked_conv_weight_grad") {
    DS_TRY(BlockGemm::takes(g.y_block, bf16));
    return Problem{std::move(g), {}, false, true, false};
  }
  DS_TRY(BlockGemm::takes(to_y ? g.y_block : g.x_block, bf16));
  DS_ASSIGN(ConvPlace place, place_of(a, to_y ? s.y_block : s.x_block, purpose));
  const bool fixed = node.is_fixed(static_cast<size_t>(place.weights));
  return Problem{std::move(g), std::move(place), to_y, false, fixed};
}

}  // namespace

Status takes_blocked_conv(const NodeInfo& node) { return problem_of(node, Purpose::kAsk).status(); }

KernelOrError make_blocked_conv(const NodeInfo& node) {
  DS_ASSIGN(Problem p, problem_of(node, Purpose::kRun));
  if (p.to_weights) return make_blocked_weight_gradient(p.geometry);
  return Accumulate::make(p.geometry, p.to_y, std::move(p.place), p.fixed);
}

}  // namespace deepseek::backends::cpu
