#include "backends/cpu/block_gemm.h"

#include <array>
#include <utility>

#include "base/dtype.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kLanes = 16;  // floats of an AVX-512 vector
constexpr int kMostBlocks = 4;

#if defined(__x86_64__)
enum Kind { kWhole, kHalf, kPairs };  // vectors of 16 floats, of 8, of 16 pairs of bf16
template <Kind>
struct VectorOf {
  using Type = __m512;
};
template <>
struct VectorOf<kHalf> {
  using Type = __m256;
};

// The results of P columns and F blocks stay in P * F registers, F more hold a's vectors and one b's value, of 32.
// Twenty-four results hide the latency of two multiply-add units.
template <Kind kKind, int P, int F>
__attribute__((target("avx512f,avx512vl,fma"))) void columns(const BlockGemmShape& s, const float* const* a,
                                                             const float* const* b, int64_t count, int64_t first,
                                                             float* c, bool accumulate) {
  using Vector = typename VectorOf<kKind>::Type;
  Vector sum[P][F];
  c += first * s.c_column;
#pragma GCC unroll 32
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 32
    for (int f = 0; f < F; ++f) {
      const float* const from = c + f * s.c_stride + p * s.c_column;
      if constexpr (kKind == kHalf)
        sum[p][f] = accumulate ? _mm256_loadu_ps(from) : _mm256_setzero_ps();
      else
        sum[p][f] = accumulate ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
    }
  constexpr int64_t kBlock = sizeof(Vector) / sizeof(float);
  const int64_t column = s.b_column, step = s.b_depth, block = s.a_stride;
  for (int64_t i = 0; i < count; ++i) {
    const float *x = a[i], *y = b[i] + first * column;
    for (int64_t k = 0; k < s.depth; ++k, x += kBlock, y += step) {
      Vector v[F], w;
#pragma GCC unroll 32
      for (int f = 0; f < F; ++f) {
        if constexpr (kKind == kHalf)
          v[f] = _mm256_loadu_ps(x + f * block);
        else
          v[f] = _mm512_loadu_ps(x + f * block);
      }
#pragma GCC unroll 32
      for (int p = 0; p < P; ++p) {
        if constexpr (kKind == kHalf)
          w = _mm256_set1_ps(y[p * column]);
        else
          w = _mm512_set1_ps(y[p * column]);
#pragma GCC unroll 32
        for (int f = 0; f < F; ++f) {
          // Not the intrinsic, which wants a function compiled for bf16 alone.
          if constexpr (kKind == kPairs)
            asm("vdpbf16ps %2, %1, %0" : "+v"(sum[p][f]) : "v"(v[f]), "v"(w));
          else if constexpr (kKind == kHalf)
            sum[p][f] = _mm256_fmadd_ps(v[f], w, sum[p][f]);
          else
            sum[p][f] = _mm512_fmadd_ps(v[f], w, sum[p][f]);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 32
    for (int f = 0; f < F; ++f) {
      float* const to = c + f * s.c_stride + p * s.c_column;
      if constexpr (kKind == kHalf)
        _mm256_storeu_ps(to, sum[p][f]);
      else
        _mm512_storeu_ps(to, sum[p][f]);
    }
}

using Columns = void (*)(const BlockGemmShape&, const float* const*, const float* const*, int64_t, int64_t, float*,
                         bool);
constexpr int kMostColumns[] = {0, 16, 12, 8, 6};  // by F

template <Kind kKind, int F, int... P>
constexpr std::array<Columns, 17> by_columns(std::integer_sequence<int, P...>) {
  std::array<Columns, 17> table{};
  ((table[P + 1] = columns<kKind, P + 1, F>), ...);
  return table;
}
template <Kind kKind, int F>
constexpr std::array<Columns, 17> kOfBlocks = by_columns<kKind, F>(std::make_integer_sequence<int, kMostColumns[F]>());
template <Kind kKind>
constexpr const std::array<Columns, 17>* kColumns[] = {nullptr, &kOfBlocks<kKind, 1>, &kOfBlocks<kKind, 2>,
                                                       &kOfBlocks<kKind, 3>, &kOfBlocks<kKind, 4>};

__attribute__((target("avx512f,avx512bw"))) void pack_wide(const uint16_t* from, int64_t rows, int64_t pitch,
                                                           uint32_t* to) {
  for (; rows >= 2; rows -= 2, from += 2 * pitch, to += kLanes)
    for (int64_t i = 0; i < kLanes; ++i) to[i] = from[i] | static_cast<uint32_t>(from[pitch + i]) << 16;
  for (int64_t i = 0; rows == 1 && i < kLanes; ++i) to[i] = from[i];
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void narrow_wide(const float* from, int64_t n,
                                                                                 uint16_t* to) {
  for (int64_t i = 0; i < n; i += kLanes)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i))));
}
#endif

bool has_wide_code(int64_t block) {
#if defined(__x86_64__)
  return (block == kLanes || block == kLanes / 2) && has_wide_vectors();
#else
  return false;
#endif
}

}  // namespace

