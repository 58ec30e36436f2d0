// Points that fill the unit cube evenly. Test: tests/tune/sampler_test.cc
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace deepseek::tune {

// In (0, 1), a function of its arguments alone.
std::vector<double> random_unit(size_t n, uint64_t seed, uint64_t number, uint64_t stream);

// Sobol's sequence with Owen's scrambling by the seed. Not for several threads at once: it keeps where it stands.
class Sobol {
 public:
  std::vector<double> point(size_t dimensions, uint64_t index, uint64_t seed) const;

 private:
  struct Engine;
  mutable std::shared_ptr<Engine> engine_;
};

}  // namespace deepseek::tune
