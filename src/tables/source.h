// Training data as steps learn from it: a table, or batches of one that is larger than memory, seen as often as needed.
// Test: tests/python/test_stream.py
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tables/statistics.h"

namespace deepseek::tables {

class Source {
 public:
  virtual ~Source() = default;
  virtual const arrow::Schema& schema() const = 0;
  // f(batch, number of its first row), in order. What f returns wrong ends it.
  virtual Status each(const std::function<Status(const Table&, int64_t)>& f) const = 0;
  // The table where it is whole in memory, else null.
  virtual Table whole() const { return nullptr; }
  // How many rows a first time through all of it found; -1: nobody went through it yet.
  int64_t known_rows() const { return rows_; }

 protected:
  mutable int64_t rows_ = -1;
};

// The columns of a source that a step wants to see whole; the error names the step.
inline Result<Table> whole_table(const Source& source, const std::string& what) {
  if (Table table = source.whole()) return table;
  return Status(ErrorCode::kUnsupported,
                what + " needs all rows in memory at once; read the table whole, or leave it out");
}

class TableSource : public Source {
 public:
  explicit TableSource(Table table) : table_(std::move(table)) {}
  const arrow::Schema& schema() const override { return *table_->schema(); }
  Status each(const std::function<Status(const Table&, int64_t)>& f) const override { return f(table_, 0); }
  Table whole() const override { return table_; }

 private:
  Table table_;
};

// Batches of a stream that can be opened again.
using OpenStream = std::function<Result<std::shared_ptr<arrow::RecordBatchReader>>()>;
class StreamSource : public Source {
 public:
  static Result<std::unique_ptr<StreamSource>> make(OpenStream open);
  const arrow::Schema& schema() const override { return *schema_; }
  Status each(const std::function<Status(const Table&, int64_t)>& f) const override;

 private:
  OpenStream open_;
  std::shared_ptr<arrow::Schema> schema_;
};

// Statistics of columns by number, all of them in one pass, or two for quantiles of streams. Quantiles are exact there
// too: a first pass samples, a second one copies what lies around them.
Result<std::vector<Moments>> moments(const Source& source, const std::vector<int>& columns);
// centers: of |x - center| instead of x; empty: of x. missing: if not null, becomes the missing values of each column.
Result<std::vector<std::vector<double>>> quantiles(const Source& source, const std::vector<int>& columns,
                                                   const std::vector<double>& q,
                                                   const std::vector<double>& centers = {},
                                                   std::vector<int64_t>* missing = nullptr);
// How often each value occurs, as text; missing ones are left out.
Result<std::vector<std::map<std::string, int64_t>>> value_counts(const Source& source, const std::vector<int>& columns);
// Nulls, and NaN of floats.
Result<std::vector<int64_t>> missing_counts(const Source& source, const std::vector<int>& columns);
// At most so many rows, evenly spaced.
Result<Table> sample(const Source& source, int64_t rows);
Result<int64_t> count_rows(const Source& source);

}  // namespace deepseek::tables
