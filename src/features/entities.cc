#include "features/entities.h"

#include <algorithm>
#include <numeric>

#include "base/threads.h"
#include "tables/columns.h"
#include "tables/values.h"

namespace deepseek::features {

namespace {

using tables::Column;
using tables::Part;

struct Named {
  const char* name;
  Schema schema;
};
constexpr Named kTypes[] = {
    {"number", {Logical::kDouble, kNumeric}},
    {"category", {Logical::kCategorical, kCategory}},
    {"ordinal", {Logical::kOrdinal, kCategory}},
    {"boolean", {Logical::kBoolean, 0}},
    {"datetime", {Logical::kDatetime, 0}},
    {"date_of_birth", {Logical::kDatetime, kDateOfBirth}},
    {"text", {Logical::kText, 0}},
};

// Whether text reads as natural language: three words and more on average, of the first thousand values.
Result<bool> reads_as_text(const Column& column) {
  DS_ASSIGN(const Column text, tables::as_text(column->Slice(0, 1000)));
  int64_t words = 0, values = 0;
  for (const auto& chunk : text->chunks()) {
    const auto& strings = static_cast<const arrow::StringArray&>(*chunk);
    for (int64_t i = 0; i < strings.length(); ++i) {
      if (strings.IsNull(i) || strings.GetView(i).empty()) continue;
      const std::string_view value = strings.GetView(i);
      ++values;
      words += 1 + std::count(value.begin(), value.end(), ' ');
    }
  }
  return values > 0 && words >= 3 * values;
}

Result<Schema> schema_of(const std::string& name, const Column& column, const std::string& wanted) {
  const arrow::DataType& type = *column->type();
  const bool missing = column->null_count() > 0;
  const bool text = type.id() == arrow::Type::STRING || type.id() == arrow::Type::LARGE_STRING ||
                    type.id() == arrow::Type::STRING_VIEW;
  if (!wanted.empty() && wanted != "number" && wanted != "boolean") {
    for (const Named& t : kTypes)
      if (wanted == t.name) return t.schema;
    return invalid(
        "column '{}': unknown type '{}'; there are number, category, ordinal, boolean, datetime, "
        "date_of_birth, text, ignore",
        name, wanted);
  }
  if (tables::holds_numbers(type) && wanted != "boolean") {
    if (!arrow::is_integer(type.id())) return Schema{Logical::kDouble, kNumeric};
    return Schema{missing ? Logical::kIntegerNullable : Logical::kInteger, kNumeric};
  }
  if (type.id() == arrow::Type::BOOL && wanted != "number")
    return Schema{missing ? Logical::kBooleanNullable : Logical::kBoolean, 0};
  if (!wanted.empty()) return invalid("column '{}' is {}, which is no {}", name, type.ToString(), wanted);
  if (arrow::is_date(type.id()) || type.id() == arrow::Type::TIMESTAMP) return Schema{Logical::kDatetime, 0};
  if (type.id() == arrow::Type::DICTIONARY) return Schema{Logical::kCategorical, kCategory};
  if (text) {
    DS_ASSIGN(const bool natural, reads_as_text(column));
    return natural ? Schema{Logical::kText, 0} : Schema{Logical::kCategorical, kCategory};
  }
  return Status(
      ErrorCode::kUnsupported,
      fmt::format("column '{}' is {}, of which no features are made; set its type to ignore", name, type.ToString()));
}

// Dictionaries as their values, so that keys compare.
Result<Column> plain(const Column& column) {
  if (column->type()->id() != arrow::Type::DICTIONARY) return column;
  return tables::cast_column(column, static_cast<const arrow::DictionaryType&>(*column->type()).value_type());
}

template <class F>
void each_integer(const arrow::ChunkedArray& column, F f) {  // f(row, value) where there is one
  for (const Part& part : tables::parts_of(column))
    for (int64_t i = 0; i < part.length; ++i)
      if (part.valid(i)) f(part.begin + i, part.values<int64_t>()[i]);
}

// Where each value stands in the unique values of `index`, -1: nowhere.
Result<std::vector<int32_t>> find_all(const Column& given, const Column& given_index, const std::string& what) {
  DS_ASSIGN(Column values, plain(given));
  DS_ASSIGN(Column index, plain(given_index));
  const bool integers = arrow::is_integer(index->type()->id());
  const auto common = integers ? arrow::int64() : index->type();
  Result<Column> same = tables::cast_column(values, common);
  if (!same.ok())
    return invalid("{} is {}, but the index it refers to is {}: {}", what, values->type()->ToString(),
                   index->type()->ToString(), same.status().message());
  values = *same;
  DS_ASSIGN(index, tables::cast_column(index, common));
  std::vector<int32_t> found(static_cast<size_t>(values->length()), -1);
  if (integers && index->length() > 0) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    each_integer(*index, [&](int64_t, int64_t v) { low = std::min(low, v), high = std::max(high, v); });
    // Dense integers: a table of rows. uint64 beyond int64 fail in the cast above.
    if (low <= high && static_cast<uint64_t>(high) - static_cast<uint64_t>(low) <
                           static_cast<uint64_t>(4 * index->length() + (1 << 16))) {
      std::vector<int32_t> row_of(static_cast<size_t>(high - low + 1), -1);
      each_integer(*index,
                   [&](int64_t row, int64_t v) { row_of[static_cast<size_t>(v - low)] = static_cast<int32_t>(row); });
      const std::vector<Part> parts = tables::parts_of(*values);
      parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
        for (auto p = static_cast<size_t>(begin); p < static_cast<size_t>(end); ++p) {
          const auto* x = parts[p].values<int64_t>();
          for (int64_t i = 0; i < parts[p].length; ++i)
            if (x[i] >= low && x[i] <= high && parts[p].valid(i))
              found[static_cast<size_t>(parts[p].begin + i)] = row_of[static_cast<size_t>(x[i] - low)];
        }
      });
      return found;
    }
  }
  std::shared_ptr<arrow::Array> set;
  if (index->num_chunks() == 0) {
    DS_ARROW_ASSIGN(set, arrow::MakeEmptyArray(common));
  } else {
    DS_ARROW_ASSIGN(set, arrow::Concatenate(index->chunks()));
  }
  const arrow::compute::SetLookupOptions lookup(arrow::Datum(set), arrow::compute::SetLookupOptions::SKIP);
  DS_ASSIGN(const Column rows, tables::map_column("index_in", values, &lookup));
  for (const Part& part : tables::parts_of(*rows))
    for (int64_t i = 0; i < part.length; ++i)
      if (part.valid(i)) found[static_cast<size_t>(part.begin + i)] = part.values<int32_t>()[i];
  return found;
}

