// Minimum of a smooth function in a box: L-BFGS whose direction leaves out coordinates that are held by a bound
// (Nocedal and Wright, 2006, chapter 7; projected as by Bertsekas, 1982). Test: tests/tune/gp_test.cc
#pragma once

#include <functional>

#include "tune/samplers/eigen.h"

namespace deepseek::tune {

struct Minimum {
  Eigen::VectorXd x;
  double value;
  int evaluations;
};
// `function` returns the value and writes the gradient; where it is not finite a shorter step is tried.
Minimum minimize(const std::function<double(const Eigen::VectorXd& x, Eigen::VectorXd& gradient)>& function,
                 Eigen::VectorXd x, const Eigen::VectorXd& low, const Eigen::VectorXd& high, int max_evaluations,
                 double tolerance = 1e-5);

}  // namespace deepseek::tune
