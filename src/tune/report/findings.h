// What a user would want to know of a study without looking for it. Test: tests/tune/report_test.cc
#pragma once

#include <string>
#include <vector>

#include "tune/report/view.h"

namespace deepseek::tune {

// Sentences, the most pressing first: nothing complete, few trials, failures and where they gather, a best value at the
// end of a range and a wider one, no progress, points tried twice.
std::vector<std::string> findings(const View& view);

}  // namespace deepseek::tune