// Whether each integer is greater than the one before, so that none repeats.
bool increases(const arrow::ChunkedArray& column) {
  if (column.type()->id() != arrow::Type::INT64) return false;
  bool sorted = true;
  int64_t last = INT64_MIN;
  for (const Part& part : tables::parts_of(column)) {
    const auto* x = part.values<int64_t>();
    for (int64_t i = 0; i < part.length && sorted; ++i) {
      sorted = x[i] > last || (part.begin + i == 0);
      last = x[i];
    }
  }
  return sorted;
}

std::vector<int32_t> inverse(const std::vector<int32_t>& order) {
  std::vector<int32_t> place(order.size());
  for (size_t i = 0; i < order.size(); ++i) place[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
  return place;
}

Result<Column> named_column(const Entities::Entity& entity, int field) {
  return entity.table->column(entity.fields[static_cast<size_t>(field)].column);
}

}  // namespace

// Each chunk of rows counts its owners, so that it knows where its rows go.
Groups group_by(const std::vector<int32_t>& owner, int64_t owners) {
  const auto n = static_cast<int64_t>(owner.size());
  // As many chunks as there are threads, but counters stay fewer than rows.
  const int64_t chunks = std::clamp<int64_t>(n / std::max<int64_t>(owners, 1), 1, num_threads());
  const auto first = [&](int64_t c) { return static_cast<size_t>(c * n / chunks); };
  std::vector<std::vector<int64_t>> next(static_cast<size_t>(chunks));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      std::vector<int64_t>& count = next[static_cast<size_t>(c)];
      count.assign(static_cast<size_t>(owners), 0);
      for (size_t i = first(c); i < first(c + 1); ++i)
        if (owner[i] >= 0) ++count[static_cast<size_t>(owner[i])];
    }
  });
  Groups groups;
  groups.begin.resize(static_cast<size_t>(owners) + 1);
  int64_t at = 0;
  for (size_t o = 0; o < static_cast<size_t>(owners); ++o) {
    groups.begin[o] = at;
    for (std::vector<int64_t>& count : next) {
      const int64_t rows = count[o];
      count[o] = at;
      at += rows;
    }
  }
  groups.begin.back() = at;
  groups.rows.resize(static_cast<size_t>(at));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      for (size_t i = first(c); i < first(c + 1); ++i)
        if (owner[i] >= 0)
          groups.rows[static_cast<size_t>(next[static_cast<size_t>(c)][static_cast<size_t>(owner[i])]++)] =
              static_cast<int32_t>(i);
  });
  return groups;
}

