// Convolution on blocked channels, of f32 or bf16, whose kernel is 3 x 3 along the last two axes, and its gradients, by
// Winograd's minimal filtering: tiles of 6 x 6 pixels, of which neighbours share two rows, become 36 numbers per
// channel, in which the convolution is 36 products, a quarter of the multiplications (winograd_tiles.h). Taps along a
// third axis are more terms of these products, which are f32. Rounding is a few times that of the direct sum.
#include <cstring>

#include "backends/cpu/block_gemm.h"
#include "backends/cpu/conv_place.h"
#include "backends/cpu/kernel.h"
#include "backends/cpu/winograd_tiles.h"
#include "base/threads.h"
#include "ops/blocked_conv.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kNumbers = kWinogradNumbers, kSide = kWinogradSide;

// A tensor [batch, blocks, slices, height, width, block].
struct Planes {
  int64_t batch = 0, blocks = 0, block = 0, slices = 1, height = 0, width = 0;

  int64_t channels() const { return blocks * block; }
  int64_t at(int64_t n, int64_t b, int64_t slice) const {
    return ((n * blocks + b) * slices + slice) * height * width * block;
  }
};

// What tiles have in common: the side of 4 x 4 pixels, the side of 6 x 6 that they come from, and where these begin.
struct Tiling {
  Planes source, result;
  int64_t taps = 1, dilation = 1;                  // along the slices
  int64_t low = 0, low_height = 0, low_width = 0;  // tap 0 of pixel 0 is source pixel -low
  size_t element = 4;                              // bytes: 4 of f32, 2 of bf16

  // Element `at` of a tensor.
  const void* from(const void* tensor, int64_t at) const {
    return static_cast<const char*>(tensor) + at * static_cast<int64_t>(element);
  }
  void* to(void* tensor, int64_t at) const { return static_cast<char*>(tensor) + at * static_cast<int64_t>(element); }
  WinogradTiles tiles() const { return winograd_tiles(element == 2); }

  int64_t rows() const { return (result.height + kSide - 1) / kSide; }
  int64_t columns() const { return (result.width + kSide - 1) / kSide; }
  // Rows of tiles are numbered by image, row and slice, so that neighbours share source slices.
  int64_t all_rows() const { return result.batch * rows() * result.slices; }

  struct Row {
    int64_t image, row, slice;
  };
  Row row(int64_t r) const { return {r / (rows() * result.slices), r / result.slices % rows(), r % result.slices}; }
  // Rows [first, first + count) of one image and row of tiles, and their source rows, one after another from `slot` on;
  // those of tap t begin t * dilation later. Without taps along the slices all rows are one run.
  struct Run {
    int64_t first, count, slot;
  };
  std::vector<Run> runs(int64_t first, int64_t last) const {
    std::vector<Run> list;
    int64_t slot = 0;
    while (first < last) {
      const int64_t end = taps == 1 ? last : std::min(last, (first / result.slices + 1) * result.slices);
      list.push_back({first, end - first, slot});
      slot += end - first + halo();
      first = end;
    }
    return list;
  }
  int64_t halo() const { return (taps - 1) * dilation; }
  // Source rows of a group of `rows` rows, at most.
  int64_t slots(int64_t rows) const {
    return rows + halo() * (taps == 1 ? 1 : (rows + result.slices - 2) / result.slices + 1);
  }

  // The numbers of source block c for all slots: number i of slot s, column t at v + i * step + (s * columns + t) *
  // block.
  void transform_source(const void* src, const std::vector<Run>& runs, int64_t c, float* v, int64_t step) const {
    const auto input = tiles().input;
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count + halo(); ++i) {
        // Without taps a run goes on into the next row of tiles.
        const Row at = row(taps == 1 ? run.first + i : run.first);
        const int64_t slice = at.slice + (taps == 1 ? 0 : i) - low;
        float* const to = v + (run.slot + i) * columns() * source.block;
        if (slice < 0 || slice >= source.slices) {
          for (int64_t k = 0; k < kNumbers; ++k)
            std::memset(to + k * step, 0, static_cast<size_t>(columns() * source.block) * sizeof(float));
          continue;
        }
        const void* const plane = from(src, source.at(at.image, c, slice));
        for (int64_t t = 0; t < columns(); ++t)
          input(plane, source.height, source.width, at.row * kSide - low_height, t * kSide - low_width, source.block,
                to + t * source.block, step);
      }
  }
};

