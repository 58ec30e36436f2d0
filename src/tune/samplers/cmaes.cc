// CMA-ES (Hansen, 2016, "The CMA Evolution Strategy: A Tutorial") in unit coordinates. The state follows from the
// finished trials in the order of their numbers, lambda of them a generation, so nothing needs to be stored beside
// them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/random.h"
#include "tune/samplers/eigen.h"
#include "tune/samplers/sampler.h"
#include "tune/samplers/sobol.h"

namespace deepseek::tune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

class Evolution {
 public:
  explicit Evolution(Index d) : d_(d), lambda_(4 + static_cast<size_t>(3 * std::log(static_cast<double>(d)))) {
    restart(VectorXd::Constant(d, 0.5));
  }

  size_t lambda() const { return lambda_; }
  VectorXd sample(Numbers& random) const {
    VectorXd x(d_);
    for (int tries = 0; tries < 20; ++tries) {
      VectorXd z(d_);
      for (double& v : z) v = random.normal();
      x = mean_ + sigma_ * (basis_ * lengths_.cwiseProduct(z));
      if (x.minCoeff() >= 0 && x.maxCoeff() <= 1) break;
    }
    return x.cwiseMax(0).cwiseMin(1);
  }
  // One generation: rows best first.
  void update(const std::vector<VectorXd>& best_first) {
    ++generation_;
    const double d = static_cast<double>(d_);
    const size_t mu = lambda_ / 2;
    VectorXd weights(static_cast<Index>(mu));
    for (size_t i = 0; i < mu; ++i)
      weights[static_cast<Index>(i)] =
          std::log((static_cast<double>(lambda_) + 1) / 2) - std::log(static_cast<double>(i) + 1);
    weights /= weights.sum();
    const double mu_effective = 1 / weights.squaredNorm();
    const double c_sigma = (mu_effective + 2) / (d + mu_effective + 5);
    const double damping = 1 + 2 * std::max(0.0, std::sqrt((mu_effective - 1) / (d + 1)) - 1) + c_sigma;
    const double c_c = (4 + mu_effective / d) / (d + 4 + 2 * mu_effective / d);
    const double c_1 = 2 / ((d + 1.3) * (d + 1.3) + mu_effective);
    const double c_mu =
        std::min(1 - c_1, 2 * (mu_effective - 2 + 1 / mu_effective) / ((d + 2) * (d + 2) + mu_effective));
    const double expected = std::sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d));
    VectorXd step = VectorXd::Zero(d_);
    MatrixXd spread = MatrixXd::Zero(d_, d_);
    for (size_t i = 0; i < mu; ++i) {
      VectorXd y = (best_first[i] - mean_) / sigma_;
      // A trial that wasn't drawn from here doesn't pull farther than one that was might (injection: Hansen, 2011).
      const double far = lengths_.cwiseInverse().cwiseProduct(basis_.transpose() * y).norm();
      const double most = std::sqrt(d) + 2 * d / (d + 2);
      if (far > most) y *= most / far;
      step += weights[static_cast<Index>(i)] * y;
      spread += weights[static_cast<Index>(i)] * y * y.transpose();
    }
    mean_ = (mean_ + sigma_ * step).cwiseMax(0).cwiseMin(1);
    const VectorXd whitened = basis_ * lengths_.cwiseInverse().cwiseProduct(basis_.transpose() * step);
    path_sigma_ = (1 - c_sigma) * path_sigma_ + std::sqrt(c_sigma * (2 - c_sigma) * mu_effective) * whitened;
    const bool moves =
        path_sigma_.norm() / std::sqrt(1 - std::pow(1 - c_sigma, 2.0 * generation_)) < (1.4 + 2 / (d + 1)) * expected;
    path_c_ = (1 - c_c) * path_c_ + (moves ? std::sqrt(c_c * (2 - c_c) * mu_effective) : 0) * step;
    covariance_ = (1 - c_1 - c_mu) * covariance_ +
                  c_1 * (path_c_ * path_c_.transpose() + (moves ? 0 : c_c * (2 - c_c)) * covariance_) + c_mu * spread;
    sigma_ = std::min(sigma_ * std::exp(c_sigma / damping * (path_sigma_.norm() / expected - 1)), 1.0);
    const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(covariance_);
    basis_ = solver.eigenvectors();
    lengths_ = solver.eigenvalues().cwiseMax(1e-20).cwiseSqrt();
    // Nothing changes any more: again, elsewhere, with twice as many (IPOP: Auger and Hansen, 2005).
    if (sigma_ * lengths_.maxCoeff() < 1e-7) {
      lambda_ *= 2;
      const std::vector<double> unit = random_unit(static_cast<size_t>(d_), 0x636d61, lambda_, 0);
      restart(Eigen::Map<const VectorXd>(unit.data(), d_));
    }
  }

 private:
  void restart(VectorXd mean) {
    mean_ = std::move(mean);
    sigma_ = 0.25;
    generation_ = 0;
    covariance_ = basis_ = MatrixXd::Identity(d_, d_);
    lengths_ = VectorXd::Ones(d_);
    path_sigma_ = path_c_ = VectorXd::Zero(d_);
  }
  Index d_;
  size_t lambda_;
  VectorXd mean_, lengths_, path_sigma_, path_c_;
  MatrixXd covariance_, basis_;
  double sigma_ = 0;
  int generation_ = 0;
};

