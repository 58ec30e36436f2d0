// What Gaussian processes know of a space's objective: coordinates, transformed outputs, constraints, and the
// improvement to expect. Test: tests/tune/sampler_test.cc
#pragma once

#include <optional>
#include <vector>

#include "tune/samplers/gp.h"
#include "tune/samplers/sampler.h"

namespace deepseek::tune {

// Points as rows of coordinates: numeric parameters by Parameter::to_unit, choices without order by position; what
// isn't active stands at 0.5 or -1.
class Encoding {
 public:
  explicit Encoding(const Space& space);
  Eigen::VectorXd encode(const Point& point) const;
  Point decode(const Eigen::VectorXd& row) const;
  Eigen::MatrixXd encode(const std::vector<Point>& points) const;
  const std::vector<bool>& choice() const { return choice_; }

 private:
  const Space& space_;
  std::vector<bool> choice_;
};

// Losses made fit for a Gaussian process: the worse half by rank onto a normal's upper half, so that a few huge values
// don't flatten the rest (as Vizier does: Song et al., 2024), the better half as it is, or in the logarithm where it
// spreads; then mean 0 and variance 1.
Eigen::VectorXd transformed(const std::vector<double>& losses);

// Log of the improvement that is expected below `best` (Ament et al., NeurIPS 2023), for a normal of this mean and
// deviation; optionally its derivatives by both.
double log_expected_improvement(double mean, double deviation, double best, double* by_mean = nullptr,
                                double* by_deviation = nullptr);

class Surrogate {
 public:
  // The objective's process, those of constraints (fulfilled where <= 0), and the loss to improve on; without one only
  // constraints count.
  Surrogate(GaussianProcess objective, std::vector<GaussianProcess> constraints, std::optional<double> best)
      : objective_(std::move(objective)), constraints_(std::move(constraints)), best_(best) {}
  // How many times its deviations the objective may be off; 1 at first.
  void set_doubt(double doubt) { doubt_ = doubt; }

  // Log of expected improvement times probability of being feasible, at each row.
  Eigen::VectorXd score(const Eigen::MatrixXd& rows) const;
  double score(const Eigen::VectorXd& row, Eigen::VectorXd& gradient) const;
  const GaussianProcess& objective() const { return objective_; }

 private:
  GaussianProcess objective_;
  std::vector<GaussianProcess> constraints_;
  std::optional<double> best_;
  double doubt_ = 1;
};

}  // namespace deepseek::tune
