// Gaussian process regression over unit coordinates: Matern 5/2 kernel with a weight per dimension (ARD), of which
// choices without order count 1 where they differ; hyper-parameters by maximum a posteriori. Rasmussen and Williams,
// 2006, chapters 2, 4 and 5. Test: tests/tune/gp_test.cc, tests/python/test_tune.py (scikit-learn)
#pragma once

#include <vector>

#include "tune/samplers/eigen.h"

namespace deepseek::tune {

struct GpHyper {
  Eigen::VectorXd log_weights;  // of squared distances, i.e. -2 log(length scale)
  double log_scale = 0;         // log of the signal's variance
  double log_noise = -9;        // log of the noise's variance
  // Numeric dimensions are warped by Kumaraswamy's distribution function, 1 - (1 - x^a)^b, so that a function that
  // changes faster at one end may be stationary (Snoek et al., ICML 2014); empty for none.
  Eigen::VectorXd log_a, log_b;
};

// Normal priors of the logarithms.
struct GpPrior {
  Eigen::VectorXd weight_mean;  // per dimension
  double weight_sd = 1;
  double scale_mean = 0, scale_sd = 1;
  double noise_mean = -9, noise_sd = 2.5;
  double warp_sd = 0.3;  // of log a and log b, around 0; 0 for no warping
  static GpPrior of(const std::vector<bool>& choice);
};

class GaussianProcess {
 public:
  // Inputs [n, d] in unit coordinates (positions for choices), outputs [n] about standardised; `choice[j]` where
  // dimension j has no order.
  GaussianProcess(Eigen::MatrixXd x, Eigen::VectorXd y, std::vector<bool> choice, GpHyper hyper);

  // The hyper-parameters that are most probable, from `start`.
  static GpHyper fit(const Eigen::MatrixXd& x, const Eigen::VectorXd& y, const std::vector<bool>& choice,
                     const GpPrior& prior, const GpHyper& start, int max_evaluations);
  // Log of likelihood times prior, and its gradient by (log_weights..., log_scale, log_noise, log_a..., log_b...).
  static double log_posterior(const Eigen::MatrixXd& x, const Eigen::VectorXd& y, const std::vector<bool>& choice,
                              const GpPrior& prior, const GpHyper& hyper, Eigen::VectorXd* gradient);

  // Mean and variance of the function (without noise) at each row of `at`.
  void predict(const Eigen::MatrixXd& at, Eigen::VectorXd& mean, Eigen::VectorXd& variance) const;
  // The same at one point, with gradients by its coordinates (0 for choices).
  void predict(const Eigen::VectorXd& at, double& mean, double& variance, Eigen::VectorXd& mean_gradient,
               Eigen::VectorXd& variance_gradient) const;
  // Log density of each output given all others (Rasmussen and Williams, 5.12), summed.
  double leave_one_out() const;
  // With the mean at more points taken for their outputs: what is known once pending trials end as expected.
  GaussianProcess with_expected(const Eigen::MatrixXd& more) const;

  Eigen::Index size() const { return x_.rows(); }
  const GpHyper& hyper() const { return hyper_; }
  const Eigen::VectorXd& outputs() const { return y_; }

 private:
  Eigen::MatrixXd squared_distances(const Eigen::MatrixXd& at) const;  // [rows of at, n]

  Eigen::MatrixXd x_, warped_;
  Eigen::VectorXd y_;
  std::vector<bool> choice_;
  GpHyper hyper_;
  Eigen::VectorXd weights_;
  double scale_, mean_ = 0;
  Eigen::MatrixXd inverse_;  // of the covariance of outputs
  Eigen::VectorXd alpha_;    // inverse times outputs
};

}  // namespace deepseek::tune
