// What pages of reports share. Test: tests/base/html_test.cc
#pragma once

#include <string>
#include <string_view>

namespace deepseek {

// Fit for HTML and XML, also inside quotes: & < > " ' as entities; what isn't UTF-8, and control characters that XML
// forbids, as U+FFFD.
std::string html_escaped(std::string_view text);

// "<!DOCTYPE html>..." up to and with <h1>title</h1>: one style for all reports, light and dark, and `style`, more of
// CSS.
std::string page_head(std::string_view title, std::string_view style);

}  // namespace deepseek
