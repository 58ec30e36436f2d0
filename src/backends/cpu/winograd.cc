// f32 convolution with a kernel of 3 x 3 on blocked channels, and its input's gradient, by Winograd's minimal filtering
// F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308): tiles of 6 x 6 pixels, 2 apart from overlapping, become 36
// numbers per channel, in which the convolution is 36 products, a quarter of the multiplications. Rounding is a few
// times that of the direct sum.
#include <array>
#include <cstring>

#include "backends/cpu/block_gemm.h"
#include "backends/cpu/conv_place.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/blocked_conv.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/winograd.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {                          // other files have such functions too
using D = hn::CappedTag<float, 16>;  // blocks are multiples of it
using V = hn::Vec<D>;

// One axis of each transform, by the matrices B^T, G and A^T of the paper.
HWY_INLINE void Input(const V (&d)[6], V (&v)[6]) {
  const D t;
  const V two = hn::Set(t, 2.0f), four = hn::Set(t, 4.0f), five = hn::Set(t, 5.0f);
  const V a = hn::NegMulAdd(four, d[2], d[4]), b = hn::NegMulAdd(four, d[1], d[3]);
  const V c = hn::Sub(d[4], d[2]), e = hn::Mul(two, hn::Sub(d[3], d[1]));
  v[0] = hn::MulAdd(four, d[0], hn::NegMulAdd(five, d[2], d[4]));
  v[1] = hn::Add(a, b);
  v[2] = hn::Sub(a, b);
  v[3] = hn::Add(c, e);
  v[4] = hn::Sub(c, e);
  v[5] = hn::MulAdd(four, d[1], hn::NegMulAdd(five, d[3], d[5]));
}
HWY_INLINE void Weights(const V (&g)[3], V (&u)[6]) {
  const D t;
  const V sixth = hn::Set(t, 1.0f / 6), twelfth = hn::Set(t, 1.0f / 12), part = hn::Set(t, 1.0f / 24);
  const V a = hn::Neg(hn::Mul(sixth, hn::Add(g[0], g[2]))), b = hn::Mul(sixth, g[1]);
  const V c = hn::MulAdd(part, g[0], hn::Mul(sixth, g[2])), e = hn::Mul(twelfth, g[1]);
  u[0] = hn::Mul(hn::Set(t, 0.25f), g[0]);
  u[1] = hn::Sub(a, b);
  u[2] = hn::Add(a, b);
  u[3] = hn::Add(c, e);
  u[4] = hn::Sub(c, e);
  u[5] = g[2];
}
HWY_INLINE void Output(const V (&m)[6], V (&y)[4]) {
  const D t;
  const V two = hn::Set(t, 2.0f), four = hn::Set(t, 4.0f), eight = hn::Set(t, 8.0f);
  const V a = hn::Add(m[1], m[2]), b = hn::Sub(m[1], m[2]), c = hn::Add(m[3], m[4]), e = hn::Sub(m[3], m[4]);
  y[0] = hn::Add(hn::Add(m[0], a), c);
  y[1] = hn::MulAdd(two, e, b);
  y[2] = hn::MulAdd(four, c, a);
  y[3] = hn::Add(hn::MulAdd(eight, e, b), m[5]);
}

// The 36 numbers of the tile whose first pixel is (h, w) of a plane [height, width, block]; outside are zeros. Number i
// of the block's channels goes to v + i * step.
void InputTile(const float* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* v,
               int64_t step) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[6][6];  // [column][number along the height]
    for (int64_t j = 0; j < 6; ++j) {
      V d[6];
      for (int64_t i = 0; i < 6; ++i) {
        const bool inside = h + i >= 0 && h + i < height && w + j >= 0 && w + j < width;
        d[i] = inside ? hn::LoadU(t, plane + ((h + i) * width + w + j) * block + lane) : hn::Zero(t);
      }
      Input(d, rows[j]);
    }
    for (int64_t i = 0; i < 6; ++i) {
      const V d[6] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i]};
      V out[6];
      Input(d, out);
      for (int64_t j = 0; j < 6; ++j) hn::StoreU(out[j], t, v + (i * 6 + j) * step + lane);
    }
  }
}

// A pair of blocks of the weights, [3, 3, block] of one source channel, `flipped` back to front.
void WeightTile(const float* g, int64_t tap, bool flipped, int64_t block, float* u, int64_t step) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[3][6];
    for (int64_t j = 0; j < 3; ++j) {
      V d[3];
      for (int64_t i = 0; i < 3; ++i) d[i] = hn::LoadU(t, g + (flipped ? 8 - i * 3 - j : i * 3 + j) * tap + lane);
      Weights(d, rows[j]);
    }
    for (int64_t i = 0; i < 6; ++i) {
      const V d[3] = {rows[0][i], rows[1][i], rows[2][i]};
      V out[6];
      Weights(d, out);
      for (int64_t j = 0; j < 6; ++j) hn::StoreU(out[j], t, u + (i * 6 + j) * step + lane);
    }
  }
}

