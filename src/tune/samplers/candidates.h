// The point with the highest score of a surrogate: candidates by arms, then uphill. Test: tests/tune/sampler_test.cc
#pragma once

#include <optional>

#include "base/random.h"
#include "tune/samplers/surrogate.h"

namespace deepseek::tune {

// A box of unit coordinates around a centre; outside of it there are no candidates.
struct Region {
  Eigen::VectorXd low, high;
  double share = 1;  // of the coordinates that a candidate changes
};

struct Candidate {
  Point point;
  double score;
};

// `best_first`: points to search around. None where no candidate is new and allowed.
std::optional<Candidate> best_candidate(const Setting& setting, const Seen& seen, const Encoding& encoding,
                                        const Surrogate& surrogate, const std::vector<Point>& best_first,
                                        const std::optional<Region>& region, Numbers& random);

}  // namespace deepseek::tune
