// All that it takes to read new files as a table model's inputs: what Dataset::source_spec() of its data says.
// Test: tests/tables/table_source_test.cc
#pragma once

#include <string>
#include <vector>

#include "tables/files.h"
#include "tables/pipeline.h"
#include "tables/targets.h"

namespace deepseek::tables {

// As JSON: {"source": "table", "pipeline": what Pipeline::save() writes, "columns": [[name, type], ...], "features":
// [name, ...], "targets": [{"column", "field", "type", "task", "classes"}, ...], "options": of files}
struct TableSpec {
  Pipeline pipeline;                     // fitted
  std::vector<Pipeline::Input> columns;  // raw ones that new files must have
  std::vector<std::string> features;     // of "x", in order
  std::vector<Target> targets;
  FileOptions options;

  Result<std::string> to_text() const;
  // Without "source", too. Errors: kDataCorrupt.
  static Result<TableSpec> from_text(const std::string& text);
};

// How files like the one of training data are read: text in the types that its columns had there, so that "007" stays
// text and 3 may be 3.5.
FileOptions options_like(const FileOptions& options, const std::string& path,
                         const std::vector<Pipeline::Input>& columns, const std::vector<Target>& targets);

// Where the table lacks columns, an error that names each, with the nearest that it has.
Status check_columns(const arrow::Table& table, const std::vector<Pipeline::Input>& columns, const std::string& path);

// Rows as the pipeline makes them, all of them: "x". `raw` is plain(), and may have further columns.
Result<graph::Tensor> inputs_of(const TableSpec& spec, const Table& raw, const std::string& path,
                                const NameRow& name_row);

}  // namespace deepseek::tables
