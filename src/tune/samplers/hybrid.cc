// The hybrid of grid and Bayesian search. In the order of a study's life:
// - the middle of the space, then Sobol's points, which share choices and short axes out evenly;
// - a Gaussian process over everything (gp.h): choices and short axes span a grid of arms, each arm gets its share of
//   candidates, and the best climb: other axes by gradient, arms by trying neighbours (candidates.h). The kernel lets
//   arms learn from each other; axes are warped where that helps. Of a small finite space all that is left are
//   candidates, and none is tried twice;
// - above 20 dimensions candidates stay in a trust region around the best (TuRBO: Eriksson et al., NeurIPS 2019);
// - with many trials the process sees the best and a sample of the others, and takes turns with the Parzen estimator,
//   so that a suggestion's time doesn't grow;
// - guards: all points are Sobol's while all losses are the same. Every other one is where the process foretells
//   left-out trials no better than a constant does, and where it expects to gain next to nothing anywhere: what it
//   doesn't know of may be better. The points between are those that would be best if its deviations were larger.
// The sampler "gp" is the process without trust region, turns and guard.
#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>

#include "base/random.h"
#include "tune/samplers/candidates.h"
#include "tune/samplers/sobol.h"

namespace deepseek::tune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr size_t kMostData = 128;    // trials that a process is conditioned on
constexpr size_t kTrustRegion = 20;  // dimensions above which there is one
constexpr int kFitEvaluations = 40;
// Of the losses' standard deviation: an expected improvement that is as good as none. Ten times as much costs a tenth
// of the regret on bench/tune.py's tuning of models; with none the deep narrow bowl of test_tune.py is missed.
constexpr double kLittle = 1e-3;
// What the process may be off by then, in its own deviations: its length scales are but estimates.
constexpr double kDoubt = 3;

// Hyper-parameters are fitted anew when this many trials are there, and stay until the next.
size_t fitted_at(size_t n) {
  constexpr double kPerOctave = 6;
  if (n < 12) return n;
  const double k = std::floor(kPerOctave * std::log2(static_cast<double>(n) / 12) + 1e-9);
  return std::min(n, static_cast<size_t>(12 * std::exp2(k / kPerOctave)));
}

std::vector<size_t> by_value(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  return order;
}

// What a process is told of one output.
struct Data {
  std::vector<const Point*> points;
  std::vector<double> values;
  // The first of them; and at most kMostData: the best half of that, of the others evenly spread ones by rank.
  Data first(size_t n) const {
    return {{points.begin(), points.begin() + static_cast<int64_t>(n)},
            {values.begin(), values.begin() + static_cast<int64_t>(n)}};
  }
  Data sample() const {
    if (values.size() <= kMostData) return *this;
    const std::vector<size_t> order = by_value(values);
    const size_t best = kMostData / 2, rest = kMostData - best;
    std::vector<size_t> kept(order.begin(), order.begin() + static_cast<int64_t>(best));
    for (size_t k = 0; k < rest; ++k) kept.push_back(order[best + k * (order.size() - best) / rest]);
    std::sort(kept.begin(), kept.end());
    Data out;
    for (const size_t i : kept) out.points.push_back(points[i]), out.values.push_back(values[i]);
    return out;
  }
  MatrixXd rows(const Encoding& encoding) const {
    MatrixXd x(static_cast<Index>(points.size()), static_cast<Index>(encoding.choice().size()));
    for (size_t i = 0; i < points.size(); ++i) x.row(static_cast<Index>(i)) = encoding.encode(*points[i]).transpose();
    return x;
  }
};

// Constraints keep their zero, which is where they are fulfilled.
VectorXd scaled(const std::vector<double>& values) {
  const VectorXd y = Eigen::Map<const VectorXd>(values.data(), static_cast<Index>(values.size()));
  const double root = std::sqrt(y.squaredNorm() / static_cast<double>(y.size()));
  return (y / (root > 0 ? root : 1)).cwiseMax(-5).cwiseMin(5);
}

// Warped only where that foretells left-out trials clearly better: there are two more numbers per axis to be mistaken
// in. On bench/tune.py's tuning of models this takes 6 % off the regret; with warping always on that of functions
// rises.
GpHyper hyper_of(const MatrixXd& x, const VectorXd& y, const std::vector<bool>& choice) {
  constexpr double kGain = 4;
  const GpPrior prior = GpPrior::of(choice);
  GpPrior plain = prior;
  plain.warp_sd = 0;
  const GpHyper straight = GaussianProcess::fit(
      x, y, choice, plain, {prior.weight_mean, prior.scale_mean, prior.noise_mean, {}, {}}, kFitEvaluations);
  if (y.size() < 12) return straight;
  const GpHyper warped = GaussianProcess::fit(x, y, choice, prior, straight, kFitEvaluations);
  const auto foretells = [&](const GpHyper& h) { return GaussianProcess(x, y, choice, h).leave_one_out(); };
  return foretells(warped) > foretells(straight) + kGain ? warped : straight;
}

