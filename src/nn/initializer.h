// Where layers' first weights come from. Element i of the k-th tensor is a function of (seed, k, i) alone, by the
// counter-based generator and by arithmetic without fused multiply-adds, so the same seed gives the same bits with
// any number of threads and any instruction set. Test: tests/nn/initializer_test.cc
#pragma once

#include <cstdint>

#include "graph/tensor.h"

namespace deepseek::nn {

class Initializer {
 public:
  explicit Initializer(uint64_t seed) : seed_(seed) {}
  graph::Tensor uniform(graph::Dims dims, double bound);  // U(-bound, bound) on a grid of 2^-24 of its width
  // Box-Muller: elements 2j and 2j + 1 are r cos a and r sin a, with r and a of their two words.
  graph::Tensor normal(graph::Dims dims, double mean, double deviation);

 private:
  friend class UnsetWeights;
  uint64_t seed_;
  uint32_t drawn_ = 0;  // tensors so far
  bool draws_ = true;
};

// The initializer that layers draw from when they are made; seeded with 0 at start. One per thread.
Initializer& default_initializer();
void manual_seed(uint64_t seed);

// While one lives, this thread's layers leave the weights that they would draw unset, and draw nothing. For models
// whose weights are loaded next, or only counted.
class UnsetWeights {
 public:
  UnsetWeights() : outer_(default_initializer().draws_) { default_initializer().draws_ = false; }
  ~UnsetWeights() { default_initializer().draws_ = outer_; }
  UnsetWeights(const UnsetWeights&) = delete;
  UnsetWeights& operator=(const UnsetWeights&) = delete;

 private:
  bool outer_;
};

}  // namespace deepseek::nn
