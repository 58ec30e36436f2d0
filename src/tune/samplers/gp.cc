#include "tune/samplers/gp.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tune/samplers/minimize.h"

namespace deepseek::tune {

using Eigen::ArrayXd;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

const double kRoot5 = std::sqrt(5.0);
constexpr double kJitter = 1e-8;  // relative to the signal's variance

// The Matern 5/2 correlation of squared distances, and its derivative by them.
template <class Squares>
ArrayXd matern(const Squares& squares, ArrayXd* derivative) {
  const ArrayXd r = kRoot5 * squares.sqrt();
  const ArrayXd e = (-r).exp();
  if (derivative) *derivative = (-5.0 / 6) * (1 + r) * e;
  return (1 + r + r.square() * (1.0 / 3)) * e;
}

// A coordinate warped, and optionally the result's derivatives by log a, log b and the coordinate.
struct Warped {
  double value, by_log_a = 0, by_log_b = 0, by_x = 0;
  Warped(double x, double log_a, double log_b, bool derivatives) {
    x = std::clamp(x, 1e-6, 1 - 1e-6);
    const double a = std::exp(log_a), b = std::exp(log_b);
    const double power = std::pow(x, a), rest = 1 - power, tail = std::pow(rest, b);
    value = 1 - tail;
    if (!derivatives) return;
    const double slope = b * tail / rest * power * a;
    by_log_a = slope * std::log(x);
    by_log_b = -b * tail * std::log(rest);
    by_x = slope / x;
  }
};

MatrixXd warped(MatrixXd x, const std::vector<bool>& choice, const VectorXd& log_a, const VectorXd& log_b) {
  if (log_a.size() == 0) return x;
  for (Index k = 0; k < x.cols(); ++k)
    if (!choice[static_cast<size_t>(k)])
      for (double& v : x.col(k)) v = Warped(v, log_a[k], log_b[k], false).value;
  return x;
}

// Squared differences of all pairs i > j, one column per dimension.
MatrixXd pairs_of(const MatrixXd& x, const std::vector<bool>& choice) {
  const Index n = x.rows(), d = x.cols();
  MatrixXd pairs(n * (n - 1) / 2, d);
  for (Index k = 0; k < d; ++k) {
    double* out = pairs.col(k).data();
    const double* in = x.col(k).data();
    for (Index j = 0; j < n; ++j)
      for (Index i = j + 1; i < n; ++i) {
        const double delta = in[i] - in[j];
        *out++ = choice[static_cast<size_t>(k)] ? (delta != 0 ? 1.0 : 0.0) : delta * delta;
      }
  }
  return pairs;
}

class Posterior {
 public:
  Posterior(const MatrixXd& x, const VectorXd& y, const std::vector<bool>& choice, const GpPrior& prior)
      : x_(x), pairs_(pairs_of(x, choice)), choice_(choice), y_(y), prior_(prior), n_(x.rows()), d_(x.cols()) {}