// Of the 4 x 4 pixels from (h, w) on those that are inside of the plane.
void OutputTile(const float* m, int64_t step, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block,
                float* plane) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[6][4];  // [column][pixel along the height]
    for (int64_t j = 0; j < 6; ++j) {
      V d[6];
      for (int64_t i = 0; i < 6; ++i) d[i] = hn::LoadU(t, m + (i * 6 + j) * step + lane);
      Output(d, rows[j]);
    }
    for (int64_t i = 0; i < std::min<int64_t>(4, height - h); ++i) {
      const V d[6] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i]};
      V out[4];
      Output(d, out);
      for (int64_t j = 0; j < std::min<int64_t>(4, width - w); ++j)
        hn::StoreU(out[j], t, plane + ((h + i) * width + w + j) * block + lane);
    }
  }
}
}  // namespace
}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {

namespace {

HWY_EXPORT(InputTile);
HWY_EXPORT(WeightTile);
HWY_EXPORT(OutputTile);

constexpr int64_t kNumbers = 36, kTileSide = 4;
// Of a group's tiles in both forms, for one thread.
constexpr int64_t kGroupBytes = 2 * 1024 * 1024;
constexpr int64_t kMostGroup = 128;

class Winograd : public Kernel {
 public:
  // src [N, src_blocks, height, width, src_block] to dst, the same with `rows` and `columns`; tile (0, 0) begins at
  // pixel -low of src.
  struct Shape {
    int64_t batch = 0, src_blocks = 0, blocks = 0, src_block = 0, block = 0;
    int64_t height = 0, width = 0, rows = 0, columns = 0, low_h = 0, low_w = 0;
    bool flipped = false;  // the weights' taps
  };

  static KernelOrRefusal make(const Shape& s, ConvPlace place, const graph::Tensor* weights) {
    auto k = std::unique_ptr<Winograd>(new Winograd);
    k->s_ = s;
    k->place_ = std::move(place);
    k->tile_rows_ = (s.rows + kTileSide - 1) / kTileSide;
    k->tile_columns_ = (s.columns + kTileSide - 1) / kTileSide;
    const int64_t all_rows = s.batch * k->tile_rows_;
    const int64_t tile_bytes = kNumbers * 4 * (s.src_blocks * s.src_block + BlockGemm::most_blocks(s.block) * s.block);
    const int64_t group = std::clamp<int64_t>(kGroupBytes / tile_bytes, 1, kMostGroup);
    k->group_rows_ = std::clamp<int64_t>(group / k->tile_columns_, 1, all_rows);
    k->groups_ = (all_rows + k->group_rows_ - 1) / k->group_rows_;
    k->group_rows_ = (all_rows + k->groups_ - 1) / k->groups_;  // evenly
    k->groups_ = (all_rows + k->group_rows_ - 1) / k->group_rows_;
    k->teams_ = k->groups_ >= num_threads() ? num_threads() : 1;
    k->shares_ = Shares(s.blocks, s.block);
    if (k->teams_ == 1)
      k->shares_.count = std::min<int64_t>(s.blocks, std::max<int64_t>(k->shares_.count, num_threads()));
    for (int64_t rows = 1; rows <= k->group_rows_; ++rows) {
      // Columns of the product are tiles; the strides are those of a full group.
      const int64_t tiles = k->group_rows_ * k->tile_columns_;
      DS_ASSIGN(BlockGemm gemm, BlockGemm::make({s.block, rows * k->tile_columns_, s.src_block,
                                                 kNumbers * s.src_blocks * s.src_block * s.block, s.src_block, 1,
                                                 tiles * s.block, s.block}));
      k->gemms_.push_back(gemm);
    }
    if (weights != nullptr) {
      k->known_ = graph::Tensor(DType::kF32, {k->weight_floats()});
      k->transform_weights(weights->as<float>(), k->known_.as<float>());
    }
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>((known_.defined() ? 0 : weight_floats()) + teams_ * group_floats()) * sizeof(float);
  }
  bool reads(int in) const override { return in != place_.weights || !known_.defined(); }
  std::string detail() const override {
    return fmt::format("blocks {} and {}{}", s_.src_block, s_.block, place_.after ? ", with a loop after it" : "");
  }

  Status run(const KernelArgs& args) const override {
    auto* scratch = static_cast<float*>(args.scratch);
    const float* u = known_.as<float>();
    if (!known_.defined()) {
      transform_weights(static_cast<const float*>(args.in[static_cast<size_t>(place_.weights)]), scratch);
      u = scratch;
      scratch += weight_floats();
    }
    const auto* src = static_cast<const float*>(args.in[static_cast<size_t>(place_.x)]);
    auto* dst = static_cast<float*>(args.out[static_cast<size_t>(place_.result)]);
    std::vector<const void*> in;
    std::vector<void*> out;
    if (place_.after) place_.after->bind(args, {}, in, out);
    const auto all = [&](int64_t team, int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) group(g, src, u, dst, scratch + team * group_floats(), in, out);
    };
    if (teams_ == 1)
      all(0, 0, groups_);
    else  // the split of parallel_for, by number of the thread
      parallel_for(teams_, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) all(t, groups_ * t / teams_, groups_ * (t + 1) / teams_);
      });
    return {};
  }

 private:
  int64_t weight_floats() const { return kNumbers * s_.blocks * s_.block * s_.src_blocks * s_.src_block; }
  int64_t tiles() const { return group_rows_ * tile_columns_; }
  int64_t source_floats() const { return kNumbers * tiles() * s_.src_blocks * s_.src_block; }
  // A share's products; with all threads on one group, those of all shares.
  int64_t group_floats() const {
    return source_floats() + kNumbers * tiles() * s_.block * (teams_ == 1 ? s_.blocks : shares_.most());
  }
  // Weights [blocks, src_blocks, 3, 3, src_block, block] to [blocks, 36, src_blocks, src_block, block].
  void transform_weights(const float* weights, float* u) const {
    const int64_t pair = s_.src_block * s_.block;
    parallel_for(s_.blocks * s_.src_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        for (int64_t c = 0; c < s_.src_block; ++c) {
          const int64_t to = p / s_.src_blocks * kNumbers * s_.src_blocks + p % s_.src_blocks;
          HWY_DYNAMIC_DISPATCH(WeightTile)
          (weights + p * 9 * pair + c * s_.block, pair, s_.flipped, s_.block, u + to * pair + c * s_.block,
           s_.src_blocks * pair);
        }
    });
  }

  void group(int64_t g, const float* src, const float* u, float* dst, float* scratch,
             const std::vector<const void*>& in, const std::vector<void*>& out) const {
    const int64_t first = g * group_rows_, last = std::min(s_.batch * tile_rows_, first + group_rows_);
    const int64_t full = tiles(), block = s_.block, src_block = s_.src_block;
    float* const v = scratch;
    float* const m = scratch + source_floats();
    // v [36, src_blocks, tiles, src_block]
    parallel_for((last - first) * s_.src_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task % s_.src_blocks, r = task / s_.src_blocks, row = first + r;
        const float* const plane = src + (row / tile_rows_ * s_.src_blocks + c) * s_.height * s_.width * src_block;
        for (int64_t t = 0; t < tile_columns_; ++t) HWY_DYNAMIC_DISPATCH(InputTile)
        (plane, s_.height, s_.width, row % tile_rows_ * kTileSide - s_.low_h, t * kTileSide - s_.low_w, src_block,
         v + (c * full + r * tile_columns_ + t) * src_block, s_.src_blocks * full * src_block);
      }
    });
    const BlockGemm& gemm = gemms_[static_cast<size_t>(last - first - 1)];
    parallel_for(shares_.count, 1, [&](int64_t begin, int64_t end) {
      std::vector<const float*> a(static_cast<size_t>(s_.src_blocks)), b(a.size());
      for (int64_t share = begin; share < end; ++share) {
        const int64_t b0 = shares_.first(share), count = shares_.first(share + 1) - b0;
        // [36, count, tiles, block]
        float* const products = teams_ == 1 ? m + kNumbers * full * block * b0 : m;
        for (int64_t i = 0; i < kNumbers; ++i) {
          for (int64_t c = 0; c < s_.src_blocks; ++c) {
            a[static_cast<size_t>(c)] = u + ((b0 * kNumbers + i) * s_.src_blocks + c) * src_block * block;
            b[static_cast<size_t>(c)] = v + (i * s_.src_blocks + c) * full * src_block;
          }
          gemm(a.data(), b.data(), s_.src_blocks, products + i * count * full * block, count, false);
        }
        for (int64_t f = 0; f < count; ++f) {
          for (int64_t r = 0; r < last - first; ++r) {
            const int64_t row = first + r, h = row % tile_rows_ * kTileSide;
            const int64_t start = (row / tile_rows_ * s_.blocks + b0 + f) * s_.rows * s_.columns * block;
            for (int64_t t = 0; t < tile_columns_; ++t) HWY_DYNAMIC_DISPATCH(OutputTile)
            (products + (f * full + r * tile_columns_ + t) * block, count * full * block, s_.rows, s_.columns, h,
             t * kTileSide, block, dst + start);
            if (place_.after)
              place_.after->program.run(in, out, start + h * s_.columns * block,
                                        start + std::min(s_.rows, h + kTileSide) * s_.columns * block, nullptr);
          }
        }
      }
    });
  }

  Shape s_;
  ConvPlace place_;
  int64_t tile_rows_ = 0, tile_columns_ = 0;  // of tiles, per plane
  int64_t group_rows_ = 0, groups_ = 0;       // rows of tiles that go together, over all images
  int64_t teams_ = 1;                         // threads that have groups of their own; 1: all share one
  Shares shares_;
  std::vector<BlockGemm> gemms_;  // by rows of tiles
  graph::Tensor known_;           // weights in their 36 numbers
};