class CmaesSampler : public Sampler {
 public:
  Result<Point> suggest(const Setting& s, const std::vector<Trial>& trials, int64_t number) override {
    if (s.objectives() != 1)
      return invalid("sampler cmaes: expected one objective, got {}; hybrid and tpe take several", s.objectives());
    std::vector<size_t> numeric;
    for (size_t j = 0; j < s.space.size(); ++j)
      if (s.space[j].numeric() && s.space[j].cardinality() > 1) numeric.push_back(j);
    const Seen seen(s, trials);
    const Observations o = observe(s, trials);
    // All ended trials, failed ones as the worst.
    struct Ended {
      const Trial* trial;
      double violation, loss;
    };
    std::vector<Ended> ended;
    for (size_t i = 0; i < o.finished.size(); ++i) ended.push_back({o.finished[i], o.violations[i], o.losses[i][0]});
    for (const Trial* t : o.failed) ended.push_back({t, std::numeric_limits<double>::infinity(), 0});
    std::sort(ended.begin(), ended.end(),
              [](const Ended& a, const Ended& b) { return a.trial->number < b.trial->number; });
    const auto better = [](const Ended& a, const Ended& b) {
      return a.violation != b.violation ? a.violation < b.violation : a.loss < b.loss;
    };

    const auto d = static_cast<Index>(std::max<size_t>(numeric.size(), 1));
    // What was learnt before holds as long as its trials are the first ones still.
    bool same = evolution_.has_value() && used_.size() <= ended.size();
    for (size_t i = 0; same && i < used_.size(); ++i) same = used_[i] == ended[i].trial->number;
    if (!same) evolution_.emplace(d), used_.clear();
    while (used_.size() + evolution_->lambda() <= ended.size()) {
      const auto first = ended.begin() + static_cast<int64_t>(used_.size());
      std::vector<Ended> generation(first, first + static_cast<int64_t>(evolution_->lambda()));
      for (const Ended& e : generation) used_.push_back(e.trial->number);
      std::stable_sort(generation.begin(), generation.end(), better);
      std::vector<VectorXd> rows;
      for (const Ended& e : generation) {
        VectorXd row = VectorXd::Constant(d, 0.5);
        for (size_t k = 0; k < numeric.size(); ++k)
          if (const double v = e.trial->point[numeric[k]]; !std::isnan(v))
            row[static_cast<Index>(k)] = s.space[numeric[k]].to_unit(v);
        rows.push_back(std::move(row));
      }
      evolution_->update(rows);
    }
    // Choices as often as among the better quarter of the last trials, and every one now and then.
    const size_t recent = std::min<size_t>(ended.size(), 4 * evolution_->lambda());
    std::vector<Ended> elite(ended.end() - static_cast<int64_t>(recent), ended.end());
    std::stable_sort(elite.begin(), elite.end(), better);
    elite.resize((elite.size() + 3) / 4);
    Numbers random(hash_of(s.seed, static_cast<uint64_t>(number), 0x636d61));
    return first_new(s, seen, [&](int64_t k) {
      const VectorXd x = evolution_->sample(random);
      Point point(s.space.size(), std::numeric_limits<double>::quiet_NaN());
      Index at = 0;
      for (size_t j = 0; j < s.space.size(); ++j) {
        const Parameter& p = s.space[j];
        const double unit = p.numeric() && p.cardinality() > 1 ? x[at++] : 0.5;
        if (!s.space.active(point, j)) continue;
        if (p.numeric() && k < 50) {
          point[j] = p.from_unit(unit);
          continue;
        }
        point[j] = p.from_unit(random.uniform());
        if (elite.empty() || random.uniform() < 0.2) continue;
        const Trial& like = *elite[static_cast<size_t>(random.uniform() * static_cast<double>(elite.size()))].trial;
        if (!std::isnan(like.point[j])) point[j] = like.point[j];
      }
      return point;
    });
  }

 private:
  std::optional<Evolution> evolution_;
  std::vector<int64_t> used_;
};

}  // namespace

std::shared_ptr<Sampler> make_cmaes_sampler() { return std::make_shared<CmaesSampler>(); }

}  // namespace deepseek::tune
