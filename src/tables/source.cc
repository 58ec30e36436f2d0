#include "tables/source.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "base/threads.h"
#include "tables/columns.h"
#include "tables/numbers.h"

namespace deepseek::tables {

namespace {

// The values of a batch's column, one after another: f(values, count), missing ones as NaN.
template <class F>
void each_part(const arrow::ChunkedArray& column, F f) {
  Numbers numbers;
  for (const Part& part : parts_of(column)) f(numbers.load(part), part.length);
}

// A sample of a stream of values, and how many there were: most values are passed over by a count alone (Li's algorithm
// L, 1994).
class Reservoir {
 public:
  std::vector<double> values;
  int64_t count = 0, missing = 0;
  void add(const double* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      if (x[i] != x[i]) {
        ++missing;
        continue;
      }
      if (++count < next_) continue;
      if (static_cast<int64_t>(values.size()) < kQuantileSample) {
        values.push_back(x[i]);
        next_ = count + 1;
        if (static_cast<int64_t>(values.size()) == kQuantileSample) skip();
      } else {
        values[static_cast<size_t>(bounded(random(), kQuantileSample))] = x[i];
        skip();
      }
    }
  }

 private:
  uint64_t random() { return splitmix64(state_++); }
  double uniform() { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; }
  void skip() {
    weight_ *= std::exp(std::log(uniform()) / static_cast<double>(kQuantileSample));
    next_ = count + static_cast<int64_t>(std::floor(std::log(uniform()) / std::log1p(-weight_))) + 1;
  }
  uint64_t state_ = 0x7265736572766f69;
  double weight_ = 1;
  int64_t next_ = 1;  // the number of the value that is taken next
};

}  // namespace

Result<std::unique_ptr<StreamSource>> StreamSource::make(OpenStream open) {
  auto source = std::make_unique<StreamSource>();
  DS_ASSIGN(const auto reader, open());
  source->schema_ = reader->schema();
  source->open_ = std::move(open);
  return source;
}

Status StreamSource::each(const std::function<Status(const Table&, int64_t)>& f) const {
  DS_ASSIGN(const auto reader, open_());
  int64_t first = 0;
  for (;;) {
    std::shared_ptr<arrow::RecordBatch> batch;
    DS_ARROW(reader->ReadNext(&batch));
    if (!batch) {
      rows_ = first;
      return {};
    }
    DS_ARROW_ASSIGN(const Table table, arrow::Table::FromRecordBatches(reader->schema(), {batch}));
    DS_TRY(f(table, first));
    first += batch->num_rows();
  }
}

Result<std::vector<Moments>> moments(const Source& source, const std::vector<int>& columns) {
  std::vector<Moments> all(columns.size());
  bool first = true;
  DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
    for (size_t c = 0; c < columns.size(); ++c) {
      const Moments m = moments(*batch->column(columns[c]));
      all[c] = first ? m : combine(all[c], m);
    }
    first = false;
    return {};
  }));
  return all;
}

Result<std::vector<std::vector<double>>> quantiles(const Source& source, const std::vector<int>& columns,
                                                   const std::vector<double>& q, const std::vector<double>& centers,
                                                   std::vector<int64_t>* missing) {
  if (missing) missing->assign(columns.size(), 0);
  std::vector<std::vector<double>> result(columns.size());
  if (const Table table = source.whole()) {
    for (size_t c = 0; c < columns.size(); ++c) {
      Column column = table->column(columns[c]);
      if (!centers.empty()) {
        DS_ASSIGN(const arrow::Datum shifted, call("subtract", {arrow::Datum(column), arrow::Datum(centers[c])}));
        DS_ASSIGN(column, map_column("abs", shifted.chunked_array()));
      }
      result[c] = quantiles(*column, q, missing ? &(*missing)[c] : nullptr);
    }
    return result;
  }
  const auto num_columns = static_cast<int64_t>(columns.size());
  const auto pass = [&](const auto& add) {  // add(column, values, count), columns side by side
    return source.each([&](const Table& batch, int64_t) -> Status {
      parallel_for(num_columns, 1, [&](int64_t begin, int64_t end) {
        std::vector<double> distances;
        for (auto c = static_cast<size_t>(begin); c < static_cast<size_t>(end); ++c)
          each_part(*batch->column(columns[c]), [&](const double* x, int64_t n) {
            if (!centers.empty()) {
              distances.resize(static_cast<size_t>(n));
              for (int64_t i = 0; i < n; ++i) distances[static_cast<size_t>(i)] = std::fabs(x[i] - centers[c]);
              x = distances.data();
            }
            add(c, x, n);
          });
      });
      return {};
    });
  };
  std::vector<Reservoir> reservoirs(columns.size());
  DS_TRY(pass([&](size_t c, const double* x, int64_t n) { reservoirs[c].add(x, n); }));
  std::vector<std::vector<Bracket>> brackets(columns.size());
  for (size_t c = 0; c < columns.size(); ++c) {
    Reservoir& r = reservoirs[c];
    if (missing) (*missing)[c] = r.missing;
    std::sort(r.values.begin(), r.values.end());
    for (const double share : q) brackets[c].push_back(bracket_of(r.values, share, r.count));
  }
  // Once, or again without bounds where a sample was unlucky.
  for (bool again = true; again;) {
    again = false;
    DS_TRY(pass([&](size_t c, const double* x, int64_t n) {
      if (result[c].empty())
        for (Bracket& bracket : brackets[c]) bracket.add(x, n);
    }));
    for (size_t c = 0; c < columns.size(); ++c) {
      if (!result[c].empty()) continue;
      std::vector<double> found;
      for (size_t b = 0; b < q.size(); ++b)
        if (const auto value = brackets[c][b].quantile(q[b], reservoirs[c].count)) found.push_back(*value);
      if (found.size() == q.size()) {
        result[c] = std::move(found);
      } else {
        brackets[c].assign(q.size(), {});
        again = true;
      }
    }
  }
  return result;
}

