// Tables in files: CSV, JSON lines, Parquet, Arrow IPC (Feather), whole or as a stream of batches that is never whole
// in memory. What is in them is validated before it is given out (guards.h). Test: tests/tables/files_test.cc
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tables/arrow.h"

namespace deepseek::tables {

struct FileOptions {
  // csv, tsv, jsonl, parquet or arrow; empty: by the file's suffix (.csv, .tsv, .txt, .jsonl, .ndjson, .json, .parquet,
  // .pq, .arrow, .feather, .ipc). CSV and JSON may be compressed: .gz, .bz2, .zst, .lz4.
  std::string format;
  // Types of columns by name, where what is inferred from the first block is not wanted: int64, double, string,
  // timestamp[us] ...
  std::map<std::string, std::string> types;
  // Only these, in this order; empty: all.
  std::vector<std::string> columns;
  std::string delimiter = ",";     // CSV: one character; a tab for .tsv
  bool header = true;              // CSV: the first row has the names; otherwise they are f0, f1, ...
  std::string encoding = "utf-8";  // of text: any that iconv knows, latin1, cp1252, utf-16 ...
  // CSV: what else than an empty field is a missing value.
  std::vector<std::string> null_values = {"NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?"};
};

// Errors name the file, and for text the row: what was expected, what stands there.
Result<Table> read_table(const std::string& path, const FileOptions& options = {});
// Batches of a file as they are asked for; CSV's types are those of the first megabyte unless options say more.
Result<std::shared_ptr<arrow::RecordBatchReader>> open_table(const std::string& path, const FileOptions& options = {});

// csv, tsv, jsonl, parquet or arrow, by the options or the file's suffix; empty where neither says.
std::string format_of(const std::string& path, const FileOptions& options = {});
// Whether the file's format is text, which takes long to read.
bool is_text_file(const std::string& path, const FileOptions& options = {});

// Written to a temporary name and renamed, so that `path` is never half a file. Formats as for reading, compressed
// only where the format itself compresses (Parquet: snappy).
Status write_table(const arrow::Table& table, const std::string& path, const FileOptions& options = {});

// The same of tables that come one after another, all of one schema: produce() is given what writes one.
using WriteTable = std::function<Status(const Table&)>;
Status write_tables(const std::string& path, const FileOptions& options,
                    const std::function<Status(const WriteTable&)>& produce);

}  // namespace deepseek::tables
