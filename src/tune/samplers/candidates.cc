#include "tune/samplers/candidates.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tune/samplers/minimize.h"

namespace deepseek::tune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kExhaustive = 1000;  // points of a space of which all that are left are candidates
constexpr size_t kMostArms = 64;
constexpr double kShortAxis = 8;  // values of a numeric axis that is an axis of the grid of arms
constexpr int kGlobal = 200, kLocal = 200, kClimbing = 5;
constexpr double kNeighbours = 16;  // values of an axis of which climbing tries all; of longer ones those beside

class Search {
 public:
  Search(const Setting& s, const Seen& seen, const Encoding& encoding, const Surrogate& surrogate,
         const std::optional<Region>& region, Numbers& random)
      : s_(s),
        seen_(seen),
        encoding_(encoding),
        surrogate_(surrogate),
        region_(region),
        random_(random),
        d_(s.space.size()) {}

  std::optional<Candidate> run(const std::vector<Point>& best_first) {
    std::vector<Point> candidates;
    const auto add = [&](Point p) {
      if (fine(p)) candidates.push_back(std::move(p));
    };
    const bool exhaustive = s_.space.cardinality() <= kExhaustive;
    if (exhaustive) {
      for (Point& p : s_.space.all(static_cast<size_t>(kExhaustive))) add(std::move(p));
    } else {
      const std::vector<Point> arms = arms_of();
      const size_t first =
          static_cast<size_t>(random_.uniform() * static_cast<double>(std::max<size_t>(arms.size(), 1)));
      for (int k = 0; k < kGlobal; ++k) add(anywhere(arms, first + static_cast<size_t>(k), best_first[0]));
      const size_t elite = std::min<size_t>(best_first.size(), region_ ? 1 : 5);
      for (int k = 0; k < kLocal; ++k) add(near(best_first[static_cast<size_t>(k) % elite]));
    }
    if (candidates.empty()) return std::nullopt;
    const VectorXd scores = surrogate_.score(encoding_.encode(candidates));
    std::vector<size_t> ranks(candidates.size());
    std::iota(ranks.begin(), ranks.end(), size_t{0});
    std::sort(ranks.begin(), ranks.end(), [&](size_t a, size_t b) {
      const double l = scores[static_cast<Index>(a)], r = scores[static_cast<Index>(b)];
      return l != r ? l > r : a < b;
    });
    Point winner = candidates[ranks[0]];
    double highest = scores[static_cast<Index>(ranks[0])];
    for (size_t k = 0; !exhaustive && k < std::min<size_t>(ranks.size(), kClimbing); ++k) {
      auto [point, score] = climb(candidates[ranks[k]], scores[static_cast<Index>(ranks[k])]);
      if (score > highest) highest = score, winner = std::move(point);
    }
    return Candidate{std::move(winner), highest};
  }

 private:
  bool fine(const Point& p) const { return !seen_.contains(p) && (!s_.allowed || s_.allowed(p)); }

  bool short_axis(size_t j) const {
    const Parameter& p = s_.space[j];
    return p.cardinality() <= (p.numeric() ? kShortAxis : static_cast<double>(kMostArms));
  }
  // The grid over choices and short axes, in which others are NaN; empty where it is large.
  std::vector<Point> arms_of() const {
    std::vector<Parameter> axes = s_.space.parameters();
    for (size_t j = 0; j < d_; ++j) {
      if (short_axis(j)) continue;
      axes[j].low = axes[j].high;  // one value
      axes[j].step = std::max(axes[j].step, 1.0);
    }
    const Space grid(axes);
    if (grid.cardinality() > static_cast<double>(kMostArms)) return {};
    std::vector<Point> arms = grid.all(kMostArms);
    for (Point& arm : arms)
      for (size_t j = 0; j < d_; ++j)
        if (!short_axis(j)) arm[j] = std::numeric_limits<double>::quiet_NaN();
    return arms;
  }

