// Tree-structured Parzen estimator: where good trials are dense and others are not. Both densities are mixtures with a
// component per trial and one for the prior, over all parameters jointly (Bergstra et al., 2011; Falkner et al., 2018).
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/random.h"
#include "tune/pareto.h"
#include "tune/samplers/sampler.h"
#include "tune/samplers/sobol.h"

namespace deepseek::tune {
namespace {

constexpr int kStartup = 10, kCandidates = 48;
// Components at most, so that a suggestion's time doesn't grow: of good trials the best, of others evenly spread ones.
constexpr size_t kMostGood = 25, kMostOthers = 256;

double cumulative(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

// Where a parameter's value lies: unit coordinates, or a choice's position.
class Mixture {
 public:
  Mixture(const Space& space, std::vector<std::vector<double>> rows) : space_(space), rows_(std::move(rows)) {
    // Scott's rule; the fewer components, the wider.
    width_ = 0.25 * std::pow(static_cast<double>(rows_.size()) + 1, -1 / (static_cast<double>(space.size()) + 4));
    width_ = std::max(width_, 0.02);
  }

  std::vector<double> sample(Numbers& random) const {
    std::vector<double> row(space_.size());
    const auto k = static_cast<size_t>(random.uniform() * static_cast<double>(rows_.size() + 1));
    const bool prior = k >= rows_.size();
    for (size_t j = 0; j < row.size(); ++j) {
      const bool numeric = space_[j].numeric();
      if (prior || std::isnan(rows_[k][j])) {
        row[j] = numeric ? random.uniform() : std::floor(random.uniform() * space_[j].cardinality());
      } else if (!numeric) {
        const bool other = random.uniform() < other_share();
        row[j] = other ? std::floor(random.uniform() * space_[j].cardinality()) : rows_[k][j];
      } else {
        do row[j] = rows_[k][j] + width_ * random.normal();
        while (row[j] < 0 || row[j] > 1);
      }
    }
    return row;
  }

  double log_density(const std::vector<double>& row) const {
    // log-sum-exp over components, the prior first, whose log density is 0 (numeric) or uniform (choices).
    std::vector<double> logs(rows_.size() + 1, 0);
    for (size_t j = 0; j < row.size(); ++j) {
      if (std::isnan(row[j])) continue;
      const double n = space_[j].cardinality();
      if (!space_[j].numeric()) {
        const double share = other_share(), same = std::log(1 - share + share / n), different = std::log(share / n);
        for (size_t k = 0; k < rows_.size(); ++k)
          logs[k] += std::isnan(rows_[k][j]) ? -std::log(n) : rows_[k][j] == row[j] ? same : different;
        logs.back() -= std::log(n);
        continue;
      }
      for (size_t k = 0; k < rows_.size(); ++k) {
        if (std::isnan(rows_[k][j])) continue;
        const double z = (row[j] - rows_[k][j]) / width_;
        logs[k] += -0.5 * z * z + normaliser(rows_[k][j]);
      }
    }
    const double most = *std::max_element(logs.begin(), logs.end());
    double sum = 0;
    for (const double l : logs) sum += std::exp(l - most);
    return most + std::log(sum / static_cast<double>(logs.size()));
  }

 private:
  double other_share() const { return std::min(0.5, 2.0 / static_cast<double>(rows_.size() + 1)); }
  // Of a normal cut off at 0 and 1.
  double normaliser(double centre) const {
    return -std::log(width_ * std::sqrt(2 * std::numbers::pi) *
                     (cumulative((1 - centre) / width_) - cumulative(-centre / width_)));
  }
  const Space& space_;
  std::vector<std::vector<double>> rows_;
  double width_;
};

class TpeSampler : public Sampler {
 public:
  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Seen seen(s, trials);
    const Observations o = observe(s, trials);
    if (o.finished.size() < kStartup) return sobol_point(s, seen, sobol_, number);
    const std::vector<size_t> order = ranked(s, o);
    const size_t good =
        std::clamp<size_t>(static_cast<size_t>(std::ceil(0.1 * static_cast<double>(order.size()))), 2, kMostGood);
    std::vector<std::vector<double>> best, others;
    for (size_t k = 0; k < good; ++k) best.push_back(row_of(s.space, o.finished[order[k]]->point));
    const size_t rest = order.size() - good + o.failed.size() + o.pending.size();
    const double stride = std::max(1.0, static_cast<double>(rest) / static_cast<double>(kMostOthers));
    for (double at = 0; at < static_cast<double>(rest); at += stride) {
      size_t k = static_cast<size_t>(at);
      const Trial* t = k < order.size() - good                        ? o.finished[order[good + k]]
                       : (k -= order.size() - good) < o.failed.size() ? o.failed[k]
                                                                      : o.pending[k - o.failed.size()];
      others.push_back(row_of(s.space, t->point));
    }
    const Mixture dense(s.space, std::move(best)), sparse(s.space, std::move(others));
    Numbers random(hash_of(s.seed, static_cast<uint64_t>(number), 0x747065));
    return first_new(s, seen, [&](int64_t) {
      Point winner;
      double highest = -std::numeric_limits<double>::infinity();
      for (int k = 0; k < kCandidates; ++k) {
        const std::vector<double> row = dense.sample(random);
        Point p = point_of(s.space, row);
        if (seen.contains(p) && !winner.empty()) continue;
        const std::vector<double> there = row_of(s.space, p);
        const double score = dense.log_density(there) - sparse.log_density(there) -
                             (seen.contains(p) ? 1e300 : 0);  // only where all are
        if (score > highest) highest = score, winner = std::move(p);
      }
      return winner;
    });
  }

 private:
  // Best first: feasible before others, which go by how far they are off; several objectives by the front's layers.
  static std::vector<size_t> ranked(const Setting& s, const Observations& o) {
    std::vector<size_t> order(o.finished.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<double> rank(order.size());
    if (s.objectives() == 1) {
      for (size_t i = 0; i < rank.size(); ++i) rank[i] = o.losses[i][0];
    } else {
      std::vector<size_t> left = order;
      for (double layer = 0; !left.empty(); ++layer) {
        std::vector<std::vector<double>> losses;
        for (const size_t i : left) losses.push_back(o.losses[i]);
        const std::vector<size_t> front = pareto_front(losses);
        for (const size_t k : front) rank[left[k]] = layer;
        for (size_t k = front.size(); k-- > 0;) left.erase(left.begin() + static_cast<int64_t>(front[k]));
      }
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return o.violations[a] != o.violations[b] ? o.violations[a] < o.violations[b] : rank[a] < rank[b];
    });
    return order;
  }
  static std::vector<double> row_of(const Space& space, const Point& point) {
    std::vector<double> row(point);
    for (size_t j = 0; j < row.size(); ++j)
      if (space[j].numeric() && !std::isnan(row[j])) row[j] = space[j].to_unit(row[j]);
    return row;
  }
  static Point point_of(const Space& space, const std::vector<double>& row) {
    Point point(space.size(), std::numeric_limits<double>::quiet_NaN());
    for (size_t j = 0; j < row.size(); ++j)
      if (space.active(point, j)) point[j] = space[j].numeric() ? space[j].from_unit(row[j]) : row[j];
    return point;
  }
  Sobol sobol_;
};

}  // namespace

std::shared_ptr<Sampler> make_tpe_sampler() { return std::make_shared<TpeSampler>(); }

}  // namespace deepseek::tune