Result<std::vector<int64_t>> times_of(const std::string& name, const Column& column) {
  Column integers = column;
  const arrow::Type::type id = column->type()->id();
  if (arrow::is_date(id) || id == arrow::Type::TIMESTAMP) {
    Result<Column> stamps = tables::cast_column(column, arrow::timestamp(arrow::TimeUnit::NANO));
    if (!stamps.ok())
      return invalid("column '{}': times beyond the years 1678 to 2262 are not taken: {}", name,
                     stamps.status().message());
    integers = *stamps;
  } else if (!arrow::is_integer(id)) {
    return invalid("column '{}' is {}, expected dates, timestamps or integers for times", name,
                   column->type()->ToString());
  }
  DS_ASSIGN(integers, tables::cast_column(integers, arrow::int64()));
  std::vector<int64_t> times(static_cast<size_t>(column->length()), kNoTime);
  each_integer(*integers, [&](int64_t row, int64_t v) { times[static_cast<size_t>(row)] = v; });
  return times;
}

Status Entities::add(const std::string& name, const tables::Table& table, const EntityOptions& options) {
  if (name.empty()) return invalid("a table needs a name");
  for (const Entity& other : entities_)
    if (other.name == name) return invalid("there is a table '{}' already", name);
  if (table->num_rows() > INT32_MAX)
    return invalid("table '{}' has {} rows, at most {} are taken", name, table->num_rows(), INT32_MAX);
  Entity entity{.name = name, .options = options, .table = table};
  for (const auto& [column, type] : options.types)
    DS_TRY(tables::find_column(*table->schema(), column, fmt::format("types of table '{}'", name)).status());
  for (int c = 0; c < table->num_columns(); ++c) {
    const std::string& column = table->field(c)->name();
    const auto given = options.types.find(column);
    const std::string type = given == options.types.end() ? "" : given->second;
    if (type == "ignore" && column != options.index && column != options.time_index) continue;
    Result<Schema> schema = schema_of(column, table->column(c), type == "ignore" ? "" : type);
    if (!schema.ok()) return invalid("table '{}': {}", name, schema.status().message());
    entity.fields.push_back({column, *schema, c});
  }
  const auto field_of = [&](const std::string& column, const std::string& what) -> Result<int> {
    DS_TRY(tables::find_column(*table->schema(), column, fmt::format("{} of table '{}'", what, name)).status());
    for (size_t f = 0; f < entity.fields.size(); ++f)
      if (entity.fields[f].name == column) return static_cast<int>(f);
    return invalid("table '{}': column '{}' is to be ignored, but it is the {}", name, column, what);
  };
  if (options.index.empty()) {
    entity.fields.push_back({"", {Logical::kInteger, kIndex}, -1});
    entity.index = static_cast<int>(entity.fields.size()) - 1;
  } else {
    DS_ASSIGN(entity.index, field_of(options.index, "index"));
    Field& field = entity.fields[static_cast<size_t>(entity.index)];
    const Column column = table->column(field.column);
    if (column->null_count() > 0)
      return invalid("table '{}': {} values of its index '{}' are missing", name, column->null_count(), options.index);
    if (!increases(*column)) {
      DS_ASSIGN(const Column keys, plain(column));
      const auto unique = arrow::Table::Make(arrow::schema({arrow::field(options.index, keys->type())}), {keys});
      DS_ASSIGN(const std::vector<int64_t> first, tables::first_equal(*unique, {options.index}, "index"));
      for (size_t row = 0; row < first.size(); ++row)
        if (first[row] != static_cast<int64_t>(row))
          return invalid("table '{}': row {} has the same index '{}' as row {}; an index is unique", name, row + 1,
                         options.index, first[row] + 1);
    }
    field.schema.tags = kIndex;
  }
  if (!options.time_index.empty()) {
    DS_ASSIGN(entity.time, field_of(options.time_index, "time_index"));
    Field& field = entity.fields[static_cast<size_t>(entity.time)];
    const Column column = table->column(field.column);
    Result<std::vector<int64_t>> times = features::times_of(options.time_index, column);
    if (!times.ok()) return invalid("table '{}': {}", name, times.status().message());
    entity.times = std::move(times).value();
    entity.integer_time = arrow::is_integer(column->type()->id());
    field.schema.tags |= kTimeIndex;
    DS_ASSIGN(const Vector index, values(entity, entity.index));
    const auto before = [&](int32_t a, int32_t b) {
      const int64_t s = entity.times[static_cast<size_t>(a)], t = entity.times[static_cast<size_t>(b)];
      return s != t ? s < t : index[a] < index[b];
    };
    std::vector<int32_t> order(entity.times.size());
    std::iota(order.begin(), order.end(), 0);
    if (!std::is_sorted(order.begin(), order.end(), before)) {
      std::stable_sort(order.begin(), order.end(), before);
      entity.order = std::move(order);
      std::vector<int64_t> sorted;
      for (const int32_t row : entity.order) sorted.push_back(entity.times[static_cast<size_t>(row)]);
      entity.times = std::move(sorted);
    }
  }
  entities_.push_back(std::move(entity));
  return {};
}

