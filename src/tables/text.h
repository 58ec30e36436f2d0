// Statistics of natural language. Characters are code points of UTF-8; letters beyond ASCII are in words, but neither
// upper nor lower case. Names and definitions are Featuretools' primitives. Test: tests/python/test_features.py
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepseek::tables {

struct TextStatistic {
  std::string name, doc;
  double (*measure)(std::string_view text);  // NaN where there is none
  double missing = 0;                        // of features of nothing
  bool whole = true;                         // a whole number
};
const std::vector<TextStatistic>& text_statistics();

}  // namespace deepseek::tables
