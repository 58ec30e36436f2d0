// What `deepseek data` does with files, each a function: cleaning, splitting, reports, a pipeline as a query. They say
// what they do by hooks and print nothing. Test: tests/python/test_tables.py, tests/python/test_stream.py
#pragma once

#include <functional>
#include <string>

#include "tables/files.h"
#include "tables/split.h"

namespace deepseek::tables {

struct JobHooks {
  std::function<void(const std::string&)> message;  // a line or more, without the last line break
  // done of total (0: not known), and what of; false where it should stop.
  std::function<bool(int64_t done, int64_t total, const std::string& what)> progress;
};

struct CleanJob {
  std::string steps;  // a YAML file of steps to be fitted on the table, or a fitted pipeline, .json
  std::string file;
  std::string output, save;  // the result and the fitted pipeline, where they are wanted
  bool stream = false;       // batch by batch; a file of more than a quarter of the memory is in any case
};
Status clean_file(const CleanJob& job, const FileOptions& options, const JobHooks& hooks);

// Parts train, validation and test in a folder, in the file's format, and warnings of rows that are in two of them.
Status split_file(const std::string& file, const FileOptions& options, const SplitOptions& how,
                  const std::string& folder, const JobHooks& hooks);

// A page on what is in a file; of one larger than an eighth of the memory a sample is shown. output: empty for the
// file's name with .html.
Status report_on_file(const std::string& file, const FileOptions& options, const std::string& target,
                      const std::string& output, const JobHooks& hooks);

// A fitted pipeline as a query.
Result<std::string> sql_of_file(const std::string& file, const std::string& dialect, const std::string& table);

// Of `column=type` texts.
Status parse_types(const std::vector<std::string>& types, FileOptions& options);
// The steps of pipelines with their options, as text.
std::string steps_text();

}  // namespace deepseek::tables