// Rows of tiles per group, such that a group's numbers take about `bytes`; even groups.
int64_t group_rows(const Tiling& t, int64_t channels, int64_t bytes) {
  const int64_t row_bytes = kNumbers * 4 * channels * t.columns();
  const int64_t most = std::clamp<int64_t>(bytes / std::max<int64_t>(1, row_bytes), 1, t.all_rows());
  const int64_t groups = (t.all_rows() + most - 1) / most;
  return (t.all_rows() + groups - 1) / groups;
}

// Forward, or the input's gradient.
class Winograd : public Kernel {
 public:
  static KernelOrError make(const Tiling& t, bool flipped, ConvPlace place, bool fixed_weights) {
    auto k = std::unique_ptr<Winograd>(new Winograd);
    k->t_ = t;
    // Of a group's numbers in both forms, for one thread: all weights are read for each group.
    const int64_t bytes = std::clamp<int64_t>(k->weight_floats() / 2, 1 << 20, 8 << 20);
    k->flipped_ = flipped;
    k->place_ = std::move(place);
    const Planes &src = t.source, &dst = t.result;
    k->rows_ = group_rows(t, src.channels() + BlockGemm::most_blocks(dst.block) * dst.block, bytes);
    k->groups_ = (t.all_rows() + k->rows_ - 1) / k->rows_;
    k->teams_ = k->groups_ >= num_threads() ? num_threads() : 1;
    k->shares_ = Shares(dst.blocks, dst.block, k->teams_ == 1 ? num_threads() : 1);
    for (int64_t rows = 1; rows <= k->rows_; ++rows) {
      DS_ASSIGN(BlockGemm gemm, BlockGemm::make({dst.block, rows * t.columns(), src.block, k->weight_stride(),
                                                 src.block, 1, k->rows_ * t.columns() * dst.block, dst.block}));
      k->gemms_.push_back(gemm);
    }
    k->fixed_weights_ = fixed_weights;
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>((fixed_weights_ ? 0 : weight_floats()) + teams_ * group_floats()) * sizeof(float);
  }
  size_t prepared_bytes() const override {
    return fixed_weights_ ? static_cast<size_t>(weight_floats()) * sizeof(float) : 0;
  }
  Status prepare(const KernelArgs& args) const override {
    if (fixed_weights_)
      transform_weights(args.in[static_cast<size_t>(place_.weights)], static_cast<float*>(args.prepared));
    return {};
  }
  bool reads(int in) const override { return in != place_.weights || !fixed_weights_; }
  std::string detail() const override {
    return fmt::format("blocks {} and {}{}", t_.source.block, t_.result.block,
                       place_.after ? ", with a loop after it" : "");
  }

