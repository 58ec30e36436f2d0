#include "tables/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/simd.h"
#include "base/threads.h"
#include "tables/numbers.h"

namespace deepseek::tables {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kLanes = 8;

DS_SIMD void count_and_sum(const double* x, int64_t n, Moments* m) {
  double sum[kLanes] = {}, low[kLanes], high[kLanes];
  int64_t count[kLanes] = {};
  std::fill_n(low, kLanes, std::numeric_limits<double>::infinity());
  std::fill_n(high, kLanes, -std::numeric_limits<double>::infinity());
  const auto add = [&](double v, int lane) {
    const bool there = v == v;
    sum[lane] += there ? v : 0;
    count[lane] += there;
    low[lane] = v < low[lane] ? v : low[lane];
    high[lane] = v > high[lane] ? v : high[lane];
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) add(x[i + lane], lane);
  for (; i < n; ++i) add(x[i], static_cast<int>(i % kLanes));
  double total = 0;
  m->min = low[0];
  m->max = high[0];
  for (int lane = 0; lane < kLanes; ++lane) {
    total += sum[lane];
    m->count += count[lane];
    m->min = std::min(m->min, low[lane]);
    m->max = std::max(m->max, high[lane]);
  }
  m->missing = n - m->count;
  m->mean = m->count > 0 ? total / static_cast<double>(m->count) : 0;
}

DS_SIMD double squares(const double* x, int64_t n, double mean) {
  double sum[kLanes] = {};
  const auto add = [&](double v, int lane) {
    const double deviation = v - mean;
    sum[lane] += v == v ? deviation * deviation : 0;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) add(x[i + lane], lane);
  for (; i < n; ++i) add(x[i], static_cast<int>(i % kLanes));
  double total = 0;
  for (const double s : sum) total += s;
  return total;
}

constexpr int64_t kMargin = 640;  // 5 standard deviations of a rank in the sample

DS_SIMD int64_t count_there(const double* x, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += x[i] == x[i];
  return count;
}

// Adds to the bracket what of x is in it, or below. Most blocks have nothing inside and only count.
DS_SIMD void find_inside(const double* x, int64_t n, Bracket& bracket) {
  constexpr int64_t kBlock = 16;
  const double low = bracket.low, high = bracket.high;
  int64_t below = 0, i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int64_t under = 0, up_to = 0;
    for (int64_t k = 0; k < kBlock; ++k) {
      under += x[i + k] < low;
      up_to += x[i + k] <= high;
    }
    below += under;
    if (up_to == under) continue;
    for (int64_t k = 0; k < kBlock; ++k)
      if (x[i + k] >= low && x[i + k] <= high) bracket.inside.push_back(x[i + k]);
  }
  for (; i < n; ++i) {
    below += x[i] < low;
    if (x[i] >= low && x[i] <= high) bracket.inside.push_back(x[i]);
  }
  bracket.below += below;
}

// The elements of rank k and k + 1 among the values, which change their order; the last one twice.
std::pair<double, double> neighbours(std::vector<double>& values, int64_t k) {
  const auto at = values.begin() + k;
  std::nth_element(values.begin(), at, values.end());
  const auto next = std::min_element(at + 1, values.end());
  return {*at, next == values.end() ? *at : *next};
}

// NumPy's interpolation; the middle of two as the mean, which is pandas' median.
double between(double a, double b, double t) {
  if (t == 0 || a == b) return a;
  if (t == 0.5) return a / 2 + b / 2;
  return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

}  // namespace

Moments combine(const Moments& a, const Moments& b) {
  if (a.count == 0 || b.count == 0) {
    Moments m = a.count == 0 ? b : a;
    m.missing = a.missing + b.missing;
    return m;
  }
  Moments m;
  m.count = a.count + b.count;
  m.missing = a.missing + b.missing;
  const auto n = static_cast<double>(m.count), na = static_cast<double>(a.count), nb = static_cast<double>(b.count);
  const double delta = b.mean - a.mean;
  m.mean = a.mean + delta * nb / n;
  m.m2 = a.m2 + b.m2 + delta * delta * na * nb / n;
  m.min = std::min(a.min, b.min);
  m.max = std::max(a.max, b.max);
  return m;
}

double Moments::variance(int64_t ddof) const { return count > ddof ? m2 / static_cast<double>(count - ddof) : kNaN; }
double Moments::stddev(int64_t ddof) const { return std::sqrt(variance(ddof)); }

