// What is in a table, as a page: types, missing values, distributions, correlations, outliers, relations to a target,
// warnings. Test: tests/python/test_report.py
#pragma once

#include <string>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

struct ReportOptions {
  std::string title;   // the file's name
  std::string target;  // the column to be predicted; empty: none
  int64_t rows = -1;   // of the whole table, where this one is a sample of it
};
struct Report {
  std::string html;  // one page that needs nothing else
  std::vector<std::string> warnings;
};
Result<Report> report(const Table& table, const ReportOptions& options);

}  // namespace deepseek::tables