Status Entities::relate(const std::string& child_name, const std::string& column, const std::string& parent_name) {
  DS_ASSIGN(const int child, find(child_name));
  DS_ASSIGN(const int parent, find(parent_name));
  Entity& from = entities_[static_cast<size_t>(child)];
  const Entity& to = entities_[static_cast<size_t>(parent)];
  if (to.options.index.empty())
    return invalid("table '{}' has no index that '{}.{}' could refer to; name it by index", parent_name, child_name,
                   column);
  if (reaches(parent, child))
    return invalid("'{}.{}' can't refer to table '{}', which refers to '{}' itself: relationships make no circles",
                   child_name, column, parent_name, child_name);
  DS_TRY(tables::find_column(*from.table->schema(), column, fmt::format("a relationship of table '{}'", child_name))
             .status());
  Relationship r{.child = child, .parent = parent};
  r.child_field = -1;
  for (size_t f = 0; f < from.fields.size(); ++f)
    if (from.fields[f].name == column) r.child_field = static_cast<int>(f);
  if (r.child_field < 0) return invalid("'{}.{}' is to be ignored, but it is a key", child_name, column);
  for (const Relationship& other : relationships_)
    if (other.child == child && other.child_field == r.child_field)
      return invalid("'{}.{}' refers to table '{}' already", child_name, column,
                     entities_[static_cast<size_t>(other.parent)].name);
  DS_ASSIGN(const Column keys, named_column(from, r.child_field));
  DS_ASSIGN(const Column index, named_column(to, to.index));
  DS_ASSIGN(r.parent_of, find_all(keys, index, fmt::format("'{}.{}'", child_name, column)));
  if (!to.order.empty()) {
    const std::vector<int32_t> place = inverse(to.order);
    for (int32_t& row : r.parent_of)
      if (row >= 0) row = place[static_cast<size_t>(row)];
  }
  if (!from.order.empty()) {
    std::vector<int32_t> sorted;
    for (const int32_t row : from.order) sorted.push_back(r.parent_of[static_cast<size_t>(row)]);
    r.parent_of = std::move(sorted);
  }
  r.children = group_by(r.parent_of, to.size());
  Schema& schema = from.fields[static_cast<size_t>(r.child_field)].schema;
  if (schema.logical == Logical::kText) schema = {Logical::kCategorical, kCategory};
  schema.tags |= kForeignKey;
  relationships_.push_back(std::move(r));
  return {};
}

