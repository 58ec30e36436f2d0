// Samplers that look at no results: random, QMC, grid.
#include <boost/random/sobol.hpp>
#include <cmath>

#include "base/random.h"
#include "tune/samplers/sampler.h"
#include "tune/samplers/sobol.h"

namespace deepseek::tune {
namespace {

class RandomSampler : public Sampler {
 public:
  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Seen seen(s, trials);
    return first_new(s, seen, [&](int64_t k) {
      return s.space.from_unit(
          random_unit(s.space.size(), s.seed, static_cast<uint64_t>(number), static_cast<uint64_t>(k)));
    });
  }
};

class QmcSampler : public Sampler {
 public:
  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Seen seen(s, trials);
    return sobol_point(s, seen, sobol_, number);
  }

 private:
  Sobol sobol_;
};

class GridSampler : public Sampler {
 public:
  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Seen seen(s, trials);
    if (seen.exhausted())
      return make_error(ErrorCode::kNotFound, "all {:.0f} points of the space have been tried", s.space.cardinality());
    // A grid's order is shuffled, so that a search that is stopped has been everywhere; the first new point is taken.
    for (int64_t levels = 2;; levels = 2 * levels - 1) {
      const std::vector<Point> points = s.space.grid(levels, kMost);
      const std::vector<int64_t> order =
          permutation(static_cast<int64_t>(points.size()), hash_of(s.seed, static_cast<uint64_t>(levels)));
      for (const int64_t i : order) {
        const Point& p = points[static_cast<size_t>(i)];
        if (!seen.contains(p) && (!s.allowed || s.allowed(p))) return p;
      }
      if (points.size() == kMost || static_cast<double>(points.size()) == s.space.cardinality())
        return make_error(ErrorCode::kNotFound, "all {} points of the grid that are allowed have been tried",
                          points.size());
    }
  }

 private:
  static constexpr size_t kMost = 1'000'000;
};

}  // namespace

std::vector<double> random_unit(size_t n, uint64_t seed, uint64_t number, uint64_t stream) {
  std::vector<double> unit(n);
  for (size_t i = 0; i < n; ++i) unit[i] = deepseek::uniform(hash_of(hash_of(seed, number, stream), i));
  return unit;
}

struct Sobol::Engine {
  boost::random::sobol engine;
  uint64_t next = 0;  // the point that it gives next
  std::vector<uint64_t> point;
};

std::vector<double> Sobol::point(size_t dimensions, uint64_t index, uint64_t seed) const {
  constexpr size_t kMostDimensions = 3667;  // of the direction numbers of Joe and Kuo that Boost has
  if (dimensions > kMostDimensions) return random_unit(dimensions, seed, index, 0);
  if (!engine_ || engine_->point.size() != dimensions || engine_->next > index)
    engine_ = std::make_shared<Engine>(Engine{boost::random::sobol(dimensions), 0, std::vector<uint64_t>(dimensions)});
  // Boost leaves out the sequence's first point, zero.
  if (index == 0) {
    std::fill(engine_->point.begin(), engine_->point.end(), 0);
  } else {
    engine_->next = std::max<uint64_t>(engine_->next, 1);
    engine_->engine.discard((index - engine_->next) * dimensions);
    for (uint64_t& v : engine_->point) v = engine_->engine();
    engine_->next = index + 1;
  }
  std::vector<double> unit(dimensions);
  for (size_t d = 0; d < dimensions; ++d) {
    // Owen's scrambling by a hash of the bits above (Laine and Karras, 2011; Burley, 2020) of 32 bits.
    uint32_t v = static_cast<uint32_t>(engine_->point[d] >> 32);
    uint32_t flipped = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const uint32_t above = bit == 0 ? 0 : v >> (32 - bit);
      const uint64_t hash = hash_of(hash_of(seed, d), static_cast<uint64_t>(bit), above);
      flipped |= static_cast<uint32_t>(hash & 1) << (31 - bit);
    }
    unit[d] = (static_cast<double>(v ^ flipped) + 0.5) * 0x1p-32;
  }
  return unit;
}

Result<Point> sobol_point(const Setting& s, const Seen& seen, const Sobol& sobol, int64_t number,
                          const std::vector<double>& first) {
  const auto n = static_cast<uint64_t>(number);
  return first_new(s, seen, [&](int64_t k) {
    if (k > 0) return s.space.from_unit(random_unit(s.space.size(), s.seed, n, static_cast<uint64_t>(k)));
    return s.space.from_unit(number == 0 && !first.empty() ? first : sobol.point(s.space.size(), n, s.seed));
  });
}

std::shared_ptr<Sampler> make_random_sampler() { return std::make_shared<RandomSampler>(); }
std::shared_ptr<Sampler> make_qmc_sampler() { return std::make_shared<QmcSampler>(); }
std::shared_ptr<Sampler> make_grid_sampler() { return std::make_shared<GridSampler>(); }

}  // namespace deepseek::tune
