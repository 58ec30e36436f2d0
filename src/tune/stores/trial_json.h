// Parts of a trial as JSON text. Invariant: every double comes back, bit for bit but for NaN's payload; what JSON has
// no number for is "nan", "inf" or "-inf". Readers trust nothing: what isn't such a text is kDataCorrupt. Test:
// tests/tune/store_test.cc
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tune/trial.h"

namespace deepseek::tune {

std::string numbers_text(const std::vector<double>& numbers);  // [0.5, "nan"]
Result<std::vector<double>> parse_numbers(std::string_view text);
std::string reports_text(const std::vector<Report>& reports);  // [[step, value], ...]
Result<std::vector<Report>> parse_reports(std::string_view text);

}  // namespace deepseek::tune