  Status run(const KernelArgs& args) const override {
    auto* scratch = static_cast<float*>(args.scratch);
    const float* u = static_cast<const float*>(args.prepared);
    if (!fixed_weights_) {
      transform_weights(args.in[static_cast<size_t>(place_.weights)], scratch);
      u = scratch;
      scratch += weight_floats();
    }
    const void* src = args.in[static_cast<size_t>(place_.x)];
    void* dst = args.out[static_cast<size_t>(place_.result)];
    std::vector<const void*> in;
    std::vector<void*> out;
    if (place_.after) place_.after->bind(args, {}, in, out);
    // Threads have groups of their own, or, where these are few, all share one after another.
    parallel_for(teams_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t team = begin; team < end; ++team)
        for (int64_t g = groups_ * team / teams_; g < groups_ * (team + 1) / teams_; ++g)
          group(g, src, u, dst, scratch + team * group_floats(), in, out);
    });
    return {};
  }

 private:
  int64_t weight_stride() const {  // from a block of the result to the next
    return kNumbers * t_.taps * t_.source.channels() * t_.result.block;
  }
  int64_t weight_floats() const { return t_.result.blocks * weight_stride(); }
  int64_t source_floats() const { return kNumbers * t_.slots(rows_) * t_.columns() * t_.source.channels(); }
  // A share's products; with all threads on one group, those of all shares.
  int64_t group_floats() const {
    const int64_t blocks = teams_ == 1 ? t_.result.blocks : shares_.most();
    return source_floats() + kNumbers * rows_ * t_.columns() * t_.result.block * blocks;
  }

  // Weights [blocks, src_blocks, taps, 3, 3, src_block, block] to [blocks, 36, taps, src_blocks, src_block, block].
  void transform_weights(const void* weights, float* u) const {
    const auto transform = t_.tiles().weights;
    const int64_t src_blocks = t_.source.blocks, block = t_.result.block, pair = t_.source.block * block;
    parallel_for(t_.result.blocks * src_blocks * t_.taps, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t b = p / (src_blocks * t_.taps), c = p / t_.taps % src_blocks, tap = p % t_.taps;
        const int64_t to_tap = flipped_ ? t_.taps - 1 - tap : tap;
        float* const to = u + b * weight_stride() + (to_tap * src_blocks + c) * pair;
        for (int64_t i = 0; i < t_.source.block; ++i)
          transform(t_.from(weights, p * 9 * pair + i * block), pair, flipped_, block, to + i * block,
                    t_.taps * src_blocks * pair);
      }
    });
  }

  void group(int64_t g, const void* src, const float* u, void* dst, float* scratch, const std::vector<const void*>& in,
             const std::vector<void*>& out) const {
    const int64_t first = g * rows_, last = std::min(t_.all_rows(), first + rows_), columns = t_.columns();
    const int64_t src_blocks = t_.source.blocks, src_block = t_.source.block, block = t_.result.block;
    const std::vector<Tiling::Run> runs = t_.runs(first, last);
    const auto output = t_.tiles().output;
    float* const v = scratch;  // [36, src_blocks, slots, columns, src_block]
    const int64_t v_block = t_.slots(rows_) * columns * src_block, v_step = src_blocks * v_block;
    parallel_for(src_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) t_.transform_source(src, runs, c, v + c * v_block, v_step);
    });
    const int64_t m_block = rows_ * columns * block;
    parallel_for(shares_.count, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> a(static_cast<size_t>(t_.taps * src_blocks)), b(a.size());
      for (int64_t share = begin; share < end; ++share) {
        const int64_t b0 = shares_.first(share), count = shares_.first(share + 1) - b0;
        // [36, count, rows, columns, block]
        float* const m = scratch + source_floats() + (teams_ == 1 ? kNumbers * m_block * b0 : 0);
        for (int64_t i = 0; i < kNumbers; ++i)
          for (const Tiling::Run& run : runs) {
            size_t pairs = 0;
            for (int64_t tap = 0; tap < t_.taps; ++tap)
              for (int64_t c = 0; c < src_blocks; ++c) {
                a[pairs] = u + b0 * weight_stride() + ((i * t_.taps + tap) * src_blocks + c) * src_block * block;
                b[pairs++] = v + i * v_step + c * v_block + (run.slot + tap * t_.dilation) * columns * src_block;
              }
            gemms_[static_cast<size_t>(run.count - 1)](a.data(), b.data(), static_cast<int64_t>(pairs),
                                                       m + i * count * m_block + (run.first - first) * columns * block,
                                                       count, false);
          }
        for (int64_t f = 0; f < count; ++f)
          for (int64_t r = first; r < last; ++r) {
            const Tiling::Row at = t_.row(r);
            const int64_t start = t_.result.at(at.image, b0 + f, at.slice), h = at.row * kSide;
            const float* const from = m + f * m_block + (r - first) * columns * block;
            for (int64_t t = 0; t < columns; ++t)
              output(from + t * block, count * m_block, t_.result.height, t_.result.width, h, t * kSide, block,
                     t_.to(dst, start));
            const int64_t row = t_.result.width * block;
            if (place_.after)
              place_.after->program.run(in, out, start + h * row, start + std::min(t_.result.height, h + kSide) * row,
                                        nullptr);
          }
      }
    });
  }

  Tiling t_;
  bool flipped_ = false;  // the weights' taps
  ConvPlace place_;
  int64_t rows_ = 0, groups_ = 0;  // rows of tiles that go together
  int64_t teams_ = 1;              // threads that have groups of their own; 1: all share one
  Shares shares_;
  std::vector<BlockGemm> gemms_;  // by rows of a run
  bool fixed_weights_ = false;
};

// The weights' gradient: the transposes of the transforms, and 36 products over the tiles. Groups come in order, so
// that the sum doesn't depend on the number of threads.
class WinogradWeightGrad : public Kernel {
 public:
  static KernelOrError make(const Tiling& t) {
    constexpr int64_t kGroupBytes = 8 * 1024 * 1024;  // of a group's numbers in both forms, for all threads
    auto k = std::unique_ptr<WinogradWeightGrad>(new WinogradWeightGrad);
    k->t_ = t;
    const Planes &x = t.source, &dy = t.result;
    k->rows_ = group_rows(t, x.channels() + dy.channels(), kGroupBytes);
    k->shares_ = Shares(dy.blocks, dy.block);
    for (int64_t rows = 1; rows <= k->rows_; ++rows) {
      DS_ASSIGN(BlockGemm gemm,
                BlockGemm::make({dy.block, x.block, rows * t.columns(), k->rows_ * t.columns() * dy.block, 1, x.block,
                                 k->weight_stride(), dy.block}));
      k->gemms_.push_back(gemm);
    }
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(weight_floats() + source_floats() +
                               kNumbers * rows_ * t_.columns() * t_.result.channels()) *
           sizeof(float);
  }
  std::string detail() const override { return fmt::format("blocks {} and {}", t_.source.block, t_.result.block); }

