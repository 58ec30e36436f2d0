// What stands between files of others and Arrow: text is looked at before Arrow's parsers, which trust it, get it; what
// a format gives is validated before anybody reads it; rows longer than a block are read with larger blocks; and all of
// it is allocated from a pool that ends before the memory does. Test: tests/tables/hostile_test.cc
#pragma once

#include <arrow/api.h>
#include <arrow/io/interfaces.h>

#include <functional>
#include <memory>

namespace deepseek::tables {

// Arrow's default pool, up to nine tenths of the machine's memory, and of what is free for much at once: claims beyond
// are errors.
arrow::MemoryPool* capped_pool();

// JSON lines as they pass by: each an object that ends on its line, no deeper than 64. Errors name the line.
std::shared_ptr<arrow::io::InputStream> checked_json_lines(std::shared_ptr<arrow::io::InputStream> stream);

// Batches of which each offset, length and value is as its type wants it, or an error.
std::shared_ptr<arrow::RecordBatchReader> validated(std::shared_ptr<arrow::RecordBatchReader> inner);

// A reader of text in blocks, by `open`: of so many bytes, and of this schema where one is known. Where a row is longer
// than a block it opens the text again, with blocks eight times as large up to kLongestRow, and goes on where it was.
constexpr int64_t kBlock = int64_t{1} << 20, kLongestRow = int64_t{1} << 26;
using OpenBlocks = std::function<arrow::Result<std::shared_ptr<arrow::RecordBatchReader>>(
    int64_t block, const std::shared_ptr<arrow::Schema>& schema)>;
arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> growing(OpenBlocks open);
int64_t larger(int64_t block);  // the next size
// Whether an error says that a row is longer than a block.
bool is_long_row(const arrow::Status& status);
// It with what to do.
arrow::Status explained(const arrow::Status& status);

}  // namespace deepseek::tables
