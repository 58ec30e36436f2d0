#include "tune/samplers/surrogate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace deepseek::tune {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

Encoding::Encoding(const Space& space) : space_(space), choice_(space.size()) {
  for (size_t i = 0; i < space.size(); ++i) choice_[i] = !space[i].numeric();
}

VectorXd Encoding::encode(const Point& point) const {
  VectorXd row(static_cast<Index>(space_.size()));
  for (size_t i = 0; i < space_.size(); ++i)
    row[static_cast<Index>(i)] = choice_[i]             ? (std::isnan(point[i]) ? -1 : point[i])
                                 : std::isnan(point[i]) ? 0.5
                                                        : space_[i].to_unit(point[i]);
  return row;
}

Point Encoding::decode(const VectorXd& row) const {
  Point point(space_.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < space_.size(); ++i) {
    if (!space_.active(point, i)) continue;
    const double v = row[static_cast<Index>(i)];
    // A choice that wasn't active where the row comes from.
    point[i] = choice_[i] ? std::max(v, 0.0) : space_[i].from_unit(v);
  }
  return point;
}

MatrixXd Encoding::encode(const std::vector<Point>& points) const {
  MatrixXd rows(static_cast<Index>(points.size()), static_cast<Index>(space_.size()));
  for (size_t i = 0; i < points.size(); ++i) rows.row(static_cast<Index>(i)) = encode(points[i]).transpose();
  return rows;
}

// The inverse of the normal distribution (Acklam's rational approximation, relative error 1e-9).
static double normal_quantile(double p) {
  static constexpr double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                                 1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  static constexpr double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                                 6.680131188771972e+01, -1.328068155288572e+01};
  static constexpr double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                 -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  static constexpr double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                 3.754408661907416e+00};
  if (p < 0.02425) {
    const double q = std::sqrt(-2 * std::log(p));
    return (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
           ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
  }
  if (p > 1 - 0.02425) return -normal_quantile(1 - p);
  const double q = p - 0.5, r = q * q;
  return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
         (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
}

VectorXd transformed(const std::vector<double>& losses) {
  const size_t n = losses.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return losses[a] < losses[b]; });
  VectorXd y(static_cast<Index>(n));
  const size_t middle = (n - 1) / 2;
  const double median = losses[order[middle]];
  // How far the better half reaches, as a standard deviation.
  double spread = 0;
  for (size_t k = 0; k < middle; ++k) spread += (losses[order[k]] - median) * (losses[order[k]] - median);
  spread = middle > 0 ? std::sqrt(spread / static_cast<double>(middle)) : 0;
  if (spread == 0) spread = 1;
  for (size_t k = 0; k < n;) {
    size_t end = k + 1;
    while (end < n && losses[order[end]] == losses[order[k]]) ++end;
    const double loss = losses[order[k]];
    double value = loss;
    if (loss > median) {
      const double rank = 0.5 * static_cast<double>(k + end - 1);
      value = median + spread * normal_quantile((rank + 0.5) / static_cast<double>(n));
    }
    for (size_t i = k; i < end; ++i) y[static_cast<Index>(order[i])] = value;
    k = end;
  }
  const double mean = y.mean();
  const double deviation = std::sqrt((y.array() - mean).square().mean());
  return deviation > 0 ? ((y.array() - mean) / deviation).matrix() : VectorXd::Zero(y.size()).eval();
}

namespace {

constexpr double kHalfLog2Pi = 0.91893853320467274178;

double log_density(double z) { return -0.5 * z * z - kHalfLog2Pi; }
// log of the normal distribution function, by its asymptotic series far out.
double log_cumulative(double z) {
  if (z > -20) return std::log(0.5 * std::erfc(-z / std::numbers::sqrt2));
  const double s = 1 / (z * z);
  return log_density(z) - std::log(-z) + std::log1p(-s * (1 - 3 * s * (1 - 5 * s)));
}

}  // namespace

double log_expected_improvement(double mean, double deviation, double best, double* by_mean, double* by_deviation) {
  const double z = (best - mean) / deviation;
  // h(z) = density(z) + z cumulative(z), whose derivative is cumulative(z).
  double log_h;
  if (z > -1) {
    log_h = std::log(std::exp(log_density(z)) + z * 0.5 * std::erfc(-z / std::numbers::sqrt2));
  } else if (z > -1e4) {
    // density(z) (1 - |z| m(z)) with Mills' ratio m; from -5 on by its series, of which the leading terms cancel.
    const double s = 1 / (z * z);
    const double rest =
        z > -12 ? 1 + z * std::exp(log_cumulative(z) - log_density(z)) : s * (1 - 3 * s * (1 - 5 * s * (1 - 7 * s)));
    log_h = log_density(z) + std::log(rest);
  } else {
    log_h = log_density(z) - 2 * std::log(-z);
  }
  if (by_mean) {
    const double slope = std::exp(std::min(log_cumulative(z) - log_h, 700.0));  // d log h / dz
    *by_mean = -slope / deviation;
    *by_deviation = (1 - slope * z) / deviation;
  }
  return std::log(deviation) + log_h;
}

VectorXd Surrogate::score(const MatrixXd& rows) const {
  VectorXd mean, variance, score = VectorXd::Zero(rows.rows());
  if (best_) {
    objective_.predict(rows, mean, variance);
    for (Index i = 0; i < rows.rows(); ++i)
      score[i] = log_expected_improvement(mean[i], doubt_ * std::sqrt(variance[i]), *best_);
  }
  for (const GaussianProcess& c : constraints_) {
    c.predict(rows, mean, variance);
    for (Index i = 0; i < rows.rows(); ++i) score[i] += log_cumulative(-mean[i] / std::sqrt(variance[i]));
  }
  return score;
}

double Surrogate::score(const VectorXd& row, VectorXd& gradient) const {
  double mean, variance, by_mean, by_deviation;
  VectorXd mean_gradient, variance_gradient;
  double score = 0;
  gradient = VectorXd::Zero(row.size());
  if (best_) {
    objective_.predict(row, mean, variance, mean_gradient, variance_gradient);
    const double deviation = std::sqrt(variance);
    score = log_expected_improvement(mean, doubt_ * deviation, *best_, &by_mean, &by_deviation);
    gradient = by_mean * mean_gradient + (doubt_ * by_deviation * 0.5 / deviation) * variance_gradient;
  }
  for (const GaussianProcess& c : constraints_) {
    c.predict(row, mean, variance, mean_gradient, variance_gradient);
    const double sd = std::sqrt(variance), z = -mean / sd, log_c = log_cumulative(z);
    score += log_c;
    const double slope = std::exp(std::min(log_density(z) - log_c, 700.0));
    gradient += slope * (-mean_gradient / sd + 0.5 * mean / (variance * sd) * variance_gradient);
  }
  return score;
}

}  // namespace deepseek::tune
