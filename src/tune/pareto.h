// Trade-offs between several losses. Test: tests/tune/study_test.cc
#pragma once

#include <cstddef>
#include <vector>

namespace deepseek::tune {

// Positions of the points [n][objectives] that no other is at least as small as in all and smaller in one, in order;
// equal points stay together.
std::vector<size_t> pareto_front(const std::vector<std::vector<double>>& losses);

// Volume that the points dominate below `reference` (While et al., 2012: WFG); points that don't lie below it add
// nothing.
double hypervolume(const std::vector<std::vector<double>>& losses, const std::vector<double>& reference);

}  // namespace deepseek::tune
