// A study as one page that needs nothing else: numbers, warnings, charts, all trials. Test: tests/tune/report_test.cc
#pragma once

#include <string>
#include <vector>

#include "tune/report/charts.h"
#include "tune/samplers/sampler.h"

namespace deepseek::tune {

// HTML with charts as SVG and a short script: a pointer over a mark shows its trial in all charts, a drag selects,
// heads of the table sort. All of it can be read without the script. Texts of the user's are escaped.
std::string report_page(const std::string& title, const Setting& setting, const std::vector<Trial>& trials);

// The same into a file, whole or not at all. Errors: kIo.
Status write_report(const std::string& path, const std::string& title, const Setting& setting,
                    const std::vector<Trial>& trials);

}  // namespace deepseek::tune
