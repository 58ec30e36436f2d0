#include "backends/cpu/gemm_tiles.h"

#include <algorithm>
#include <array>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/gemm_tiles.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {  // other files have such functions too
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
// Of 32 or of 16 registers, those of the sums: rows of a tile of two vectors, rows of an inner one of four columns.
constexpr bool kWide = HWY_TARGET <= HWY_AVX3;
constexpr int kRows = kWide ? 8 : 6, kInnerRows = kWide ? 4 : 2, kInnerColumns = 4;

int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(D())); }

// The first n < Lanes() elements, zeros beyond; nothing else is touched, which below AVX2 masks don't promise.
HWY_INLINE V LoadPart(const float* x, int64_t n) {
  const D d;
  if constexpr (HWY_TARGET <= HWY_AVX2) return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, x);
  HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  std::copy_n(x, n, buffer);
  return hn::Load(d, buffer);
}
HWY_INLINE void StorePart(V v, float* y, int64_t n) {
  const D d;
  if constexpr (HWY_TARGET <= HWY_AVX2) return hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, y);
  HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, buffer);
  std::copy_n(buffer, n, y);
}

// f(0) ... f(N - 1), unrolled before GCC decides what stays in registers.
template <int N, class F>
HWY_INLINE void Unrolled(F f) {
  if constexpr (N > 1) Unrolled<N - 1>(f);
  f(N - 1);
}

// R rows in C vectors, of which the last may be partial.
template <int R, int C, bool kWhole>
HWY_INLINE void OuterTile(const GemmTile& t) {
  const D d;
  const int64_t lanes = Lanes(), last = t.columns - (C - 1) * lanes;
  const int64_t a_row = t.a_row, a_depth = t.a_depth, b_step = t.b_step;
  V sum[R * C];
  Unrolled<R * C>([&](int i) HWY_ATTR { sum[i] = hn::Zero(d); });
  const float *a = t.a, *b = t.b;
  for (int64_t k = 0; k < t.depth; ++k, b += b_step, a += a_depth) {
    V x[C];
    Unrolled<C>([&](int c) HWY_ATTR {
      x[c] = kWhole || c + 1 < C ? hn::LoadU(d, b + c * lanes) : LoadPart(b + c * lanes, last);
    });
    Unrolled<R>([&](int r) HWY_ATTR {
      const V s = hn::Set(d, a[r * a_row]);
      Unrolled<C>([&](int c) HWY_ATTR { sum[r * C + c] = hn::MulAdd(s, x[c], sum[r * C + c]); });
    });
  }
  const bool accumulate = t.accumulate;
  Unrolled<R * C>([&](int i) HWY_ATTR {
    float* const to = t.y + i / C * t.y_row + i % C * lanes;
    const bool whole = kWhole || i % C + 1 < C;
    V v = sum[i];
    if (accumulate) v = hn::Add(v, whole ? hn::LoadU(d, to) : LoadPart(to, last));
    if (whole)
      hn::StoreU(v, d, to);
    else
      StorePart(v, to, last);
  });
}
template <int R, int C>
void OuterTileOf(const GemmTile& t) {
  if (t.columns == C * Lanes())
    OuterTile<R, C, true>(t);
  else
    OuterTile<R, C, false>(t);
}

using Tile = void (*)(const GemmTile&);

template <int... R>
constexpr std::array<std::array<Tile, 2>, sizeof...(R)> OuterTiles(std::integer_sequence<int, R...>) {
  return {{{OuterTileOf<R + 1, 1>, OuterTileOf<R + 1, 2>}...}};
}
void Outer(const GemmTile& t) {
  static constexpr auto kTiles = OuterTiles(std::make_integer_sequence<int, kRows>());
  kTiles[static_cast<size_t>(t.rows - 1)][t.columns > Lanes()](t);
}

// The sums of the lanes of four vectors, side by side.
HWY_INLINE void StoreSums(const V* v, float* y) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) y[i] = hn::GetLane(v[i]);
#else
  const D d;
  // By blocks of 128 bits: (0, 2, 0, 2) and (1, 3, 1, 3), numbers of vectors whose halves these sums are.
  const V even = hn::Add(hn::InterleaveLower(d, v[0], v[2]), hn::InterleaveUpper(d, v[0], v[2]));
  const V odd = hn::Add(hn::InterleaveLower(d, v[1], v[3]), hn::InterleaveUpper(d, v[1], v[3]));
  HWY_ALIGN float blocks[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(hn::Add(hn::InterleaveLower(d, even, odd), hn::InterleaveUpper(d, even, odd)), d, blocks);
  const hn::FixedTag<float, 4> d4;
  auto total = hn::Load(d4, blocks);
  for (int64_t i = 4; i < Lanes(); i += 4) total = hn::Add(total, hn::Load(d4, blocks + i));
  hn::StoreU(total, d4, y);
#endif
}

