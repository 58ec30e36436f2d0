// One sample of CTC, shared by the reference kernel and the CPU's. Test: tests/ops/ctc_test.cc
#pragma once

#include <cstdint>
#include <vector>

namespace deepseek::ops {

// -log of the probability of all alignments of `extended` (the target with blanks around each label) with `steps` rows
// of log probabilities, `step` elements apart; infinity where no alignment fits. Its derivative by log_p is added to
// `grad`, laid out as log_p; nothing is added where the loss is infinite.
double ctc_sample(const double* log_p, int64_t step, int64_t steps, std::vector<int64_t> extended, int64_t blank,
                  double* grad);

}  // namespace deepseek::ops
