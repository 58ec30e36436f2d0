#include "backends/cpu/winograd_tiles.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/winograd_tiles.cc"
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

// Pixels and weights are f32 or bf16, rounded to nearest even.
template <class T>
HWY_INLINE V Load(const void* from, int64_t at) {
  const D t;
  if constexpr (sizeof(T) == 4) return hn::LoadU(t, static_cast<const float*>(from) + at);
  const hn::Rebind<uint32_t, D> u;
  const hn::Rebind<uint16_t, D> h;
  return hn::BitCast(t, hn::ShiftLeft<16>(hn::PromoteTo(u, hn::LoadU(h, static_cast<const uint16_t*>(from) + at))));
}
template <class T>
HWY_INLINE void Store(V v, void* to, int64_t at) {
  const D t;
  if constexpr (sizeof(T) == 4) return hn::StoreU(v, t, static_cast<float*>(to) + at);
  const hn::Rebind<uint32_t, D> u;
  const hn::Rebind<int32_t, D> i;
  const hn::Rebind<uint16_t, D> h;
  const auto bits = hn::BitCast(u, v), high = hn::ShiftRight<16>(bits);
  const auto up = hn::Add(hn::Set(u, 0x7fff), hn::And(high, hn::Set(u, 1)));
  const auto nan = hn::Or(high, hn::Set(u, 0x40));
  const auto half = hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(v)), nan, hn::ShiftRight<16>(hn::Add(bits, up)));
  hn::StoreU(hn::DemoteTo(h, hn::BitCast(i, half)), h, static_cast<uint16_t*>(to) + at);
}

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

// The transposes of Output and Weights: what gradients take.
HWY_INLINE void OutputGrad(const V (&y)[4], V (&m)[6]) {
  const D t;
  const V two = hn::Set(t, 2.0f), four = hn::Set(t, 4.0f), eight = hn::Set(t, 8.0f);
  const V a = hn::Add(y[0], y[2]), b = hn::Add(y[1], y[3]);
  const V c = hn::MulAdd(four, y[2], y[0]), e = hn::MulAdd(eight, y[3], hn::Mul(two, y[1]));
  m[0] = y[0];
  m[1] = hn::Add(a, b);
  m[2] = hn::Sub(a, b);
  m[3] = hn::Add(c, e);
  m[4] = hn::Sub(c, e);
  m[5] = y[3];
}
HWY_INLINE void WeightsGrad(const V (&u)[6], V (&g)[3]) {
  const D t;
  const V sixth = hn::Set(t, 1.0f / 6), twelfth = hn::Set(t, 1.0f / 12), part = hn::Set(t, 1.0f / 24);
  const V a = hn::Mul(sixth, hn::Add(u[1], u[2])), b = hn::Add(u[3], u[4]);
  g[0] = hn::MulAdd(hn::Set(t, 0.25f), u[0], hn::MulSub(part, b, a));
  g[1] = hn::MulAdd(twelfth, hn::Sub(u[3], u[4]), hn::Mul(sixth, hn::Sub(u[2], u[1])));
  g[2] = hn::Add(u[5], hn::MulSub(sixth, b, a));
}

// The 36 numbers of the tile whose first pixel is (h, w) of a plane [height, width, block]; outside are zeros. Number i
// of the block's channels goes to v + i * step.
template <class T>
void InputTile(const void* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* v,
               int64_t step) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[6][6];  // [column][number along the height]
    for (int64_t j = 0; j < 6; ++j) {
      V d[6];
      for (int64_t i = 0; i < 6; ++i) {
        const bool inside = h + i >= 0 && h + i < height && w + j >= 0 && w + j < width;
        d[i] = inside ? Load<T>(plane, ((h + i) * width + w + j) * block + lane) : hn::Zero(t);
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
template <class T>
void WeightTile(const void* g, int64_t tap, bool flipped, int64_t block, float* u, int64_t step) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[3][6];
    for (int64_t j = 0; j < 3; ++j) {
      V d[3];
      for (int64_t i = 0; i < 3; ++i) d[i] = Load<T>(g, (flipped ? 8 - i * 3 - j : i * 3 + j) * tap + lane);
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
template <class T>
void OutputTile(const float* m, int64_t step, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block,
                void* plane) {
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
        Store<T>(out[j], plane, ((h + i) * width + w + j) * block + lane);
    }
  }
}

// The 36 numbers of the 4 x 4 pixels of a gradient from (h, w) on; outside are zeros.
template <class T>
void OutputGradTile(const void* plane, int64_t height, int64_t width, int64_t h, int64_t w, int64_t block, float* m,
                    int64_t step) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[4][6];
    for (int64_t j = 0; j < 4; ++j) {
      V d[4];
      for (int64_t i = 0; i < 4; ++i)
        d[i] = h + i < height && w + j < width ? Load<T>(plane, ((h + i) * width + w + j) * block + lane) : hn::Zero(t);
      OutputGrad(d, rows[j]);
    }
    for (int64_t i = 0; i < 6; ++i) {
      const V d[4] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i]};
      V out[6];
      OutputGrad(d, out);
      for (int64_t j = 0; j < 6; ++j) hn::StoreU(out[j], t, m + (i * 6 + j) * step + lane);
    }
  }
}

// The nine taps of a source channel's gradient, from its 36 numbers.
template <class T>
void WeightGradTile(const float* u, int64_t step, int64_t block, void* g, int64_t tap) {
  const D t;
  const auto lanes = static_cast<int64_t>(hn::Lanes(t));
  for (int64_t lane = 0; lane < block; lane += lanes) {
    V rows[6][3];
    for (int64_t j = 0; j < 6; ++j) {
      V d[6];
      for (int64_t i = 0; i < 6; ++i) d[i] = hn::LoadU(t, u + (i * 6 + j) * step + lane);
      WeightsGrad(d, rows[j]);
    }
    for (int64_t i = 0; i < 3; ++i) {
      const V d[6] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i]};
      V out[3];
      WeightsGrad(d, out);
      for (int64_t j = 0; j < 3; ++j) Store<T>(out[j], g, (i * 3 + j) * tap + lane);
    }
  }
}
template <class T>
constexpr WinogradTiles kTiles = {InputTile<T>, WeightTile<T>, OutputTile<T>, OutputGradTile<T>, WeightGradTile<T>};

WinogradTiles Tiles(bool bf16) { return bf16 ? kTiles<uint16_t> : kTiles<float>; }
}  // namespace
}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {

HWY_EXPORT(Tiles);

WinogradTiles winograd_tiles(bool bf16) { return HWY_DYNAMIC_DISPATCH(Tiles)(bf16); }

}  // namespace deepseek::backends::cpu
#endif