// Whether it is faster than the direct sum, by multiply-adds of vectors in the time of both. A loose model; measured
// are the cost of a transform of a tile, and of a cache line of weights, which come from memory.
bool pays(const Winograd::Shape& s, bool known_weights) {
  constexpr double kTransform = 220, kWeightTransform = 130, kLine = 24;
  const double pixels = static_cast<double>(s.batch * s.rows * s.columns);
  const double tiles = static_cast<double>(s.batch * ((s.rows + 3) / 4) * ((s.columns + 3) / 4));
  const double blocks = static_cast<double>(s.src_blocks + s.blocks);
  const double weights = static_cast<double>(s.src_blocks * s.src_block * s.blocks);  // lines of one tap
  const double direct = weights * 9 * (pixels + kLine);
  const double products = weights * kNumbers * (1.1 * tiles + (known_weights ? 1 : 2) * kLine);
  const double transforms = tiles * kTransform * blocks + (known_weights ? 0 : kWeightTransform * weights);
  return products + transforms < 0.85 * direct;
}

}  // namespace

KernelOrRefusal make_winograd_conv(const NodeInfo& node) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const std::string& op = a.node().op_name();
  const bool backward = op == "blocked_conv_input_grad";
  if (op != "blocked_conv" && !backward) return refuse("the heavy op is " + op);
  const graph::OpContext context = a.body.context(a.node());
  if (context.in(0).dtype != DType::kF32)
    return refuse(fmt::format("dtype {} is not supported", to_string(context.in(0).dtype)));
  DS_ASSIGN(const ops::BlockedConvShape c, ops::blocked_conv_geometry(context));
  for (const graph::TensorType& t : {context.in(0), context.in(1), a.body.type(a.node().output())})
    if (t.num_elements() == 0) return refuse("an operand is empty");
  const ops::Window& w = c.conv.window;
  if (w.kernel != graph::Dims{3, 3} || w.stride != graph::Dims{1, 1} || w.dilation != graph::Dims{1, 1})
    return refuse("not a kernel of 3 x 3 with stride 1");
  if (c.x_block % 16 != 0 || c.y_block % 16 != 0) return refuse("blocks of fewer than 16 channels");
  const int64_t x_blocks = c.conv.in_channels / c.x_block, y_blocks = c.conv.out_channels / c.y_block;
  Winograd::Shape s;
  s.batch = c.conv.batch;
  s.flipped = backward;
  if (backward) {
    s.src_blocks = y_blocks, s.src_block = c.y_block, s.blocks = x_blocks, s.block = c.x_block;
    s.height = c.conv.output[0], s.width = c.conv.output[1], s.rows = c.conv.input[0], s.columns = c.conv.input[1];
    s.low_h = 2 - w.padding_low[0], s.low_w = 2 - w.padding_low[1];
  } else {
    s.src_blocks = x_blocks, s.src_block = c.x_block, s.blocks = y_blocks, s.block = c.y_block;
    s.height = c.conv.input[0], s.width = c.conv.input[1], s.rows = c.conv.output[0], s.columns = c.conv.output[1];
    s.low_h = w.padding_low[0], s.low_w = w.padding_low[1];
  }
  DS_ASSIGN(ConvPlace place, place_of(a, s.block));
  const graph::Tensor* known = nullptr;
  if (static_cast<size_t>(place.weights) < node.constants.size() && node.constants[static_cast<size_t>(place.weights)])
    known = &*node.constants[static_cast<size_t>(place.weights)];
  if (!pays(s, known != nullptr)) return refuse("too few products for its transforms");
  return Winograd::make(s, std::move(place), known);
}

}  // namespace deepseek::backends::cpu
#endif
