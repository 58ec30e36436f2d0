#include "tables/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/random.h"
#include "tables/columns.h"
#include "tables/values.h"

namespace deepseek::tables {

namespace {

using Parts = std::vector<std::vector<int64_t>>;

// n in whole numbers by the fractions; what is left over goes to the largest remainders, the first of equal ones.
std::vector<int64_t> shares(int64_t n, const std::vector<double>& fractions) {
  std::vector<int64_t> sizes;
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t p = 0; p < fractions.size(); ++p) {
    const double exact = fractions[p] * static_cast<double>(n), whole = std::floor(exact + 1e-9);
    sizes.push_back(static_cast<int64_t>(whole));
    remainders.emplace_back(whole - exact, p);
  }
  std::stable_sort(remainders.begin(), remainders.end());
  const int64_t left = n - std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  for (int64_t i = 0; i < left; ++i) ++sizes[remainders[static_cast<size_t>(i) % remainders.size()].second];
  return sizes;
}

// Rows in the order given, part after part.
void deal(const std::vector<int64_t>& rows, const std::vector<double>& fractions, Parts& parts) {
  int64_t begin = 0;
  const std::vector<int64_t> sizes = shares(static_cast<int64_t>(rows.size()), fractions);
  for (size_t p = 0; p < parts.size(); begin += sizes[p++])
    parts[p].insert(parts[p].end(), rows.begin() + begin, rows.begin() + begin + sizes[p]);
}

// Rows by the first row that equals them in the column, in order of that row.
Result<std::map<int64_t, std::vector<int64_t>>> groups_of(const arrow::Table& table, const std::string& column,
                                                          const std::string& option) {
  DS_ASSIGN(const std::vector<int64_t> first, first_equal(table, {column}, "split: " + option));
  std::map<int64_t, std::vector<int64_t>> groups;
  for (size_t row = 0; row < first.size(); ++row) groups[first[row]].push_back(static_cast<int64_t>(row));
  return groups;
}

std::vector<int64_t> shuffled(std::vector<int64_t> rows, uint64_t key) {
  const std::vector<int64_t> order = permutation(static_cast<int64_t>(rows.size()), key);
  std::vector<int64_t> result;
  for (const int64_t i : order) result.push_back(rows[static_cast<size_t>(i)]);
  return result;
}

// Large groups first, each to the part that lacks most rows; equal sizes in random order.
void deal_groups(const std::map<int64_t, std::vector<int64_t>>& groups, const std::vector<double>& fractions,
                 int64_t rows, uint64_t seed, Parts& parts) {
  std::vector<const std::vector<int64_t>*> list;
  for (const auto& [first, members] : groups) list.push_back(&members);
  std::vector<const std::vector<int64_t>*> order;
  for (const int64_t i : permutation(static_cast<int64_t>(list.size()), hash_of(seed, 3)))
    order.push_back(list[static_cast<size_t>(i)]);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->size() > b->size(); });
  const std::vector<int64_t> sizes = shares(rows, fractions);
  for (const auto* members : order) {
    size_t best = 0;
    const auto lacks = [&](size_t p) { return sizes[p] - static_cast<int64_t>(parts[p].size()); };
    for (size_t p = 1; p < parts.size(); ++p)
      if (lacks(p) > lacks(best)) best = p;
    parts[best].insert(parts[best].end(), members->begin(), members->end());
  }
}

Status deal_by_time(const arrow::Table& table, const std::string& name, const std::vector<double>& fractions,
                    Parts& parts) {
  DS_ASSIGN(const int c, find_column(*table.schema(), name, "split: time"));
  const Column& column = table.column(c);
  if (column->null_count() > 0)
    return invalid("split: time: column '{}' has {} missing values; fill or leave out these rows first", name,
                   column->null_count());
  DS_ASSIGN(const arrow::Datum sorted, call("sort_indices", {arrow::Datum(column)}));
  const auto* order = sorted.array()->GetValues<uint64_t>(1);
  DS_ASSIGN(const std::vector<int64_t> first, first_equal(table, {name}, "split: time"));
  const std::vector<int64_t> sizes = shares(table.num_rows(), fractions);
  int64_t begin = 0, wanted = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    wanted += sizes[p];
    int64_t end = p + 1 == parts.size() ? table.num_rows() : std::max(begin, wanted);
    const auto same = [&](int64_t a, int64_t b) { return first[order[a]] == first[order[b]]; };
    // A time that crosses the end goes where more of it is; the first and later parts don't share it.
    if (end > begin && end < table.num_rows() && same(end - 1, end)) {
      int64_t low = end, high = end;
      while (low > begin && same(low - 1, end)) --low;
      while (high < table.num_rows() && same(end, high)) ++high;
      end = end - low <= high - end && low > begin ? low : high;
    }
    for (int64_t i = begin; i < end; ++i) parts[p].push_back(static_cast<int64_t>(order[i]));
    begin = end;
  }
  return {};
}

}  // namespace