  Status run(const KernelArgs& args) const override {
    const WinogradTiles tiles = t_.tiles();
    const void *x = args.in[0], *dy = args.in[1];
    auto* const u = static_cast<float*>(args.scratch);  // [blocks, 36, taps, src_blocks, src_block, block]
    float* const v = u + weight_floats();               // [36, src_blocks, slots, columns, src_block]
    float* const m = v + source_floats();               // [36, blocks, rows, columns, block]
    const int64_t src_blocks = t_.source.blocks, blocks = t_.result.blocks, columns = t_.columns();
    const int64_t src_block = t_.source.block, block = t_.result.block, pair = src_block * block;
    const int64_t v_block = t_.slots(rows_) * columns * src_block, v_step = src_blocks * v_block;
    const int64_t m_block = rows_ * columns * block, m_step = blocks * m_block;
    for (int64_t first = 0; first < t_.all_rows(); first += rows_) {
      const int64_t last = std::min(t_.all_rows(), first + rows_);
      const std::vector<Tiling::Run> runs = t_.runs(first, last);
      parallel_for(src_blocks + blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          if (c < src_blocks) {
            t_.transform_source(x, runs, c, v + c * v_block, v_step);
            continue;
          }
          for (int64_t r = first; r < last; ++r) {
            const Tiling::Row at = t_.row(r);
            float* const to = m + (c - src_blocks) * m_block + (r - first) * columns * block;
            for (int64_t t = 0; t < columns; ++t)
              tiles.output_grad(t_.from(dy, t_.result.at(at.image, c - src_blocks, at.slice)), t_.result.height,
                                t_.result.width, at.row * kSide, t * kSide, block, to + t * block, m_step);
          }
        }
      });
      parallel_for(shares_.count * t_.taps * src_blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < kNumbers; ++i)  // outside, so that its numbers stay in cache
          for (int64_t task = begin; task < end; ++task) {
            const int64_t share = task / (t_.taps * src_blocks), rest = task % (t_.taps * src_blocks);
            const int64_t tap = rest / src_blocks, c = rest % src_blocks, b0 = shares_.first(share);
            bool add = first > 0;
            for (const Tiling::Run& run : runs) {
              const float* a = m + i * m_step + b0 * m_block + (run.first - first) * columns * block;
              const float* b = v + i * v_step + c * v_block + (run.slot + tap * t_.dilation) * columns * src_block;
              gemms_[static_cast<size_t>(run.count - 1)](
                  &a, &b, 1, u + b0 * weight_stride() + ((i * t_.taps + tap) * src_blocks + c) * pair,
                  shares_.first(share + 1) - b0, add);
              add = true;
            }
          }
      });
    }
    void* const dw = args.out[0];
    parallel_for(blocks * src_blocks * t_.taps, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t b = p / (src_blocks * t_.taps), c = p / t_.taps % src_blocks, tap = p % t_.taps;
        const float* const from = u + b * weight_stride() + (tap * src_blocks + c) * pair;
        for (int64_t i = 0; i < src_block; ++i)
          tiles.weight_grad(from + i * block, t_.taps * src_blocks * pair, block, t_.to(dw, p * 9 * pair + i * block),
                            pair);
      }
    });
    return {};
  }

 private:
  int64_t weight_stride() const { return kNumbers * t_.taps * t_.source.channels() * t_.result.block; }
  int64_t weight_floats() const { return t_.result.blocks * weight_stride(); }
  int64_t source_floats() const { return kNumbers * t_.slots(rows_) * t_.columns() * t_.source.channels(); }

  Tiling t_;
  int64_t rows_ = 0;
  Shares shares_;
  std::vector<BlockGemm> gemms_;  // by rows of a run
};

