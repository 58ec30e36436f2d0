// Rows that equal an earlier one. Each row gets a hash of its columns, in which missing values equal one another; rows
// of the same hash are then compared value by value.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/threads.h"
#include "tables/edit.h"
#include "tables/numbers.h"
#include "tables/step.h"

namespace deepseek::tables {

namespace {

uint64_t mix(uint64_t x) {  // the end of splitmix64 (Steele, Lea and Flood, 2014)
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
constexpr uint64_t kMissing = 0x9e3779b97f4a7c15ULL;

bool is_text(arrow::Type::type id) {
  return id == arrow::Type::STRING || id == arrow::Type::BINARY || id == arrow::Type::LARGE_STRING ||
         id == arrow::Type::LARGE_BINARY;
}

// One value of a column as a number that is equal where values are, or as text.
class Values {
 public:
  // kUnsupported for nested types.
  static Result<Values> make(const std::string& name, const Column& column) {
    Values v;
    v.parts_ = parts_of(*column, std::max<int64_t>(1, column->length()));
    v.id_ = column->type()->id();
    v.width_ = is_text(v.id_) || v.id_ == arrow::Type::BOOL ? 0
               : arrow::is_fixed_width(v.id_)               ? column->type()->byte_width()
                                                            : -1;
    if (v.id_ == arrow::Type::DICTIONARY || v.width_ < 0 || v.width_ > 8)
      return Status(
          ErrorCode::kUnsupported,
          fmt::format("duplicates: column '{}' is {}, whose values are not compared; leave it out by `columns`", name,
                      column->type()->ToString()));
    return v;
  }
  // Adds the column's hashes to those of the rows.
  void add_hashes(std::vector<uint64_t>& rows) const {
    for (const Part& part : parts_)
      parallel_for(part.length, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          uint64_t& row = rows[static_cast<size_t>(part.begin + i)];
          row = mix(row * 0x9e3779b97f4a7c15ULL + hash(part, i));
        }
      });
  }
  bool equal(int64_t a, int64_t b) const {
    const auto [p, i] = find(a);
    const auto [q, j] = find(b);
    if (is_missing(*p, i) || is_missing(*q, j)) return is_missing(*p, i) && is_missing(*q, j);
    return is_text(id_) ? text(*p, i) == text(*q, j) : bits(*p, i) == bits(*q, j);
  }

 private:
  std::pair<const Part*, int64_t> find(int64_t row) const {
    auto part =
        std::upper_bound(parts_.begin(), parts_.end(), row, [](int64_t r, const Part& p) { return r < p.begin; });
    --part;
    return {&*part, row - part->begin};
  }
  bool is_missing(const Part& part, int64_t i) const {
    if (!part.valid(i)) return true;
    if (id_ == arrow::Type::DOUBLE) return std::isnan(part.values<double>()[i]);
    return id_ == arrow::Type::FLOAT && std::isnan(part.values<float>()[i]);
  }
  uint64_t bits(const Part& part, int64_t i) const {
    if (id_ == arrow::Type::BOOL) {
      const int64_t at = part.data->offset + i;
      return (part.data->buffers[1]->data()[at >> 3] >> (at & 7)) & 1;
    }
    // Both zeros are equal.
    if (id_ == arrow::Type::DOUBLE) return std::bit_cast<uint64_t>(part.values<double>()[i] + 0.0);
    if (id_ == arrow::Type::FLOAT) return std::bit_cast<uint32_t>(part.values<float>()[i] + 0.0f);
    uint64_t value = 0;
    std::memcpy(&value, part.data->buffers[1]->data() + (part.data->offset + i) * width_, static_cast<size_t>(width_));
    return value;
  }
  std::string_view text(const Part& part, int64_t i) const {
    const auto* bytes = part.data->buffers[2] ? reinterpret_cast<const char*>(part.data->buffers[2]->data()) : nullptr;
    const auto view = [&](const auto* offsets) {
      return std::string_view(bytes + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i]));
    };
    return id_ == arrow::Type::STRING || id_ == arrow::Type::BINARY ? view(part.values<int32_t>())
                                                                    : view(part.values<int64_t>());
  }
  uint64_t hash(const Part& part, int64_t i) const {
    if (is_missing(part, i)) return kMissing;
    return is_text(id_) ? std::hash<std::string_view>()(text(part, i)) : mix(bits(part, i) + 1);
  }

  std::vector<Part> parts_;
  arrow::Type::type id_ = arrow::Type::NA;
  int32_t width_ = 0;  // bytes of a value
};

class Duplicates : public Step {
 public:
  std::string kind() const override { return "duplicates"; }
  void describe(OptionTable& t) override {
    t.field("columns", columns_, {.doc = "rows are equal if these are; empty: all. The first of equal rows stays"});
  }
  Status fit(const arrow::Table& table) override {
    DS_ASSIGN(const std::vector<uint8_t> keep, first_of_equals(table));
    rows_ = static_cast<int64_t>(keep.size());
    found_ = std::count(keep.begin(), keep.end(), 0);
    return {};
  }
  Result<Table> transform(const Table& table, bool fitting) const override {
    if (!fitting) return table;
    DS_ASSIGN(const std::vector<uint8_t> keep, first_of_equals(*table));
    return std::count(keep.begin(), keep.end(), 0) == 0 ? table : keep_rows(table, keep);
  }
  nlohmann::json state() const override { return nlohmann::json::object(); }
  Status set_state(const nlohmann::json&) override { return {}; }
  std::vector<std::string> notes() const override {
    if (found_ == 0) return {};
    return {fmt::format("{} of {} rows equal an earlier one, left out", found_, rows_)};
  }

 private:
  Result<std::vector<uint8_t>> first_of_equals(const arrow::Table& table) const {
    std::vector<Values> columns;
    for (int c = 0; c < table.num_columns() && columns_.empty(); ++c) {
      DS_ASSIGN(Values values, Values::make(table.field(c)->name(), table.column(c)));
      columns.push_back(std::move(values));
    }
    for (const std::string& name : columns_) {
      DS_ASSIGN(const int c, find_column(*table.schema(), name, "duplicates: columns"));
      DS_ASSIGN(Values values, Values::make(name, table.column(c)));
      columns.push_back(std::move(values));
    }
    const auto rows = static_cast<size_t>(table.num_rows());
    std::vector<uint64_t> hashes(rows);
    for (const Values& values : columns) values.add_hashes(hashes);
    // Open addressing over row numbers.
    const size_t slots = std::bit_ceil(std::max<size_t>(16, 2 * rows)), all = slots - 1;
    std::vector<int64_t> table_of(slots, -1);
    std::vector<uint8_t> keep(rows, 1);
    for (size_t row = 0; row < rows; ++row) {
      size_t slot = hashes[row] & all;
      for (; table_of[slot] >= 0; slot = (slot + 1) & all) {
        const int64_t other = table_of[slot];
        if (hashes[static_cast<size_t>(other)] != hashes[row]) continue;
        const auto same = [&](const Values& v) { return v.equal(other, static_cast<int64_t>(row)); };
        if (std::all_of(columns.begin(), columns.end(), same)) break;
      }
      if (table_of[slot] >= 0)
        keep[row] = 0;
      else
        table_of[slot] = static_cast<int64_t>(row);
    }
    return keep;
  }

  std::vector<std::string> columns_;
  int64_t rows_ = 0, found_ = 0;
};

}  // namespace

std::unique_ptr<Step> make_duplicates() { return std::make_unique<Duplicates>(); }

}  // namespace deepseek::tables