Result<std::vector<std::vector<int64_t>>> split(const arrow::Table& table, const SplitOptions& o) {
  double total = 0;
  for (const double f : o.fractions) {
    if (!(f > 0)) return invalid("split: fractions: {} is not above 0", f);
    total += f;
  }
  if (o.fractions.size() < 2 || std::fabs(total - 1) > 1e-6)
    return invalid("split: fractions: expected two or more that add up to 1, got a sum of {}", total);
  if (int(!o.stratify.empty()) + int(!o.group.empty()) + int(!o.time.empty()) > 1)
    return invalid("split: at most one of stratify, group and time");
  Parts parts(o.fractions.size());
  std::vector<int64_t> all(static_cast<size_t>(table.num_rows()));
  std::iota(all.begin(), all.end(), int64_t{0});
  if (!o.time.empty()) {
    DS_TRY(deal_by_time(table, o.time, o.fractions, parts));
  } else if (!o.group.empty()) {
    DS_ASSIGN(const auto groups, groups_of(table, o.group, "group"));
    deal_groups(groups, o.fractions, table.num_rows(), o.seed, parts);
  } else if (!o.stratify.empty()) {
    DS_ASSIGN(const auto classes, groups_of(table, o.stratify, "stratify"));
    // In one line, class after class: a cut of all of them cuts each, and rounding evens out over the classes.
    std::vector<std::pair<double, int64_t>> line;
    for (const auto& [first, members] : classes) {
      const auto rows = shuffled(members, hash_of(o.seed, 1, static_cast<uint64_t>(first)));
      for (size_t i = 0; i < rows.size(); ++i)
        line.emplace_back((static_cast<double>(i) + 0.5) / static_cast<double>(rows.size()), rows[i]);
    }
    const std::vector<int64_t> ties = permutation(table.num_rows(), hash_of(o.seed, 2));
    std::sort(line.begin(), line.end(), [&](const auto& a, const auto& b) {
      return std::make_pair(a.first, ties[static_cast<size_t>(a.second)]) <
             std::make_pair(b.first, ties[static_cast<size_t>(b.second)]);
    });
    for (size_t i = 0; i < line.size(); ++i) all[i] = line[i].second;
    deal(all, o.fractions, parts);
  } else {
    deal(shuffled(all, hash_of(o.seed, 0)), o.fractions, parts);
  }
  for (size_t p = 0; p < parts.size(); ++p) {
    if (parts[p].empty())
      return invalid("split: part {} of {} would be empty: {} rows{} are too few for a fraction of {}", p + 1,
                     parts.size(), table.num_rows(), o.group.empty() ? "" : " in such groups", o.fractions[p]);
    if (o.time.empty()) std::sort(parts[p].begin(), parts[p].end());
  }
  return parts;
}

Result<Table> take(const Table& table, const std::vector<int64_t>& rows) {
  arrow::Int64Builder builder;
  DS_ARROW(builder.AppendValues(rows));
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> indices, builder.Finish());
  DS_ASSIGN(const arrow::Datum taken, call("take", {arrow::Datum(table), arrow::Datum(indices)}));
  return taken.table();
}

Result<std::vector<Leak>> leaks(const std::vector<Table>& parts, const std::vector<std::string>& columns, bool near) {
  DS_ARROW_ASSIGN(const Table all, arrow::ConcatenateTables(parts));
  std::vector<int> part_of;
  for (size_t p = 0; p < parts.size(); ++p)
    part_of.insert(part_of.end(), static_cast<size_t>(parts[p]->num_rows()), static_cast<int>(p));
  DS_ASSIGN(const std::vector<int64_t> first, first_equal(*all, columns, "leaks"));
  std::map<std::pair<int, int>, Leak> found;
  const auto leak_of = [&](int own, int other) -> Leak& {
    Leak& leak = found[{own, other}];
    leak.part = own;
    leak.other = other;
    return leak;
  };
  std::vector<uint8_t> equal(first.size());
  for (size_t row = 0; row < first.size(); ++row) {
    const int own = part_of[row], other = part_of[static_cast<size_t>(first[row])];
    equal[row] = own != other;
    if (equal[row]) ++leak_of(own, other).rows;
  }
  if (near) {
    std::vector<std::string> names = columns;
    for (int c = 0; c < all->num_columns() && columns.empty(); ++c) names.push_back(all->field(c)->name());
    if (names.size() < 3) return invalid("leaks: near: expected 3 columns at least, got {}", names.size());
    // The earliest part that has the row's values in all columns but one.
    std::vector<int> earliest = part_of;
    for (size_t left_out = 0; left_out < names.size(); ++left_out) {
      std::vector<std::string> others = names;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(left_out));
      DS_ASSIGN(const std::vector<int64_t> like, first_equal(*all, others, "leaks"));
      for (size_t row = 0; row < like.size(); ++row)
        earliest[row] = std::min(earliest[row], part_of[static_cast<size_t>(like[row])]);
    }
    for (size_t row = 0; row < earliest.size(); ++row)
      if (!equal[row] && earliest[row] != part_of[row]) ++leak_of(part_of[row], earliest[row]).near;
  }
  std::vector<Leak> list;
  for (const auto& [pair, leak] : found) list.push_back(leak);
  return list;
}

}  // namespace deepseek::tables
