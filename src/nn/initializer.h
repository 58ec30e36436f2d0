// Where layers' first weights come from. Element i of the k-th tensor is a function of (seed, k, i) alone, by the
// counter-based generator and by arithmetic without fused multiply-adds, so the same seed gives the same bits with
// any number of threads and any instruction set. Test: tests/nn/initializer_test.cc
#pragma once

#include <cstdint>
#include <utility>

#include "graph/tensor.h"

namespace deepseek::nn {

class Initializer {
 public:
  explicit Initializer(uint64_t seed) : seed_(seed) {}
  graph::Tensor uniform(graph::Dims dims, double bound);  // U(-bound, bound) on a grid of 2^-24 of its width
  // Box-Muller: elements 2j and 2j + 1 are r cos a and r sin a, with r and a of their two words.
  graph::Tensor normal(graph::Dims dims, double mean, double deviation);
  // The same as functions of the shape, drawn when they are called: for Module::register_parameter.
  auto uniform(double bound) {
    return [this, bound](graph::Dims dims) { return uniform(std::move(dims), bound); };
  }
  auto normal(double mean, double deviation) {
    return [this, mean, deviation](graph::Dims dims) { return normal(std::move(dims), mean, deviation); };
  }
  // For the random counter of one more module that draws masks: 52 bits, another number at each call. Weights don't
  // depend on how often it was called.
  uint64_t next_seed();

 private:
  friend class UnsetWeights;
  uint64_t seed_;
  uint32_t drawn_ = 0;  // tensors so far
  uint64_t seeds_ = 0;  // seeds so far
  bool draws_ = true;
};

inline auto filled(double value) {
  return [value](graph::Dims dims) { return graph::Tensor::full(DType::kF32, std::move(dims), value); };
}

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