// R rows in J columns, from rows a and rows b of k.
template <int R, int J>
HWY_INLINE void InnerTile(const GemmTile& t, const float* a, const float* b, float* y) {
  const D d;
  const int64_t depth = t.depth, lanes = Lanes(), a_row = t.a_row, b_step = t.b_step;
  V sum[R * J];
  Unrolled<R * J>([&](int i) HWY_ATTR { sum[i] = hn::Zero(d); });
  const auto step = [&](int64_t k, auto load) HWY_ATTR {
    V x[J];
    Unrolled<J>([&](int j) HWY_ATTR { x[j] = load(b + j * b_step + k); });
    Unrolled<R>([&](int r) HWY_ATTR {
      const V s = load(a + r * a_row + k);
      Unrolled<J>([&](int j) HWY_ATTR { sum[r * J + j] = hn::MulAdd(s, x[j], sum[r * J + j]); });
    });
  };
  int64_t k = 0;
  for (; k + lanes <= depth; k += lanes) step(k, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); });
  if (k < depth) step(k, [&](const float* from) HWY_ATTR { return LoadPart(from, depth - k); });
  for (int r = 0; r < R; ++r) {
    if constexpr (J == kInnerColumns)
      StoreSums(sum + r * J, y + r * t.y_row);
    else
      for (int j = 0; j < J; ++j) y[r * t.y_row + j] = hn::GetLane(hn::SumOfLanes(d, sum[r * J + j]));
  }
}
template <int R>
void InnerRows(const GemmTile& t, const float* a, float* y) {
  int64_t j = 0;
  for (; j + kInnerColumns <= t.columns; j += kInnerColumns)
    InnerTile<R, kInnerColumns>(t, a, t.b + j * t.b_step, y + j);
  for (; j < t.columns; ++j) InnerTile<R, 1>(t, a, t.b + j * t.b_step, y + j);
}
void Inner(const GemmTile& t) {
  int64_t i = 0;
  for (; i + kInnerRows <= t.rows; i += kInnerRows) InnerRows<kInnerRows>(t, t.a + i * t.a_row, t.y + i * t.y_row);
  for (; i < t.rows; ++i) InnerRows<1>(t, t.a + i * t.a_row, t.y + i * t.y_row);
}

void Pack(const float* b, int64_t step, int64_t depth, int64_t n, float* to) {
  const D d;
  const int64_t lanes = Lanes(), left = n % lanes;
  for (int64_t k = 0; k < depth; ++k, b += step, to += 2 * lanes)
    for (int64_t c = 0; c < 2; ++c) {
      const int64_t from = c * lanes;
      const V v = from + lanes <= n ? hn::LoadU(d, b + from) : from < n ? LoadPart(b + from, left) : hn::Zero(d);
      hn::StoreU(v, d, to + from);
    }
}

void PackTransposed(const float* b, int64_t step, int64_t depth, int64_t n, float* to) {
  const int64_t width = 2 * Lanes();
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  const D d;
  const int64_t lanes = Lanes();
  for (; j + 4 <= n; j += 4) {
    const float* const from = b + j * step;
    int64_t k = 0;
    for (; k + lanes <= depth; k += lanes) {  // squares of 4 x 4 in each block of 128 bits
      const V r0 = hn::LoadU(d, from + k), r1 = hn::LoadU(d, from + step + k);
      const V r2 = hn::LoadU(d, from + 2 * step + k), r3 = hn::LoadU(d, from + 3 * step + k);
      const V l0 = hn::InterleaveLower(d, r0, r2), l1 = hn::InterleaveLower(d, r1, r3);
      const V u0 = hn::InterleaveUpper(d, r0, r2), u1 = hn::InterleaveUpper(d, r1, r3);
      HWY_ALIGN float square[4 * HWY_MAX_BYTES / sizeof(float)];
      hn::Store(hn::InterleaveLower(d, l0, l1), d, square);
      hn::Store(hn::InterleaveUpper(d, l0, l1), d, square + lanes);
      hn::Store(hn::InterleaveLower(d, u0, u1), d, square + 2 * lanes);
      hn::Store(hn::InterleaveUpper(d, u0, u1), d, square + 3 * lanes);
      const hn::FixedTag<float, 4> d4;
      for (int64_t block = 0; block < lanes; block += 4)
        for (int64_t i = 0; i < 4; ++i)
          hn::StoreU(hn::Load(d4, square + i * lanes + block), d4, to + (k + block + i) * width + j);
    }
    for (; k < depth; ++k)
      for (int64_t i = 0; i < 4; ++i) to[k * width + j + i] = from[i * step + k];
  }
#endif
  for (; j < width; ++j)
    for (int64_t k = 0; k < depth; ++k) to[k * width + j] = j < n ? b[j * step + k] : 0;
}

GemmFunctions Functions() { return {kRows, 2 * Lanes(), Outer, Inner, Pack, PackTransposed}; }

}  // namespace
}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {
HWY_EXPORT(Functions);
GemmFunctions gemm_functions() { return HWY_DYNAMIC_DISPATCH(Functions)(); }
}  // namespace deepseek::backends::cpu
#endif
