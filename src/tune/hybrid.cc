// The hybrid of grid and Bayesian search, and the Gaussian process alone.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <cstdlib>

#include "data/random.h"
#include "tune/minimize.h"
#include "tune/sobol.h"
#include "tune/surrogate.h"

namespace deepseek::tune {
namespace {

using data::Numbers;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

double knob(const char* name, double otherwise) {
  const char* v = std::getenv(name);
  return v ? std::atof(v) : otherwise;
}

// Trials that a process is conditioned on at most: beyond, the best and the nearest to the best.
constexpr size_t kMostData = 128;
// Hyper-parameters are fitted anew when this many trials are there, and stay until the next.
size_t fitted_at(size_t n) {
  if (n < 12) return n;
  const double octave = knob("K_OCT", 6);
  size_t at = 12;
  for (int k = 0;; ++k) {
    const auto next = static_cast<size_t>(12 * std::exp2(k / octave));
    if (next > n) return at;
    at = next;
  }
}

class GpSampler : public Sampler {
 public:
  explicit GpSampler(bool hybrid) : hybrid_(hybrid) {}

  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    const Seen seen(s, trials);
    const Observations o = observe(s, trials);
    const size_t planned = initial_trials(s.space);
    if (trials.size() < planned || o.finished.size() < 3) return initial(s, seen, number);
    return by_model(s, seen, o, number);
  }

 private:
  size_t initial_trials(const Space& space) const {
    return static_cast<size_t>(std::clamp(knob("K_INIT", 0) > 0 ? knob("K_INIT", 0) : static_cast<double>(space.size()) + 1, 4.0, knob("K_INITMAX", 10)));
  }

  // The middle first, then points that fill the space: each choice and short axis by arms of about equal counts, the others
  // by Sobol's sequence.
  Result<Point> initial(const Setting& s, const Seen& seen, int64_t number) {
    return first_new(s, seen, [&](int64_t k) {
      if (number == 0 && k == 0 && knob("K_MIDDLE", 1) > 0) return s.space.from_unit(std::vector<double>(s.space.size(), 0.5));
      if (k == 0) return s.space.from_unit(sobol_.point(s.space.size(), static_cast<uint64_t>(number), s.seed));
      return s.space.from_unit(random_unit(s.space.size(), s.seed, static_cast<uint64_t>(number), static_cast<uint64_t>(k)));
    });
  }

  Result<Point> by_model(const Setting& s, const Seen& seen, const Observations& o, int64_t number) {
    const Encoding encoding(s.space);
    Numbers random(data::hash_of(s.seed, static_cast<uint64_t>(number), 0x6770));
    std::vector<Point> points;
    std::vector<double> losses;
    for (size_t i = 0; i < o.finished.size(); ++i) {
      points.push_back(o.finished[i]->point);
      losses.push_back(o.losses[i][0]);
    }
    const MatrixXd x = encoding.encode(points);
    const VectorXd y = transformed(losses);
    const GpPrior prior = prior_of(x.cols());
    const size_t m = fitted_at(points.size());
    if (m != fitted_) {
      const std::vector<double> first(losses.begin(), losses.begin() + static_cast<Index>(m));
      GpHyper start;
      start.log_weights = VectorXd::Constant(x.cols(), prior.weight_mean);
      start.log_scale = prior.scale_mean;
      start.log_noise = prior.noise_mean;
      hyper_ = GaussianProcess::fit(x.topRows(static_cast<Index>(m)), transformed(first), encoding.choice(), prior, start,
                                    static_cast<int>(knob("K_FIT", 40)));
      fitted_ = m;
    }
    GaussianProcess process(x, y, encoding.choice(), hyper_);
    const double best = y.minCoeff();
    if (!o.pending.empty()) {
      std::vector<Point> pending;
      for (const Trial* t : o.pending) pending.push_back(t->point);
      process = process.with_expected(encoding.encode(pending));
    }
    const Surrogate surrogate(std::move(process), {}, best);

    // Candidates: everywhere, and around the best points.
    std::vector<size_t> order(points.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return losses[a] < losses[b]; });
    const size_t d = s.space.size();
    std::vector<Point> candidates;
    const auto add = [&](Point p) {
      if (!seen.contains(p) && (!s.allowed || s.allowed(p))) candidates.push_back(std::move(p));
    };
    const int global = static_cast<int>(knob("K_GLOBAL", 200)), local = static_cast<int>(knob("K_LOCAL", 200));
    for (int k = 0; k < global; ++k) {
      std::vector<double> unit(d);
      for (double& u : unit) u = random.uniform();
      add(s.space.from_unit(unit));
    }
    const size_t elite = std::min<size_t>(order.size(), 5);
    for (int k = 0; k < local; ++k) {
      VectorXd row = x.row(static_cast<Index>(order[static_cast<size_t>(k) % elite])).transpose();
      const double width = 0.3 * std::pow(0.01, random.uniform());
      const double share = std::max(1.0 / static_cast<double>(d), random.uniform());
      for (size_t j = 0; j < d; ++j) {
        if (random.uniform() > share) continue;
        const auto i = static_cast<Index>(j);
        if (encoding.choice()[j]) {
          if (random.uniform() < 0.5) row[i] = std::floor(random.uniform() * s.space[j].cardinality());
        } else {
          row[i] = std::clamp(row[i] + width * random.normal(), 0.0, 1.0);
        }
      }
      add(encoding.decode(row));
    }
    if (candidates.empty()) return first_new(s, seen, [&](int64_t k) {
      return s.space.from_unit(random_unit(d, s.seed, static_cast<uint64_t>(number), static_cast<uint64_t>(k)));
    });
    const VectorXd scores = surrogate.score(encoding.encode(candidates));
    std::vector<size_t> ranks(candidates.size());
    std::iota(ranks.begin(), ranks.end(), size_t{0});
    std::sort(ranks.begin(), ranks.end(), [&](size_t a, size_t b) {
      const double l = scores[static_cast<Index>(a)], r = scores[static_cast<Index>(b)];
      return l != r ? l > r : a < b;
    });
    Point winner = candidates[ranks[0]];
    double highest = scores[static_cast<Index>(ranks[0])];
    const size_t climbs = std::min<size_t>(ranks.size(), static_cast<size_t>(knob("K_CLIMB", 5)));
    for (size_t k = 0; k < climbs; ++k) {
      auto [point, score] = climb(s, seen, encoding, surrogate, candidates[ranks[k]], scores[static_cast<Index>(ranks[k])]);
      if (score > highest) highest = score, winner = std::move(point);
    }
    return winner;
  }