// Log density of each output, given the mean and variance of all others.
double constant_leave_one_out(const VectorXd& y) {
  const double n = static_cast<double>(y.size());
  double total = 0;
  for (Index i = 0; i < y.size(); ++i) {
    const double mean = (y.sum() - y[i]) / (n - 1);
    const double variance = std::max((y.squaredNorm() - y[i] * y[i]) / (n - 1) - mean * mean, 1e-6) * n / (n - 1);
    total -= 0.5 * (std::log(2 * std::numbers::pi * variance) + (y[i] - mean) * (y[i] - mean) / variance);
  }
  return total;
}

// The longest side of the trust region after these losses, in order: twice as long after three that were better, half
// as long after as many as there are dimensions that weren't; from the beginning once it is tiny.
double trust_length(const std::vector<double>& losses, size_t dimensions) {
  constexpr double kFirst = 0.8, kMost = 1.6, kLeast = 0.0078125;
  double length = kFirst, best = std::numeric_limits<double>::infinity();
  size_t better = 0, worse = 0;
  for (const double loss : losses) {
    const bool improved = loss < best - 1e-3 * std::abs(best) || std::isinf(best);
    best = std::min(best, loss);
    if (improved) {
      worse = 0;
      if (++better == 3) length = std::min(2 * length, kMost), better = 0;
    } else {
      better = 0;
      if (++worse >= std::max<size_t>(dimensions, 4)) length /= 2, worse = 0;
    }
    if (length < kLeast) length = kFirst;
  }
  return length;
}