Result<std::vector<std::map<std::string, int64_t>>> value_counts(const Source& source,
                                                                 const std::vector<int>& columns) {
  std::vector<std::map<std::string, int64_t>> counts(columns.size());
  DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
    for (size_t c = 0; c < columns.size(); ++c) {
      const Column column = batch->column(columns[c]);
      DS_ASSIGN(const arrow::Datum counted, call("value_counts", {arrow::Datum(column)}));
      const auto pairs = std::static_pointer_cast<arrow::StructArray>(counted.make_array());
      const auto options = arrow::compute::CastOptions::Safe(arrow::utf8());
      DS_ASSIGN(const arrow::Datum cast, call("cast", {arrow::Datum(pairs->field(0))}, &options));
      const auto words = std::static_pointer_cast<arrow::StringArray>(cast.make_array());
      const auto numbers = std::static_pointer_cast<arrow::Int64Array>(pairs->field(1));
      const bool nan = arrow::is_floating(column->type()->id());
      for (int64_t i = 0; i < words->length(); ++i)
        if (words->IsValid(i) && !(nan && words->GetView(i) == "nan"))
          counts[c][words->GetString(i)] += numbers->Value(i);
    }
    return {};
  }));
  return counts;
}

Result<std::vector<int64_t>> missing_counts(const Source& source, const std::vector<int>& columns) {
  std::vector<int64_t> counts(columns.size());
  DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
    for (size_t c = 0; c < columns.size(); ++c) {
      const Column column = batch->column(columns[c]);
      counts[c] += arrow::is_floating(column->type()->id()) && holds_numbers(*column->type()) ? moments(*column).missing
                                                                                              : column->null_count();
    }
    return {};
  }));
  return counts;
}

Result<int64_t> count_rows(const Source& source) {
  if (const Table table = source.whole()) return table->num_rows();
  if (source.known_rows() >= 0) return source.known_rows();
  int64_t rows = 0;
  DS_TRY(source.each([&](const Table& batch, int64_t) -> Status {
    rows += batch->num_rows();
    return {};
  }));
  return rows;
}

Result<Table> sample(const Source& source, int64_t most) {
  DS_ASSIGN(const int64_t rows, count_rows(source));
  if (const Table table = source.whole(); table && rows <= most) return table;
  std::vector<Table> parts;
  const int64_t wanted = std::min(rows, most);
  int64_t k = 0;  // of the wanted ones
  DS_TRY(source.each([&](const Table& batch, int64_t first) -> Status {
    arrow::Int64Builder builder;
    for (; k < wanted && k * rows / wanted < first + batch->num_rows(); ++k)
      DS_ARROW(builder.Append(k * rows / wanted - first));
    if (builder.length() == 0) return {};
    DS_ARROW_ASSIGN(const std::shared_ptr<arrow::Array> indices, builder.Finish());
    DS_ASSIGN(const arrow::Datum taken, call("take", {arrow::Datum(batch), arrow::Datum(indices)}));
    parts.push_back(taken.table());
    return {};
  }));
  return from_arrow(arrow::ConcatenateTables(parts));
}

}  // namespace deepseek::tables