bool Entities::reaches(int from, int to) const {
  if (from == to) return true;
  return std::any_of(relationships_.begin(), relationships_.end(),
                     [&](const Relationship& r) { return r.child == from && reaches(r.parent, to); });
}

Result<int> Entities::find(const std::string& name) const {
  std::string names;
  for (size_t e = 0; e < entities_.size(); ++e) {
    if (entities_[e].name == name) return static_cast<int>(e);
    names += (e > 0 ? ", " : "") + entities_[e].name;
  }
  return invalid("there is no table '{}', there are: {}", name, names.empty() ? "none" : names);
}

Result<Vector> Entities::values(int entity, int field) const {
  return values(entities_[static_cast<size_t>(entity)], field);
}

Result<Vector> Entities::values(const Entity& entity, int f) {
  const Field& field = entity.fields[static_cast<size_t>(f)];
  if (field.column < 0) {
    double* out = nullptr;
    Vector vector = make_vector(entity.size(), out);
    std::iota(out, out + entity.size(), 0.0);
    return vector;
  }
  Result<Vector> vector = features::from_arrow(field.name, entity.table->column(field.column), field.schema.logical);
  if (!vector.ok()) return invalid("table '{}': {}", entity.name, vector.status().message());
  if (entity.order.empty()) return vector;
  if (vector->text) {
    vector->rows = entity.order.data();
    return vector;
  }
  return gather(*vector, entity.order, 0);
}

Result<std::vector<int32_t>> Entities::rows_of(int e, const Column& instances) const {
  const Entity& entity = entities_[static_cast<size_t>(e)];
  if (entity.options.index.empty()) return invalid("table '{}' has no index to choose rows by", entity.name);
  DS_ASSIGN(const Column index, named_column(entity, entity.index));
  DS_ASSIGN(std::vector<int32_t> rows, find_all(instances, index, "instances"));
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] < 0) return invalid("instance {} is no '{}' of table '{}'", i + 1, entity.options.index, entity.name);
  if (entity.order.empty()) return rows;
  const std::vector<int32_t> place = inverse(entity.order);
  for (int32_t& row : rows) row = place[static_cast<size_t>(row)];
  return rows;
}

std::vector<int64_t> Entities::last_times(int e) const {
  const Entity& entity = entities_[static_cast<size_t>(e)];
  std::vector<int64_t> last = entity.times;
  last.resize(static_cast<size_t>(entity.size()), INT64_MIN);
  for (const Relationship& r : relationships_) {
    if (r.parent != e) continue;
    const std::vector<int64_t> of_children = last_times(r.child);
    for (size_t row = 0; row < r.parent_of.size(); ++row)
      if (r.parent_of[row] >= 0 && of_children[row] != kNoTime) {
        int64_t& t = last[static_cast<size_t>(r.parent_of[row])];
        t = std::max(t, of_children[row]);
      }
  }
  return last;
}

}  // namespace deepseek::features
