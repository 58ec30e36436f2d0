#include "tune/samplers/gp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/random.h"
#include "tune/samplers/minimize.h"
#include "tune/samplers/surrogate.h"

namespace deepseek::tune {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

struct Example {
  MatrixXd x;
  VectorXd y;
  std::vector<bool> choice{false, false, true};
  GpHyper hyper;
  explicit Example(Index n) : x(n, 3), y(n) {
    Numbers random(1);
    for (Index i = 0; i < n; ++i) {
      x.row(i) << random.uniform(), random.uniform(), std::floor(3 * random.uniform());
      y[i] = std::sin(5 * x(i, 0)) + x(i, 1) * x(i, 2);
    }
    hyper.log_weights = VectorXd::Zero(3);
    hyper.log_weights << 1.2, 0.3, -0.5;
    hyper.log_scale = 0.4;
    hyper.log_noise = -4;
    hyper.log_a = VectorXd::Zero(3);
    hyper.log_a << 0.4, -0.3, 0;
    hyper.log_b = VectorXd::Zero(3);
    hyper.log_b << -0.2, 0.5, 0;
  }
};

TEST(Gp, GradientOfThePosteriorIsThatOfDifferences) {
  const Example e(20);
  const GpPrior prior = GpPrior::of(e.choice);
  VectorXd gradient;
  GaussianProcess::log_posterior(e.x, e.y, e.choice, prior, e.hyper, &gradient);
  ASSERT_EQ(gradient.size(), 11);
  for (Index j = 0; j < 11; ++j) {
    const auto at = [&](double step) {
      GpHyper h = e.hyper;
      (j < 3    ? h.log_weights[j]
       : j == 3 ? h.log_scale
       : j == 4 ? h.log_noise
       : j < 8  ? h.log_a[j - 5]
                : h.log_b[j - 8]) += step;
      return GaussianProcess::log_posterior(e.x, e.y, e.choice, prior, h, nullptr);
    };
    EXPECT_NEAR(gradient[j], (at(1e-5) - at(-1e-5)) / 2e-5, 1e-5 * (1 + std::abs(gradient[j]))) << j;
  }
}

TEST(Gp, PredictionsAtOnePointAreThoseOfMany) {
  const Example e(20);
  const GaussianProcess process(e.x, e.y, e.choice, e.hyper);
  VectorXd at(3);
  at << 0.3, 0.7, 1;
  VectorXd mean, variance, mean_gradient, variance_gradient;
  process.predict(MatrixXd(at.transpose()), mean, variance);
  double m, v;
  process.predict(at, m, v, mean_gradient, variance_gradient);
  EXPECT_NEAR(m, mean[0], 1e-10);
  EXPECT_NEAR(v, variance[0], 1e-10);
  for (Index j = 0; j < 2; ++j) {
    VectorXd up = at, down = at, ignored, ignored2;
    up[j] += 1e-5, down[j] -= 1e-5;
    double mu, vu, md, vd;
    process.predict(up, mu, vu, ignored, ignored2);
    process.predict(down, md, vd, ignored, ignored2);
    EXPECT_NEAR(mean_gradient[j], (mu - md) / 2e-5, 1e-5);
    EXPECT_NEAR(variance_gradient[j], (vu - vd) / 2e-5, 1e-5);
  }
  EXPECT_EQ(mean_gradient[2], 0);
}

TEST(Gp, FitFindsWhatMattersAndPredicts) {
  const Example e(60);
  VectorXd y(60);
  for (Index i = 0; i < 60; ++i) y[i] = std::sin(6 * e.x(i, 0));
  const GpPrior prior = GpPrior::of(e.choice);
  const GpHyper hyper = GaussianProcess::fit(e.x, y, e.choice, prior, {prior.weight_mean, 0, -9, {}, {}}, 60);
  EXPECT_GT(hyper.log_weights[0], hyper.log_weights[1] + 1);
  const GaussianProcess process(e.x, y, e.choice, hyper);
  MatrixXd at(1, 3);
  at << 0.5, 0.5, 0;
  VectorXd mean, variance;
  process.predict(at, mean, variance);
  EXPECT_NEAR(mean[0], std::sin(3.0), 0.02);
  // The same by leaving one out: far better than a constant.
  EXPECT_GT(process.leave_one_out(), 60.0);
}

TEST(Gp, WarpingFindsWhereAFunctionChangesFast) {
  // All change is in the last tenth of the first coordinate.
  MatrixXd x(40, 2);
  VectorXd y(40);
  Numbers random(3);
  for (Index i = 0; i < 40; ++i) {
    x.row(i) << random.uniform(), random.uniform();
    y[i] = std::sin(9 * std::pow(x(i, 0), 8));
  }
  const std::vector<bool> choice{false, false};
  GpPrior prior = GpPrior::of(choice);
  const auto fitted = [&] {
    return GaussianProcess(x, y, choice,
                           GaussianProcess::fit(x, y, choice, prior, {prior.weight_mean, 0, -9, {}, {}}, 100));
  };
  const GaussianProcess warped = fitted();
  prior.warp_sd = 0;
  EXPECT_GT(warped.hyper().log_a[0], 0.3);
  EXPECT_GT(warped.leave_one_out(), fitted().leave_one_out() + 10);
}

TEST(Gp, LeaveOneOutIsThatOfProcessesWithoutIt) {
  // With one output's variance small the mean's own shrinking is the same in both, up to the one that is left out.
  const Example e(12);
  const GaussianProcess all(e.x, e.y, e.choice, e.hyper);
  EXPECT_TRUE(std::isfinite(all.leave_one_out()));
  // Repeated inputs and equal outputs must not break the factorisation.
  MatrixXd same = MatrixXd::Zero(8, 3);
  GpHyper h = e.hyper;
  h.log_noise = -16;
  const GaussianProcess flat(same, VectorXd::Zero(8), e.choice, h);
  VectorXd mean, variance;
  flat.predict(same, mean, variance);
  EXPECT_TRUE(mean.allFinite() && variance.allFinite());
}

TEST(Gp, LogExpectedImprovementIsThatOfTheIntegral) {
  // Integral of (best - t) density(t) below best, by Simpson's rule.
  const auto integral = [](double mean, double sd, double best) {
    const double low = std::min(mean - 12 * sd, best - 12 * sd), step = (best - low) / 200000;
    double sum = 0;
    for (int k = 0; k <= 200000; ++k) {
      const double t = low + k * step, z = (t - mean) / sd;
      sum += (best - t) * std::exp(-0.5 * z * z) / (sd * std::sqrt(2 * std::numbers::pi)) *
             (k == 0 || k == 200000 ? 1
              : k % 2               ? 4
                                    : 2);
    }
    return sum * step / 3;
  };
  for (const double mean : {-1.0, 0.0, 0.5, 2.0, 4.0, 8.0})
    for (const double sd : {0.3, 1.0, 2.0}) {
      if (mean / sd > 12) continue;
      EXPECT_NEAR(log_expected_improvement(mean, sd, 0), std::log(integral(mean, sd, 0)), 2e-6) << mean << " " << sd;
      double by_mean, by_sd;
      log_expected_improvement(mean, sd, 0, &by_mean, &by_sd);
      const double h = 1e-6;
      EXPECT_NEAR(by_mean,
                  (log_expected_improvement(mean + h, sd, 0) - log_expected_improvement(mean - h, sd, 0)) / (2 * h),
                  1e-4 * (1 + std::abs(by_mean)));
      EXPECT_NEAR(by_sd,
                  (log_expected_improvement(mean, sd + h, 0) - log_expected_improvement(mean, sd - h, 0)) / (2 * h),
                  1e-4 * (1 + std::abs(by_sd)));
    }
  // Far out it falls on, without a jump where the formula changes.
  double before = log_expected_improvement(0.9, 1, 0);
  for (double mean = 0.95; mean < 200; mean *= 1.02) {
    const double now = log_expected_improvement(mean, 1, 0);
    EXPECT_LT(now, before);
    EXPECT_LT(before - now, 0.05 * mean * mean + 0.1);
    before = now;
  }
}

TEST(Gp, TransformedLossesKeepTheirOrder) {
  const std::vector<double> losses = {3, 1, 1e12, 2, 2, 5, 1e9, 0.5};
  const VectorXd y = transformed(losses);
  for (size_t i = 0; i < losses.size(); ++i)
    for (size_t j = 0; j < losses.size(); ++j)
      EXPECT_EQ(losses[i] < losses[j], y[static_cast<Index>(i)] < y[static_cast<Index>(j)]);
  EXPECT_NEAR(y.mean(), 0, 1e-12);
  EXPECT_NEAR(y.array().square().mean(), 1, 1e-12);
  EXPECT_LT(y.maxCoeff(), 4);
  EXPECT_TRUE(transformed({2, 2, 2}).isZero());
}

TEST(Minimize, FindsTheMinimumInsideAndAtBounds) {
  const auto rosenbrock = [](const VectorXd& x, VectorXd& g) {
    g[0] = -400 * x[0] * (x[1] - x[0] * x[0]) - 2 * (1 - x[0]);
    g[1] = 200 * (x[1] - x[0] * x[0]);
    return 100 * std::pow(x[1] - x[0] * x[0], 2) + std::pow(1 - x[0], 2);
  };
  VectorXd start(2), low(2), high(2);
  start << -1.2, 1;
  low << -2, -2;
  high << 2, 2;
  Minimum m = minimize(rosenbrock, start, low, high, 500, 1e-8);
  EXPECT_NEAR(m.x[0], 1, 1e-4);
  EXPECT_NEAR(m.x[1], 1, 1e-4);
  high[0] = 0.5;  // then x = 0.5, y = 0.25
  m = minimize(rosenbrock, start, low, high, 500, 1e-8);
  EXPECT_NEAR(m.x[0], 0.5, 1e-6);
  EXPECT_NEAR(m.x[1], 0.25, 1e-4);
}

}  // namespace
}  // namespace deepseek::tune
