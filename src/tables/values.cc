#include "tables/values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/random.h"
#include "base/threads.h"

namespace deepseek::tables {

namespace {

constexpr size_t kBucket = 1 << 14;  // rows
constexpr uint64_t kMissing = 0x9e3779b97f4a7c15ULL;

bool is_text(arrow::Type::type id) {
  return id == arrow::Type::STRING || id == arrow::Type::BINARY || id == arrow::Type::LARGE_STRING ||
         id == arrow::Type::LARGE_BINARY;
}

}  // namespace

Result<Values> Values::make(const std::string& name, const Column& column, const std::string& wanted_by) {
  Values v;
  v.parts_ = parts_of(*column, std::max<int64_t>(1, column->length()));
  v.id_ = column->type()->id();
  v.width_ = is_text(v.id_) || v.id_ == arrow::Type::BOOL ? 0
             : arrow::is_fixed_width(v.id_)               ? column->type()->byte_width()
                                                          : -1;
  if (v.id_ == arrow::Type::DICTIONARY || v.width_ < 0 || v.width_ > 8)
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: column '{}' is {}, whose values are not compared; leave it out by `columns`",
                              wanted_by, name, column->type()->ToString()));
  return v;
}

void Values::add_hashes(std::vector<uint64_t>& rows) const {
  for (const Part& part : parts_)
    parallel_for(part.length, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        uint64_t& row = rows[static_cast<size_t>(part.begin + i)];
        row = hash_of(row, hash(part, i));
      }
    });
}

bool Values::equal(int64_t a, int64_t b) const {
  const auto [p, i] = find(a);
  const auto [q, j] = find(b);
  if (is_missing(*p, i) || is_missing(*q, j)) return is_missing(*p, i) && is_missing(*q, j);
  return is_text(id_) ? text(*p, i) == text(*q, j) : bits(*p, i) == bits(*q, j);
}

std::pair<const Part*, int64_t> Values::find(int64_t row) const {
  auto part = std::upper_bound(parts_.begin(), parts_.end(), row, [](int64_t r, const Part& p) { return r < p.begin; });
  --part;
  return {&*part, row - part->begin};
}

bool Values::is_missing(const Part& part, int64_t i) const {
  if (!part.valid(i)) return true;
  if (id_ == arrow::Type::DOUBLE) return std::isnan(part.values<double>()[i]);
  return id_ == arrow::Type::FLOAT && std::isnan(part.values<float>()[i]);
}

uint64_t Values::bits(const Part& part, int64_t i) const {
  if (id_ == arrow::Type::BOOL) {
    const int64_t at = part.data->offset + i;
    return (part.data->buffers[1]->data()[at >> 3] >> (at & 7)) & 1;
  }
  if (id_ == arrow::Type::DOUBLE) return std::bit_cast<uint64_t>(part.values<double>()[i] + 0.0);
  if (id_ == arrow::Type::FLOAT) return std::bit_cast<uint32_t>(part.values<float>()[i] + 0.0f);
  uint64_t value = 0;
  std::memcpy(&value, part.data->buffers[1]->data() + (part.data->offset + i) * width_, static_cast<size_t>(width_));
  return value;
}

std::string_view Values::text(const Part& part, int64_t i) const {
  const auto* bytes = part.data->buffers[2] ? reinterpret_cast<const char*>(part.data->buffers[2]->data()) : nullptr;
  const auto view = [&](const auto* offsets) {
    return std::string_view(bytes + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i]));
  };
  return id_ == arrow::Type::STRING || id_ == arrow::Type::BINARY ? view(part.values<int32_t>())
                                                                  : view(part.values<int64_t>());
}

uint64_t Values::hash(const Part& part, int64_t i) const {
  if (is_missing(part, i)) return kMissing;
  return is_text(id_) ? std::hash<std::string_view>()(text(part, i)) : splitmix64(bits(part, i));
}

Result<std::vector<int64_t>> first_equal(const arrow::Table& table, const std::vector<std::string>& names,
                                         const std::string& wanted_by) {
  std::vector<Values> columns;
  for (int c = 0; c < table.num_columns() && names.empty(); ++c) {
    DS_ASSIGN(Values values, Values::make(table.field(c)->name(), table.column(c), wanted_by));
    columns.push_back(std::move(values));
  }
  for (const std::string& name : names) {
    DS_ASSIGN(const int c, find_column(*table.schema(), name, wanted_by));
    DS_ASSIGN(Values values, Values::make(name, table.column(c), wanted_by));
    columns.push_back(std::move(values));
  }
  const auto rows = static_cast<size_t>(table.num_rows());
  std::vector<uint64_t> hashes(rows);
  for (const Values& values : columns) values.add_hashes(hashes);
  // Rows go by the high bits of their hash into buckets whose tables fit into the second-level cache. In a bucket they
  // stay in order, so that the first of equal rows comes first.
  const size_t buckets = std::clamp<size_t>(std::bit_ceil(rows / kBucket + 1), 1, 1 << 16);
  const int shift = 64 - std::bit_width(buckets) + 1;
  const auto bucket_of = [&](size_t row) { return buckets == 1 ? 0 : hashes[row] >> shift; };
  constexpr size_t kChunks = 32;
  std::vector<size_t> begin(kChunks * buckets + 1);  // by bucket, then by chunk of rows
  const auto chunk = [&](size_t c) { return c * rows / kChunks; };
  parallel_for(kChunks, 1, [&](int64_t from, int64_t to) {
    for (auto c = static_cast<size_t>(from); c < static_cast<size_t>(to); ++c)
      for (size_t row = chunk(c); row < chunk(c + 1); ++row) ++begin[bucket_of(row) * kChunks + c + 1];
  });
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<int64_t> order(rows), first(rows);
  std::vector<size_t> next(begin.begin(), begin.end() - 1);
  parallel_for(kChunks, 1, [&](int64_t from, int64_t to) {
    for (auto c = static_cast<size_t>(from); c < static_cast<size_t>(to); ++c)
      for (size_t row = chunk(c); row < chunk(c + 1); ++row)
        order[next[bucket_of(row) * kChunks + c]++] = static_cast<int64_t>(row);
  });
  parallel_for(static_cast<int64_t>(buckets), 1, [&](int64_t from, int64_t to) {
    std::vector<std::pair<uint64_t, int64_t>> slots;  // hash and row, -1 where there is none
    for (auto b = static_cast<size_t>(from); b < static_cast<size_t>(to); ++b) {
      const size_t first_row = begin[b * kChunks], last_row = begin[(b + 1) * kChunks];
      slots.assign(std::bit_ceil(2 * (last_row - first_row) + 1), {0, -1});
      const size_t all = slots.size() - 1;
      for (size_t i = first_row; i < last_row; ++i) {
        const int64_t row = order[i];
        const uint64_t hash = hashes[static_cast<size_t>(row)];
        size_t slot = hash & all;
        for (; slots[slot].second >= 0; slot = (slot + 1) & all) {
          const int64_t other = slots[slot].second;
          if (slots[slot].first != hash) continue;
          const auto same = [&](const Values& v) { return v.equal(other, row); };
          if (std::all_of(columns.begin(), columns.end(), same)) break;
        }
        if (slots[slot].second < 0) slots[slot] = {hash, row};
        first[static_cast<size_t>(row)] = slots[slot].second;
      }
    }
  });
  return first;
}

}  // namespace deepseek::tables