class HybridSampler : public Sampler {
 public:
  explicit HybridSampler(bool hybrid) : hybrid_(hybrid), tpe_(make_tpe_sampler()) {}

  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Observations o = observe(s, trials);
    const size_t planned = std::clamp<size_t>(s.space.size() + 1, 4, 10);
    if (static_cast<size_t>(number) < planned || o.finished.size() < 3) return even(s, Seen(s, trials), number);
    if (hybrid_ && o.finished.size() > kMostData && number % 2 == 1) return tpe_->suggest(s, trials, number);
    return by_model(s, Seen(s, trials), o, number);
  }

 private:
  // The middle first, then the points of Sobol's sequence.
  Result<Point> even(const Setting& s, const Seen& seen, int64_t number) {
    return sobol_point(s, seen, sobol_, number, std::vector<double>(s.space.size(), 0.5));
  }

  // Of a sequence of its own, which every other number goes on with: each second point of one sequence lies in one half
  // of the space.
  Result<Point> elsewhere(Setting s, const Seen& seen, int64_t number) {
    s.seed = hash_of(s.seed, 0x7368);
    return sobol_point(s, seen, turns_, number / 2);
  }

  Result<Point> by_model(const Setting& s, const Seen& seen, const Observations& o, int64_t number) {
    const Encoding encoding(s.space);
    Numbers random(hash_of(s.seed, static_cast<uint64_t>(number), 0x6770));
    Data objective;
    for (const Trial* t : o.finished) objective.points.push_back(&t->point);
    objective.values = losses_of(s, o, random);
    // Where trials failed no more is to be expected than from the middle one, or an unknown region would draw on and
    // on.
    std::vector<double> violations = o.violations;
    if (!o.failed.empty()) {
      std::vector<double> sorted = objective.values;
      std::nth_element(sorted.begin(), sorted.begin() + static_cast<int64_t>(sorted.size() / 2), sorted.end());
      const double middle = sorted[sorted.size() / 2];
      for (const Trial* t : o.failed) {
        objective.points.push_back(&t->point);
        objective.values.push_back(middle);
        violations.push_back(std::numeric_limits<double>::infinity());
      }
    }
    GaussianProcess process = fitted(encoding, objective, 0, transformed);
    if (hybrid_ && number % 2 == 1 && process.leave_one_out() < constant_leave_one_out(process.outputs()))
      return elsewhere(s, seen, number);

    // The best of what keeps the constraints; while nothing does, only they count.
    const VectorXd y = process.outputs();
    if (hybrid_ && y.maxCoeff() == y.minCoeff() && o.failed.empty()) return even(s, seen, number);
    const Data told = objective.sample();
    std::optional<double> best;
    std::vector<Point> best_first;
    std::vector<size_t> ranked = by_value(objective.values);
    std::stable_sort(ranked.begin(), ranked.end(), [&](size_t a, size_t b) { return violations[a] < violations[b]; });
    for (size_t k = 0; k < std::min<size_t>(ranked.size(), 5); ++k) best_first.push_back(*objective.points[ranked[k]]);
    if (violations[ranked[0]] == 0) {
      const auto at = std::find(told.points.begin(), told.points.end(), objective.points[ranked[0]]);
      best = at == told.points.end() ? y.minCoeff() : y[at - told.points.begin()];
    }

    std::vector<GaussianProcess> constraints = constraints_of(encoding, o);
    if (!o.pending.empty()) {
      std::vector<Point> pending;
      for (const Trial* t : o.pending) pending.push_back(t->point);
      const MatrixXd rows = encoding.encode(pending);
      process = process.with_expected(rows);
      for (GaussianProcess& c : constraints) c = c.with_expected(rows);
    }
    std::optional<Region> region;
    if (hybrid_ && s.space.size() > kTrustRegion)
      region = region_around(encoding, process, best_first[0], objective.values);
    Surrogate surrogate(std::move(process), std::move(constraints), best);
    auto winner = best_candidate(s, seen, encoding, surrogate, best_first, region, random);
    if (winner && hybrid_ && best && !region && winner->score < std::log(kLittle)) {
      if (number % 2 == 1) return elsewhere(s, seen, number);
      surrogate.set_doubt(kDoubt);
      winner = best_candidate(s, seen, encoding, surrogate, best_first, region, random);
    }
    return winner ? winner->point : even(s, seen, number);
  }

  // A process whose hyper-parameters were fitted when that was last due; they follow from the trials that there were
  // then.
  GaussianProcess fitted(const Encoding& encoding, const Data& all, uint64_t what,
                         VectorXd (*outputs)(const std::vector<double>&)) {
    const Data first = all.first(fitted_at(all.values.size())).sample();
    uint64_t key = hash_of(what, first.values.size());
    for (size_t i = 0; i < first.values.size(); ++i)
      key = hash_of(key, PointHash()(*first.points[i]), std::bit_cast<uint64_t>(first.values[i]));
    auto& [known, hyper] = fitted_[what];
    if (known != key) {
      hyper = hyper_of(first.rows(encoding), outputs(first.values), encoding.choice());
      known = key;
    }
    const Data now = all.sample();
    return GaussianProcess(now.rows(encoding), outputs(now.values), encoding.choice(), hyper);
  }

  // One process per black-box constraint, and one for whether a trial comes to an end at all.
  std::vector<GaussianProcess> constraints_of(const Encoding& encoding, const Observations& o) {
    std::vector<GaussianProcess> constraints;
    size_t count = 0;
    for (const Trial* t : o.finished) count = std::max(count, t->constraints.size());
    for (size_t k = 0; k < count; ++k) {
      Data data;
      for (const Trial* t : o.finished)
        if (k < t->constraints.size() && std::isfinite(t->constraints[k]))
          data.points.push_back(&t->point), data.values.push_back(t->constraints[k]);
      if (data.values.size() >= 3) constraints.push_back(fitted(encoding, data, 1 + k, scaled));
    }
    if (!o.failed.empty()) {
      Data data;
      for (const Trial* t : o.finished) data.points.push_back(&t->point), data.values.push_back(-1);
      for (const Trial* t : o.failed) data.points.push_back(&t->point), data.values.push_back(1);
      constraints.push_back(fitted(encoding, data, 1 + count, scaled));
    }
    return constraints;
  }

  // What to minimise: the loss; of several a random trade-off of them, each on a scale from its least to its largest
  // value (ParEGO: Knowles, 2006).
  static std::vector<double> losses_of(const Setting& s, const Observations& o, Numbers& random) {
    const size_t n = o.losses.size(), objectives = s.objectives();
    std::vector<double> losses(n), sums(n, 0.0);
    if (objectives == 1) {
      for (size_t i = 0; i < n; ++i) losses[i] = o.losses[i][0];
      return losses;
    }
    std::vector<double> weights(objectives);
    for (double& w : weights) w = -std::log(random.uniform());
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (size_t k = 0; k < objectives; ++k) {
      double low = o.losses[0][k], high = low;
      for (const auto& l : o.losses) low = std::min(low, l[k]), high = std::max(high, l[k]);
      for (size_t i = 0; i < n; ++i) {
        const double weighted = weights[k] / total * (high > low ? (o.losses[i][k] - low) / (high - low) : 0);
        losses[i] = std::max(losses[i], weighted);
        sums[i] += weighted;
      }
    }
    for (size_t i = 0; i < n; ++i) losses[i] += 0.05 * sums[i];
    return losses;
  }

  // A box around the best point whose sides are as the length scales (of warped axes about those in the middle); as
  // large as a cube of trust_length.
  static Region region_around(const Encoding& encoding, const GaussianProcess& process, const Point& best,
                              const std::vector<double>& losses) {
    const VectorXd centre = encoding.encode(best);
    VectorXd scales = (-0.5 * process.hyper().log_weights.array()).exp();
    scales /= std::exp(scales.array().log().mean());
    const double length = trust_length(losses, static_cast<size_t>(centre.size()));
    Region region;
    region.low = (centre - 0.5 * length * scales).cwiseMax(0);
    region.high = (centre + 0.5 * length * scales).cwiseMin(1);
    region.share = std::min(1.0, 20.0 / static_cast<double>(centre.size()));
    return region;
  }

  const bool hybrid_;
  std::shared_ptr<Sampler> tpe_;
  Sobol sobol_, turns_;
  std::map<uint64_t, std::pair<uint64_t, GpHyper>> fitted_;  // by what is modelled: 0 the objective, 1... constraints
};

}  // namespace

std::shared_ptr<Sampler> make_gp_sampler() { return std::make_shared<HybridSampler>(false); }
std::shared_ptr<Sampler> make_hybrid_sampler() { return std::make_shared<HybridSampler>(true); }

}  // namespace deepseek::tune