  double operator()(const VectorXd& theta, VectorXd* gradient) {
    const bool warping = theta.size() > d_ + 2;
    MatrixXd at;
    if (warping) {
      at = warped(x_, choice_, theta.segment(d_ + 2, d_), theta.tail(d_));
      pairs_ = pairs_of(at, choice_);
    }
    const VectorXd weights = theta.head(d_).array().exp();
    const double scale = std::exp(theta[d_]), noise = std::exp(theta[d_ + 1]);
    const ArrayXd squares = (pairs_ * weights).array().max(1e-20);
    ArrayXd derivative;
    const ArrayXd correlation = matern(squares, &derivative);
    MatrixXd k(n_, n_);
    const double* c = correlation.data();
    for (Index j = 0; j < n_; ++j) {
      k(j, j) = scale * (1 + kJitter) + noise;
      for (Index i = j + 1; i < n_; ++i) k(i, j) = scale * *c++;
    }
    const Eigen::LLT<MatrixXd, Eigen::Lower> llt(k);
    if (llt.info() != Eigen::Success) return -std::numeric_limits<double>::infinity();
    MatrixXd inverse = MatrixXd::Identity(n_, n_);
    llt.matrixL().solveInPlace(inverse);  // L^-1
    // The mean is what the data say (generalised least squares), drawn to 0 as by one more output there.
    const VectorXd whitened = inverse.triangularView<Eigen::Lower>() * y_;
    const VectorXd ones = inverse.triangularView<Eigen::Lower>() * VectorXd::Ones(n_);
    const double mean = ones.dot(whitened) / (ones.squaredNorm() + 1 / kMeanVariance);
    const VectorXd rest = whitened - mean * ones;
    const double log_determinant = llt.matrixLLT().diagonal().array().log().sum();
    double value = -0.5 * rest.squaredNorm() - 0.5 * mean * mean / kMeanVariance - log_determinant -
                   0.5 * static_cast<double>(n_) * std::log(2 * std::numbers::pi);
    const auto prior = [&](double v, double centre, double sd, double* slope) {
      const double z = (v - centre) / sd;
      if (slope) *slope -= z / sd;
      return -0.5 * z * z;
    };
    double* slope = nullptr;
    if (gradient) {
      gradient->setZero(theta.size());
      const VectorXd alpha = inverse.triangularView<Eigen::Lower>().transpose() * rest;
      const MatrixXd full = inverse.transpose() * inverse;
      // d/dK of the likelihood is (alpha alpha' - K^-1) / 2; each pair stands for two elements.
      ArrayXd outer(pairs_.rows());
      double* o = outer.data();
      for (Index j = 0; j < n_; ++j)
        for (Index i = j + 1; i < n_; ++i) *o++ = alpha[i] * alpha[j] - full(i, j);
      const double diagonal = alpha.squaredNorm() - full.trace();
      const VectorXd by_square = scale * (outer * derivative).matrix();
      gradient->head(d_) = (pairs_.transpose() * by_square).cwiseProduct(weights);
      (*gradient)[d_] = scale * ((outer * correlation).sum() + 0.5 * diagonal * (1 + kJitter));
      (*gradient)[d_ + 1] = 0.5 * noise * diagonal;
      if (warping) warp_gradient(at, theta, by_square, weights, *gradient);
      slope = gradient->data();
    }
    for (Index j = 0; j < d_; ++j)
      value += prior(theta[j], prior_.weight_mean[j], prior_.weight_sd, slope ? slope + j : nullptr);
    value += prior(theta[d_], prior_.scale_mean, prior_.scale_sd, slope ? slope + d_ : nullptr);
    value += prior(theta[d_ + 1], prior_.noise_mean, prior_.noise_sd, slope ? slope + d_ + 1 : nullptr);
    for (Index j = d_ + 2; j < theta.size(); ++j)
      value += prior(theta[j], 0, prior_.warp_sd, slope ? slope + j : nullptr);
    return value;
  }

  static constexpr double kMeanVariance = 1;

 private:
  // By what each coordinate's change does to all squared differences that it is in.
  void warp_gradient(const MatrixXd& at, const VectorXd& theta, const VectorXd& by_square, const VectorXd& weights,
                     VectorXd& gradient) const {
    VectorXd by_coordinate(n_);
    for (Index k = 0; k < d_; ++k) {
      if (choice_[static_cast<size_t>(k)]) continue;
      by_coordinate.setZero();
      const double* b = by_square.data();
      for (Index j = 0; j < n_; ++j)
        for (Index i = j + 1; i < n_; ++i) {
          const double change = *b++ * (at(i, k) - at(j, k));
          by_coordinate[i] += change;
          by_coordinate[j] -= change;
        }
      for (Index i = 0; i < n_; ++i) {
        const Warped w(x_(i, k), theta[d_ + 2 + k], theta[2 * d_ + 2 + k], true);
        gradient[d_ + 2 + k] += 2 * weights[k] * by_coordinate[i] * w.by_log_a;
        gradient[2 * d_ + 2 + k] += 2 * weights[k] * by_coordinate[i] * w.by_log_b;
      }
    }
  }

  const MatrixXd& x_;
  MatrixXd pairs_;  // of x, warped where there is warping
  const std::vector<bool>& choice_;
  const VectorXd& y_;
  GpPrior prior_;
  Index n_, d_;
};

VectorXd theta_of(const GpHyper& hyper) {
  VectorXd theta(hyper.log_weights.size() + 2 + hyper.log_a.size() + hyper.log_b.size());
  theta << hyper.log_weights, hyper.log_scale, hyper.log_noise, hyper.log_a, hyper.log_b;
  return theta;
}

}  // namespace