Moments moments(const arrow::ChunkedArray& column) {
  const std::vector<Part> parts = parts_of(column);
  std::vector<Moments> of(parts.size());
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    Numbers numbers;
    for (int64_t p = begin; p < end; ++p) {
      const double* x = numbers.load(parts[static_cast<size_t>(p)]);
      Moments& m = of[static_cast<size_t>(p)];
      const int64_t n = parts[static_cast<size_t>(p)].length;
      count_and_sum(x, n, &m);
      m.m2 = squares(x, n, m.mean);
    }
  });
  // Neighbours first, so that partial results of similar size meet.
  for (size_t step = 1; step < of.size(); step *= 2)
    for (size_t i = 0; i + step < of.size(); i += 2 * step) of[i] = combine(of[i], of[i + step]);
  Moments m = of.empty() ? Moments() : of[0];
  if (m.count == 0) m.min = m.max = 0;
  return m;
}

void Bracket::add(const double* x, int64_t n) { find_inside(x, n, *this); }

std::optional<double> Bracket::quantile(double q, int64_t count) {
  if (count == 0) return kNaN;
  const double rank = static_cast<double>(count - 1) * q;
  const auto k = static_cast<int64_t>(rank);
  const int64_t last = std::min(k + 1, count - 1) - below;
  if (k < below || last >= static_cast<int64_t>(inside.size())) return std::nullopt;
  const auto [a, b] = neighbours(inside, k - below);
  return between(a, b, rank - static_cast<double>(k));
}

Bracket bracket_of(const std::vector<double>& sample, double q, int64_t count) {
  Bracket bracket;
  const auto size = static_cast<int64_t>(sample.size());
  if (size >= count) return bracket;  // all of them are copied
  const auto at =
      static_cast<int64_t>(static_cast<double>(count - 1) * q / static_cast<double>(count) * static_cast<double>(size));
  if (at - kMargin > 0) bracket.low = sample[static_cast<size_t>(at - kMargin)];
  if (at + kMargin < size) bracket.high = sample[static_cast<size_t>(at + kMargin)];
  return bracket;
}

std::vector<double> quantiles(const arrow::ChunkedArray& column, const std::vector<double>& q, int64_t* missing) {
  const std::vector<Part> parts = parts_of(column);
  const auto num_parts = static_cast<int64_t>(parts.size());
  // Each part's share of the sample, and how many values there are.
  std::vector<int64_t> counts(parts.size());
  std::vector<std::vector<double>> samples(parts.size());
  const int64_t stride = std::max<int64_t>(1, column.length() / kQuantileSample);
  parallel_for(num_parts, 1, [&](int64_t begin, int64_t end) {
    Numbers numbers;
    for (int64_t p = begin; p < end; ++p) {
      const Part& part = parts[static_cast<size_t>(p)];
      const double* x = numbers.load(part);
      counts[static_cast<size_t>(p)] = count_there(x, part.length);
      for (int64_t i = (stride - part.begin % stride) % stride; i < part.length; i += stride)
        if (x[i] == x[i]) samples[static_cast<size_t>(p)].push_back(x[i]);
    }
  });
  int64_t count = 0;
  std::vector<double> sample;
  for (size_t p = 0; p < parts.size(); ++p) {
    count += counts[p];
    sample.insert(sample.end(), samples[p].begin(), samples[p].end());
  }
  if (missing != nullptr) *missing = column.length() - count;
  if (count == 0) return std::vector<double>(q.size(), kNaN);
  std::sort(sample.begin(), sample.end());

  std::vector<Bracket> brackets;
  for (const double share : q) brackets.push_back(bracket_of(sample, share, count));
  const auto gather = [&](std::vector<Bracket>& into) {
    std::vector<std::vector<Bracket>> by_part(parts.size(), std::vector<Bracket>(into.size()));
    parallel_for(num_parts, 1, [&](int64_t begin, int64_t end) {
      Numbers numbers;
      for (int64_t p = begin; p < end; ++p) {
        const Part& part = parts[static_cast<size_t>(p)];
        const double* x = numbers.load(part);
        for (size_t b = 0; b < into.size(); ++b) {
          Bracket& own = by_part[static_cast<size_t>(p)][b];
          own.low = into[b].low;
          own.high = into[b].high;
          find_inside(x, part.length, own);
        }
      }
    });
    for (size_t b = 0; b < into.size(); ++b)
      for (const std::vector<Bracket>& part : by_part) {
        into[b].below += part[b].below;
        into[b].inside.insert(into[b].inside.end(), part[b].inside.begin(), part[b].inside.end());
      }
  };
  gather(brackets);
  std::vector<double> result;
  for (size_t b = 0; b < q.size(); ++b) {
    std::optional<double> value = brackets[b].quantile(q[b], count);
    if (!value) {  // an unlucky sample
      std::vector<Bracket> all(1);
      gather(all);
      value = all[0].quantile(q[b], count);
    }
    result.push_back(*value);
  }
  return result;
}

}  // namespace deepseek::tables