bool has_bf16_products() {
#if defined(__x86_64__)
  return has_wide_code(kHalfBlock) && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

void pack_pairs(const uint16_t* from, int64_t rows, int64_t pitch, int64_t width, uint32_t* to) {
#if defined(__x86_64__)
  if (width == kLanes && has_bf16_products()) return pack_wide(from, rows, pitch, to);
#endif
  for (int64_t row = 0; row < rows; row += 2)
    for (int64_t i = 0; i < width; ++i)
      *to++ = from[row * pitch + i] | (row + 1 < rows ? static_cast<uint32_t>(from[(row + 1) * pitch + i]) << 16 : 0);
}

void narrow(const float* from, int64_t n, uint16_t* to) {
#if defined(__x86_64__)
  if (n % kLanes == 0 && has_bf16_products()) return narrow_wide(from, n, to);
#endif
  for (int64_t i = 0; i < n; ++i) to[i] = f32_to_bf16(from[i]);
}

int64_t BlockGemm::most_blocks(int64_t block) { return has_wide_code(block) ? kMostBlocks : 1; }

Status BlockGemm::takes(int64_t block, bool bf16) {
  if (bf16 && (block != kHalfBlock || !has_bf16_products()))
    return Status(ErrorCode::kUnsupported, fmt::format("no bf16 products of blocks of {} on this CPU", block));
  return has_wide_code(block) ? Status() : MicroGemm::takes();
}

Result<BlockGemm> BlockGemm::make(const BlockGemmShape& s) {
  DS_TRY(takes(s.block, s.bf16));
  BlockGemm gemm;
  gemm.shape_ = s;
  gemm.wide_ = has_wide_code(s.block);
  if (gemm.wide_) return gemm;
  const bool transpose = s.b_column == 1;
  MicroGemmShape micro{s.block, s.columns, s.depth, s.block, transpose ? s.b_depth : s.b_column, s.c_column, transpose};
  DS_ASSIGN(gemm.overwrite_, MicroGemm::make(micro));
  micro.accumulate = true;
  DS_ASSIGN(gemm.add_, MicroGemm::make(micro));
  return gemm;
}

void BlockGemm::operator()(const float** a, const float** b, int64_t count, float* c, int64_t blocks,
                           bool accumulate) const {
#if defined(__x86_64__)
  if (wide_) {
    const int64_t parts = (shape_.columns + kMostColumns[blocks] - 1) / kMostColumns[blocks];
    const int64_t size = shape_.columns / parts, larger = shape_.columns % parts;
    const std::array<Columns, 17>& table = *(shape_.bf16              ? kColumns<kPairs>
                                             : shape_.block == kLanes ? kColumns<kWhole>
                                                                      : kColumns<kHalf>)[blocks];
    for (int64_t part = 0, first = 0; part < parts; ++part) {
      const int64_t n = size + (part < larger ? 1 : 0);
      table[static_cast<size_t>(n)](shape_, a, b, count, first, c, accumulate);
      first += n;
    }
    return;
  }
#endif
  (accumulate ? add_ : overwrite_)(a, b, static_cast<unsigned long long>(count), c);
}

}  // namespace deepseek::backends::cpu