// Found by bench/tune.py: of the widths and centres tried the means of regret over its functions were least with these.
// More dimensions and choices: longer length scales, as Hvarfner et al. (ICML 2024) argue, but less so.
GpPrior GpPrior::of(const std::vector<bool>& choice) {
  GpPrior prior;
  const double spread = std::log(static_cast<double>(choice.size()));
  prior.weight_mean.resize(static_cast<Index>(choice.size()));
  for (size_t j = 0; j < choice.size(); ++j)
    prior.weight_mean[static_cast<Index>(j)] = 1 - (choice[j] ? 1 : 0.25) * spread;
  return prior;
}

double GaussianProcess::log_posterior(const MatrixXd& x, const VectorXd& y, const std::vector<bool>& choice,
                                      const GpPrior& prior, const GpHyper& hyper, VectorXd* gradient) {
  return Posterior(x, y, choice, prior)(theta_of(hyper), gradient);
}

GpHyper GaussianProcess::fit(const MatrixXd& x, const VectorXd& y, const std::vector<bool>& choice,
                             const GpPrior& prior, const GpHyper& start, int max_evaluations) {
  const Index d = x.cols();
  Posterior posterior(x, y, choice, prior);
  GpHyper from = start;
  if (prior.warp_sd <= 0)
    from.log_a = from.log_b = VectorXd();
  else if (from.log_a.size() == 0)
    from.log_a = from.log_b = VectorXd::Zero(d);
  const VectorXd theta = theta_of(from);
  VectorXd low = VectorXd::Constant(theta.size(), -14), high = VectorXd::Constant(theta.size(), 10);
  low[d] = -4, high[d] = 6;
  low[d + 1] = -16, high[d + 1] = 1;
  low.tail(theta.size() - d - 2).setConstant(-2), high.tail(theta.size() - d - 2).setConstant(2);
  const Minimum best = minimize(
      [&](const VectorXd& at, VectorXd& gradient) {
        const double value = posterior(at, &gradient);
        gradient = -gradient;
        return -value;
      },
      theta, low, high, max_evaluations, 1e-2);
  GpHyper hyper;
  hyper.log_weights = best.x.head(d);
  hyper.log_scale = best.x[d];
  hyper.log_noise = best.x[d + 1];
  hyper.log_a = best.x.segment(d + 2, from.log_a.size());
  hyper.log_b = best.x.tail(from.log_b.size());
  return hyper;
}

GaussianProcess::GaussianProcess(MatrixXd x, VectorXd y, std::vector<bool> choice, GpHyper hyper)
    : x_(std::move(x)),
      warped_(warped(x_, choice, hyper.log_a, hyper.log_b)),
      y_(std::move(y)),
      choice_(std::move(choice)),
      hyper_(std::move(hyper)) {
  weights_ = hyper_.log_weights.array().exp();
  scale_ = std::exp(hyper_.log_scale);
  const Index n = x_.rows();
  const ArrayXd squares = (pairs_of(warped_, choice_) * weights_).array().max(1e-20);
  const ArrayXd correlation = matern(squares, nullptr);
  double jitter = kJitter;
  for (;; jitter *= 10) {
    MatrixXd k(n, n);
    const double* c = correlation.data();
    for (Index j = 0; j < n; ++j) {
      k(j, j) = scale_ * (1 + jitter) + std::exp(hyper_.log_noise);
      for (Index i = j + 1; i < n; ++i) k(i, j) = scale_ * *c++;
    }
    const Eigen::LLT<MatrixXd, Eigen::Lower> llt(k);
    if (llt.info() != Eigen::Success && jitter < 1) continue;
    MatrixXd root = MatrixXd::Identity(n, n);
    llt.matrixL().solveInPlace(root);
    inverse_ = root.transpose() * root;
    break;
  }
  const VectorXd ones = inverse_ * VectorXd::Ones(n);
  mean_ = ones.dot(y_) / (ones.sum() + 1 / Posterior::kMeanVariance);
  alpha_ = inverse_ * (y_.array() - mean_).matrix();
}