  Point anywhere(const std::vector<Point>& arms, size_t k, const Point& centre) {
    std::vector<double> unit(d_);
    for (double& u : unit) u = random_.uniform();
    if (region_) {
      const VectorXd from = encoding_.encode(centre);
      for (size_t j = 0; j < d_; ++j) {
        const auto i = static_cast<Index>(j);
        if (encoding_.choice()[j]) {
          if (random_.uniform() > region_->share) unit[j] = s_.space[j].to_unit(std::max(from[i], 0.0));
        } else {
          unit[j] = random_.uniform() < region_->share
                        ? region_->low[i] + unit[j] * (region_->high[i] - region_->low[i])
                        : from[i];
        }
      }
      return s_.space.from_unit(unit);
    }
    if (!arms.empty()) {
      const Point& arm = arms[k % arms.size()];
      for (size_t j = 0; j < d_; ++j)
        if (!std::isnan(arm[j])) unit[j] = s_.space[j].to_unit(arm[j]);
    }
    return s_.space.from_unit(unit);
  }

  // Some coordinates changed, by steps of widths from wide to narrow.
  Point near(const Point& centre) {
    VectorXd row = encoding_.encode(centre);
    const double width = 0.3 * std::pow(0.01, random_.uniform());
    const double share = std::max(1.0 / static_cast<double>(d_), random_.uniform());
    for (size_t j = 0; j < d_; ++j) {
      if (random_.uniform() > share) continue;
      const auto i = static_cast<Index>(j);
      if (encoding_.choice()[j]) {
        if (random_.uniform() < 0.5) row[i] = std::floor(random_.uniform() * s_.space[j].cardinality());
      } else {
        row[i] = std::clamp(row[i] + width * random_.normal(), low(i), high(i));
      }
    }
    return encoding_.decode(row);
  }

  // Numeric coordinates by gradient, the others by trying their other values, in turns.
  std::pair<Point, double> climb(Point point, double score) const {
    for (int round = 0; round < 3; ++round) {
      const double before = score;
      VectorXd from = encoding_.encode(point), lower = from, upper = from;
      bool moves = false;
      for (size_t j = 0; j < d_; ++j) {
        if (!s_.space[j].numeric() || std::isnan(point[j]) || s_.space[j].cardinality() < 2) continue;
        const auto i = static_cast<Index>(j);
        lower[i] = low(i), upper[i] = high(i);
        moves = true;
      }
      if (moves) {
        const Minimum top = minimize(
            [&](const VectorXd& at, VectorXd& gradient) {
              const double value = surrogate_.score(at, gradient);
              gradient = -gradient;
              return -value;
            },
            from, lower, upper, 30, 1e-4);
        Point there = encoding_.decode(top.x);
        const double value = surrogate_.score(encoding_.encode(there).transpose().eval())[0];
        if (value > score && fine(there)) point = std::move(there), score = value;
      }
      const std::vector<Point> others = neighbours(point);
      if (others.empty()) break;
      const VectorXd scores = surrogate_.score(encoding_.encode(others));
      Index at;
      const double value = scores.maxCoeff(&at);
      if (value > score) point = others[static_cast<size_t>(at)], score = value;
      if (score <= before) break;
    }
    return {std::move(point), score};
  }

  // One stepped parameter changed.
  std::vector<Point> neighbours(const Point& point) const {
    std::vector<Point> others;
    for (size_t j = 0; j < d_; ++j) {
      const Parameter& p = s_.space[j];
      if (std::isnan(point[j]) || p.step == 0) continue;
      const auto add = [&](double v) {
        Point q = point;
        q[j] = v;
        q = s_.space.repaired(std::move(q));
        if (fine(q)) others.push_back(std::move(q));
      };
      const double n = p.cardinality();
      if (n <= kNeighbours) {
        for (double k = 0; k < n; ++k)
          if (const double v = p.level(static_cast<int64_t>(k), static_cast<int64_t>(n)); v != point[j]) add(v);
      } else {
        if (point[j] > p.low) add(point[j] - p.step);
        if (point[j] + p.step <= p.high) add(point[j] + p.step);
      }
    }
    return others;
  }

  double low(Index i) const { return region_ ? region_->low[i] : 0; }
  double high(Index i) const { return region_ ? region_->high[i] : 1; }

  const Setting& s_;
  const Seen& seen_;
  const Encoding& encoding_;
  const Surrogate& surrogate_;
  const std::optional<Region>& region_;
  Numbers& random_;
  const size_t d_;
};

}  // namespace

std::optional<Candidate> best_candidate(const Setting& setting, const Seen& seen, const Encoding& encoding,
                                        const Surrogate& surrogate, const std::vector<Point>& best_first,
                                        const std::optional<Region>& region, Numbers& random) {
  return Search(setting, seen, encoding, surrogate, region, random).run(best_first);
}

}  // namespace deepseek::tune