// Whether it is faster than the direct sum, by multiply-adds of vectors in the time of both. A loose model; measured
// are the cost of a transform of a tile, and of a cache line of weights, which come from memory.
bool pays(const Tiling& t, double weight_lines, double weight_transform) {
  constexpr double kTransform = 220, kLine = 24;
  const double pixels = static_cast<double>(t.result.batch * t.result.slices * t.result.height * t.result.width);
  const double tiles = static_cast<double>(t.all_rows() * t.columns());
  const double blocks = static_cast<double>(t.source.blocks + t.result.blocks);
  const double weights = static_cast<double>(t.source.channels() * t.result.blocks);  // lines of one number or tap
  const double taps = static_cast<double>(t.taps);
  const double direct = taps * weights * 9 * (pixels + kLine);
  const double products = taps * weights * kNumbers * (1.1 * tiles + weight_lines * kLine);
  const double most = t.element == 2 ? 0.5 * 0.85 : 0.85;  // the direct sum has products of bf16
  return products + tiles * kTransform * blocks + weight_transform * weights * taps < most * direct;
}

}  // namespace

namespace {

// What is known of a node that it takes.
struct Problem {
  Tiling tiling;
  ConvPlace place;  // not of a gradient of the weights
  bool to_input = false, to_weights = false, fixed = false;
};

Result<Problem> problem_of(const NodeInfo& node, Purpose purpose) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const std::string& op = a.node().op_name();
  if (!op.starts_with("blocked_conv")) return refuse("the heavy op is " + op);
  const bool to_input = op == "blocked_conv_input_grad", to_weights = op == "blocked_conv_weight_grad";
  const graph::OpContext context = a.body.context(a.node());
  const DType dtype = context.in(0).dtype;
  if (dtype != DType::kF32 && !(dtype == DType::kBF16 && has_bf16_products()))
    return refuse(fmt::format("dtype {} is not supported", to_string(dtype)));
  DS_ASSIGN(const ops::BlockedConvShape c, ops::blocked_conv_geometry(context));
  for (const graph::TensorType& type : {context.in(0), context.in(1), a.body.type(a.node().output())})
    if (type.num_elements() == 0) return refuse("an operand is empty");
  const ops::Window& w = c.conv.window;
  const size_t rank = w.kernel.size();
  if (rank < 2) return refuse("one spatial axis");
  for (size_t i = rank - 2; i < rank; ++i)
    if (w.kernel[i] != 3 || w.stride[i] != 1 || w.dilation[i] != 1)
      return refuse("not a kernel of 3 x 3 with stride 1");
  if (w.stride[0] != 1) return refuse("a stride");
  if (c.x_block % 16 != 0 || c.y_block % 16 != 0) return refuse("blocks of fewer than 16 channels");
  const auto planes = [&](int64_t channels, int64_t block, const graph::Dims& spatial) {
    return Planes{c.conv.batch,      channels / block, block, rank == 3 ? spatial[0] : 1,
                  spatial[rank - 2], spatial[rank - 1]};
  };
  const Planes x = planes(c.conv.in_channels, c.x_block, c.conv.input);
  const Planes y = planes(c.conv.out_channels, c.y_block, c.conv.output);
  Tiling t{x, y};
  t.element = size_of(dtype);
  if (rank == 3) t.taps = w.kernel[0], t.dilation = w.dilation[0], t.low = w.padding_low[0];
  t.low_height = w.padding_low[rank - 2];
  t.low_width = w.padding_low[rank - 1];
  if (to_weights) {
    if (!pays(t, 3, 130)) return refuse("too few products for its transforms");
    DS_TRY(BlockGemm::takes(t.result.block, false));
    return Problem{t, {}, false, true, false};
  }
  if (to_input) {
    t.source = y;
    t.result = x;
    t.low = t.halo() - t.low;
    t.low_height = 2 - t.low_height;
    t.low_width = 2 - t.low_width;
  }
  const int weights = a.input_of(1);
  const bool fixed = weights >= 0 && node.is_fixed(static_cast<size_t>(weights));
  if (!pays(t, fixed ? 1 : 2, fixed ? 0 : 130)) return refuse("too few products for its transforms");
  DS_TRY(BlockGemm::takes(t.result.block, false));
  DS_ASSIGN(ConvPlace place, place_of(a, t.result.block, purpose));
  return Problem{t, std::move(place), to_input, false, fixed};
}

}  // namespace

Status takes_winograd_conv(const NodeInfo& node) { return problem_of(node, Purpose::kAsk).status(); }

KernelOrError make_winograd_conv(const NodeInfo& node) {
  DS_ASSIGN(Problem p, problem_of(node, Purpose::kRun));
  if (p.to_weights) return WinogradWeightGrad::make(p.tiling);
  return Winograd::make(p.tiling, p.to_input, std::move(p.place), p.fixed);
}

}  // namespace deepseek::backends::cpu