MatrixXd GaussianProcess::squared_distances(const MatrixXd& unwarped) const {
  // |a - b|^2 = |a|^2 + |b|^2 - 2ab over the numeric dimensions, differences of choices one by one.
  const MatrixXd at = warped(unwarped, choice_, hyper_.log_a, hyper_.log_b);
  const Index n = x_.rows(), m = at.rows();
  VectorXd root = weights_.array().sqrt();
  for (Index k = 0; k < x_.cols(); ++k)
    if (choice_[static_cast<size_t>(k)]) root[k] = 0;
  const MatrixXd a = at * root.asDiagonal(), b = warped_ * root.asDiagonal();
  MatrixXd squares = -2 * a * b.transpose();
  squares.colwise() += a.rowwise().squaredNorm();
  squares.rowwise() += b.rowwise().squaredNorm().transpose();
  for (Index k = 0; k < x_.cols(); ++k) {
    if (!choice_[static_cast<size_t>(k)]) continue;
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < m; ++i)
        if (at(i, k) != warped_(j, k)) squares(i, j) += weights_[k];
  }
  return squares.cwiseMax(1e-20);
}

void GaussianProcess::predict(const MatrixXd& at, VectorXd& mean, VectorXd& variance) const {
  MatrixXd k = squared_distances(at);
  const ArrayXd squares = Eigen::Map<const ArrayXd>(k.data(), k.size());
  Eigen::Map<ArrayXd>(k.data(), k.size()) = scale_ * matern(squares, nullptr);
  mean = (k * alpha_).array() + mean_;
  variance = (scale_ - (k * inverse_).cwiseProduct(k).rowwise().sum().array()).max(1e-10 * scale_);
}

void GaussianProcess::predict(const VectorXd& at, double& mean, double& variance, VectorXd& mean_gradient,
                              VectorXd& variance_gradient) const {
  const Index n = x_.rows(), d = x_.cols();
  ArrayXd squares = ArrayXd::Zero(n);
  MatrixXd delta(n, d);
  VectorXd slopes = weights_;  // the weight times the warping's derivative
  for (Index k = 0; k < d; ++k) {
    if (choice_[static_cast<size_t>(k)]) {
      delta.col(k).setZero();
      squares += weights_[k] * (warped_.col(k).array() != at[k]).cast<double>();
    } else {
      double value = at[k];
      if (hyper_.log_a.size() > 0) {
        const Warped w(at[k], hyper_.log_a[k], hyper_.log_b[k], true);
        value = w.value;
        slopes[k] *= w.by_x;
      }
      delta.col(k) = value - warped_.col(k).array();
      squares += weights_[k] * delta.col(k).array().square();
    }
  }
  ArrayXd derivative;
  const VectorXd k = scale_ * matern(squares.max(1e-20), &derivative).matrix();
  const VectorXd solved = inverse_ * k;
  mean = k.dot(alpha_) + mean_;
  variance = std::max(scale_ - k.dot(solved), 1e-10 * scale_);
  const VectorXd slope = 2 * scale_ * derivative.matrix();  // times weight and delta: the covariance's gradient
  mean_gradient = (delta.transpose() * slope.cwiseProduct(alpha_)).cwiseProduct(slopes);
  variance_gradient = -2 * (delta.transpose() * slope.cwiseProduct(solved)).cwiseProduct(slopes);
}

double GaussianProcess::leave_one_out() const {
  double total = 0;
  for (Index i = 0; i < size(); ++i) {
    const double variance = 1 / inverse_(i, i), error = alpha_[i] * variance;
    total -= 0.5 * (std::log(2 * std::numbers::pi * variance) + error * error / variance);
  }
  return total;
}

GaussianProcess GaussianProcess::with_expected(const MatrixXd& more) const {
  VectorXd mean, variance;
  predict(more, mean, variance);
  MatrixXd x(x_.rows() + more.rows(), x_.cols());
  x << x_, more;
  VectorXd y(x.rows());
  y << y_, mean;
  return GaussianProcess(std::move(x), std::move(y), choice_, hyper_);
}

}  // namespace deepseek::tune
