// random_uniform and dropout: sixteen Philox blocks side by side, so that the rounds vectorise. Element i depends on i
// alone, so any split over threads draws the same numbers.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernel.h"
#include "base/philox.h"
#include "base/simd.h"
#include "base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/random.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef DEEPSEEK_BACKENDS_CPU_RANDOM_ONCE
#define DEEPSEEK_BACKENDS_CPU_RANDOM_ONCE
namespace deepseek::backends::cpu {
constexpr int64_t kBlocks = 16, kDraw = 4 * kBlocks;  // blocks side by side, and the words they give
struct Stream {
  uint64_t seed;
  uint32_t stream, step;
};
}  // namespace deepseek::backends::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The 24 leading bits of words [4 * block, 4 * block + kDraw) of the stream: philox4x32 of base/philox.h, one
// block in a lane.
#if HWY_TARGET == HWY_SCALAR
void Draw(Stream s, uint64_t block, uint32_t* out) {
  for (int64_t j = 0; j < kBlocks; ++j, ++block) {
    const auto words = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), s.stream, s.step},
                                  {static_cast<uint32_t>(s.seed), static_cast<uint32_t>(s.seed >> 32)});
    for (int w = 0; w < 4; ++w) out[4 * j + w] = words[w] >> 8;
  }
}
#else
// The high halves of 32-bit products.
template <class D, class V>  // b: the same in all lanes
HWY_INLINE V MulHigh32(D d, V a, V b) {
  const V even = hn::BitCast(d, hn::MulEven(a, b)), odd = hn::BitCast(d, hn::MulEven(hn::DupOdd(a), b));
  return hn::OddEven(odd, hn::DupOdd(even));
}

void Draw(Stream s, uint64_t block, uint32_t* out) {
  const hn::CappedTag<uint32_t, kBlocks> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN uint32_t low[kBlocks], high[kBlocks];
  for (int64_t j = 0; j < kBlocks; ++j) {
    low[j] = static_cast<uint32_t>(block + static_cast<uint64_t>(j));
    high[j] = static_cast<uint32_t>((block + static_cast<uint64_t>(j)) >> 32);
  }
  const auto a = hn::Set(d, 0xD2511F53u), b = hn::Set(d, 0xCD9E8D57u);
  for (int64_t j = 0; j < kBlocks; j += lanes) {
    auto c0 = hn::Load(d, low + j), c1 = hn::Load(d, high + j), c2 = hn::Set(d, s.stream), c3 = hn::Set(d, s.step);
    uint32_t k0 = static_cast<uint32_t>(s.seed), k1 = static_cast<uint32_t>(s.seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
      const auto high_a = MulHigh32(d, c0, a), low_a = hn::Mul(c0, a);
      const auto high_b = MulHigh32(d, c2, b), low_b = hn::Mul(c2, b);
      c0 = hn::Xor(hn::Xor(high_b, c1), hn::Set(d, k0));
      c1 = low_b;
      c2 = hn::Xor(hn::Xor(high_a, c3), hn::Set(d, k1));
      c3 = low_a;
    }
    hn::StoreInterleaved4(hn::ShiftRight<8>(c0), hn::ShiftRight<8>(c1), hn::ShiftRight<8>(c2), hn::ShiftRight<8>(c3), d,
                          out + 4 * j);
  }
}
#endif

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {
HWY_EXPORT(Draw);

namespace {

constexpr int64_t kGrain = 16384;

DS_SIMD void to_uniform(const uint32_t* words, int64_t n, float* u) {
  for (int64_t i = 0; i < n; ++i) u[i] = static_cast<float>(static_cast<int32_t>(words[i])) * 0x1p-24f;
}
DS_SIMD void drop_f32(const float* x, const uint32_t* words, int64_t n, uint32_t threshold, float scale, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * (words[i] >= threshold ? scale : 0.0f);
}
template <class T>
void drop(const T* x, const uint32_t* words, int64_t n, uint32_t threshold, double scale, T* y) {
  if constexpr (std::is_same_v<T, float>) {
    drop_f32(x, words, n, threshold, static_cast<float>(scale), y);
  } else {
    using C = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for (int64_t i = 0; i < n; ++i)
      y[i] = T(static_cast<C>(x[i]) * (words[i] >= threshold ? static_cast<C>(scale) : C(0)));
  }
}

Stream stream_of(const void* rng, int64_t stream) {
  int64_t state[2];
  std::memcpy(state, rng, sizeof(state));
  return {static_cast<uint64_t>(state[0]), static_cast<uint32_t>(stream), static_cast<uint32_t>(state[1])};
}

// visit(first element, how many, their words)
template <class Visit>
void for_words(Stream s, int64_t n, Visit visit) {
  parallel_for((n + kDraw - 1) / kDraw, kGrain / kDraw, [&](int64_t begin, int64_t end) {
    uint32_t words[kDraw];
    for (int64_t k = begin; k < end; ++k) {
      HWY_DYNAMIC_DISPATCH(Draw)(s, static_cast<uint64_t>(k * kBlocks), words);
      visit(k * kDraw, std::min(kDraw, n - k * kDraw), words);
    }
  });
}

class Dropout : public Kernel {
 public:
  Dropout(graph::TensorType type, int64_t stream, uint32_t threshold, double scale)
      : type_(std::move(type)), stream_(stream), threshold_(threshold), scale_(scale) {}
  bool in_place(int, int in) const override { return in == 0; }
  Status run(const KernelArgs& args) const override {
    visit_dtype(type_.dtype, [&](auto element) {
      using T = decltype(element);
      if constexpr (!std::is_integral_v<T>)
        for_words(stream_of(args.in[1], stream_), type_.num_elements(), [&](int64_t i, int64_t n, const uint32_t* w) {
          drop(static_cast<const T*>(args.in[0]) + i, w, n, threshold_, scale_, static_cast<T*>(args.out[0]) + i);
        });
    });
    return {};
  }

 private:
  graph::TensorType type_;
  int64_t stream_;
  uint32_t threshold_;
  double scale_;
};

}  // namespace

KernelOrError make_random(const NodeInfo& node) {
  const graph::TensorType& y = node.outputs[0];
  const int64_t stream = node.context.integer("stream");
  if (node.context.op->name.value == "random_uniform")
    return make_kernel([stream, n = y.num_elements()](const KernelArgs& args) -> Status {
      float* u = static_cast<float*>(args.out[0]);
      for_words(stream_of(args.in[0], stream), n,
                [u](int64_t i, int64_t count, const uint32_t* words) { to_uniform(words, count, u + i); });
      return {};
    });
  // u >= rate on the grid of 2^-24, with rate and scale rounded as the decomposition's constants are.
  const double rate = static_cast<float>(node.context.number("rate"));
  double scale = 0;
  store_from_double(y.dtype, &scale, 0, 1 / (1 - node.context.number("rate")));
  scale = load_as_double(y.dtype, &scale, 0);
  const auto threshold = static_cast<uint32_t>(std::ceil(rate * (1 << 24)));
  return std::unique_ptr<Kernel>(std::make_unique<Dropout>(y, stream, threshold, scale));
}

}  // namespace deepseek::backends::cpu
#endif
