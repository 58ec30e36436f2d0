// Eigen on the calling thread alone: the matrices here are small, and a suggestion must not wait for a pool.
#pragma once

#ifndef EIGEN_DONT_PARALLELIZE
#define EIGEN_DONT_PARALLELIZE
#endif
#include <Eigen/Dense>