  // Uphill from a candidate: numeric parameters by gradient, choices and short axes by trying their other values, in turns.
  std::pair<Point, double> climb(const Setting& s, const Seen& seen, const Encoding& encoding, const Surrogate& surrogate,
                                 Point point, double score) const {
    const auto fine = [&](const Point& p) { return !seen.contains(p) && (!s.allowed || s.allowed(p)); };
    for (int round = 0; round < 3; ++round) {
      const double before = score;
      VectorXd row = encoding.encode(point);
      VectorXd low = row, high = row;
      bool moves = false;
      for (size_t j = 0; j < s.space.size(); ++j) {
        if (!s.space[j].numeric() || std::isnan(point[j]) || s.space[j].cardinality() < 2) continue;
        low[static_cast<Index>(j)] = 0, high[static_cast<Index>(j)] = 1;
        moves = true;
      }
      if (moves) {
        const Minimum top = minimize(
            [&](const VectorXd& at, VectorXd& gradient) {
              const double value = surrogate.score(at, gradient);
              gradient = -gradient;
              return -value;
            },
            row, low, high, static_cast<int>(knob("K_STEPS", 30)), 1e-4);
        const Point there = encoding.decode(top.x);
        const double value = surrogate.score(encoding.encode(there).transpose().eval())[0];
        if (value > score && fine(there)) point = there, score = value;
      }
      // One parameter changed at a time.
      std::vector<Point> others;
      for (size_t j = 0; j < s.space.size(); ++j) {
        const Parameter& p = s.space[j];
        if (std::isnan(point[j]) || p.step == 0) continue;
        const double n = p.cardinality();
        const auto tried = [&](double v) {
          Point q = point;
          q[j] = v;
          q = s.space.repaired(q);
          if (fine(q)) others.push_back(std::move(q));
        };
        if (n <= 16) {
          for (double v = 0; v < n; ++v)
            if (p.low + v * p.step != point[j]) tried(p.low + v * p.step);
        } else {
          if (point[j] > p.low) tried(point[j] - p.step);
          if (point[j] + p.step <= p.high) tried(point[j] + p.step);
        }
      }
      if (others.empty()) break;
      const VectorXd scores = surrogate.score(encoding.encode(others));
      Index at;
      const double value = scores.maxCoeff(&at);
      if (value > score) point = others[static_cast<size_t>(at)], score = value;
      if (score <= before) break;
    }
    return {point, score};
  }

  static GpPrior prior_of(Index d) {
    GpPrior p;
    p.weight_mean = knob("K_W", 1.5) - knob("K_WD", 1) * std::log(static_cast<double>(d));
    p.weight_sd = knob("K_WS", 1.5);
    p.noise_mean = knob("K_N", -9);
    p.noise_sd = knob("K_NS", 2.5);
    return p;
  }

  bool hybrid_;
  Sobol sobol_;
  size_t fitted_ = 0;
  GpHyper hyper_;
};

}  // namespace

std::shared_ptr<Sampler> make_gp_sampler() { return std::make_shared<GpSampler>(false); }
std::shared_ptr<Sampler> make_hybrid_sampler() { return std::make_shared<GpSampler>(true); }

}  // namespace deepseek::tune
