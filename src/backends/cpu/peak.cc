#include "backends/cpu/peak.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/peak.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve independent chains hide the latency of two multiply-add units, and fit the 16 registers of AVX2 with the two
// factors. The chains tend to bias / (1 - factor): neither infinite nor denormal. Returns their sum, so that the
// compiler must compute it; `flops` is how many operations that was.
float MultiplyAdds(int64_t rounds, double* flops) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.5f), bias = hn::Set(d, 1.0f);
  auto a0 = hn::Set(d, 0.0f), a1 = hn::Set(d, 0.1f), a2 = hn::Set(d, 0.2f), a3 = hn::Set(d, 0.3f);
  auto a4 = hn::Set(d, 0.4f), a5 = hn::Set(d, 0.5f), a6 = hn::Set(d, 0.6f), a7 = hn::Set(d, 0.7f);
  auto a8 = hn::Set(d, 0.8f), a9 = hn::Set(d, 0.9f), a10 = hn::Set(d, 1.1f), a11 = hn::Set(d, 1.2f);
  for (int64_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, factor, bias);
    a1 = hn::MulAdd(a1, factor, bias);
    a2 = hn::MulAdd(a2, factor, bias);
    a3 = hn::MulAdd(a3, factor, bias);
    a4 = hn::MulAdd(a4, factor, bias);
    a5 = hn::MulAdd(a5, factor, bias);
    a6 = hn::MulAdd(a6, factor, bias);
    a7 = hn::MulAdd(a7, factor, bias);
    a8 = hn::MulAdd(a8, factor, bias);
    a9 = hn::MulAdd(a9, factor, bias);
    a10 = hn::MulAdd(a10, factor, bias);
    a11 = hn::MulAdd(a11, factor, bias);
  }
  *flops = 24.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
  const auto low = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)), hn::Add(a4, a5));
  const auto high = hn::Add(hn::Add(hn::Add(a6, a7), hn::Add(a8, a9)), hn::Add(a10, a11));
  return hn::GetLane(hn::Add(low, high));
}

void Triad(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, const float* HWY_RESTRICT c, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {

HWY_EXPORT(MultiplyAdds);
HWY_EXPORT(Triad);

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 0.12;  // for each of the two
constexpr int64_t kRounds = 200'000;
constexpr int64_t kLeastArray = 32 << 20, kMostArray = 128 << 20;  // bytes
constexpr int64_t kPiece = 1 << 18;                                // elements of a round of the triad

// The sum over all threads of what each does in a second, all at once. `round(thread)` takes well under a millisecond
// and returns an amount. The median of a thread's rounds leaves out those during which another program had the core,
// which are few and long; a barrier after each round would make all threads wait for them.
template <class Round>
double rate_of_all(Round round) {
  const int64_t threads = num_threads();
  std::vector<double> rates(static_cast<size_t>(threads));
  const Clock::time_point end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kSeconds));
  parallel_for(threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      std::vector<double> rounds;
      Clock::time_point now = Clock::now();
      do {
        const Clock::time_point begin = now;
        const double amount = round(t);
        now = Clock::now();
        rounds.push_back(amount / std::chrono::duration<double>(now - begin).count());
      } while (now < end);
      const auto middle = rounds.begin() + static_cast<int64_t>(rounds.size() / 2);
      std::nth_element(rounds.begin(), middle, rounds.end());
      rates[static_cast<size_t>(t)] = *middle;
    }
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

double multiply_adds_a_second() {
  return rate_of_all([](int64_t) {
    double flops = 0;
    const float sum = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(kRounds, &flops);
    return sum == 0 ? 0 : flops;  // it never is
  });
}

double bytes_a_second() {
  // Each of the three arrays as large as the last-level cache, and the same number of pieces for each thread.
  const int64_t threads = num_threads();
  const int64_t elements = std::clamp<int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), kLeastArray, kMostArray) /
                           static_cast<int64_t>(sizeof(float));
  const int64_t pieces = (elements + threads * kPiece - 1) / (threads * kPiece), part = pieces * kPiece;
  const auto array = [&] { return std::unique_ptr<float[]>(new float[static_cast<size_t>(threads * part)]); };
  const auto a = array(), b = array(), c = array();
  // The threads that will read the pages touch them first.
  parallel_for(threads, 1, [&](int64_t first, int64_t last) {
    std::fill(a.get() + first * part, a.get() + last * part, 0.0f);
    std::fill(b.get() + first * part, b.get() + last * part, 1.0f);
    std::fill(c.get() + first * part, c.get() + last * part, 2.0f);
  });
  std::vector<int64_t> piece(static_cast<size_t>(threads));
  return rate_of_all([&](int64_t t) {
    const int64_t at = t * part + piece[static_cast<size_t>(t)]++ % pieces * kPiece;
    HWY_DYNAMIC_DISPATCH(Triad)(a.get() + at, b.get() + at, c.get() + at, 0.5f, kPiece);
    return 3.0 * sizeof(float) * kPiece;
  });
}

}  // namespace

runtime::Peak measure_peak() {
  return {multiply_adds_a_second(), bytes_a_second(), fmt::format("{}, {} threads", isa_name(), num_threads())};
}

}  // namespace deepseek::backends::cpu
#endif  // HWY_ONCE
