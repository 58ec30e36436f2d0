// Related tables: what each column is and is for, and which rows belong to which. Test: tests/features/entities_test.cc
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "features/vector.h"

namespace deepseek::features {

// Rows by the number of what they belong to: those of i are rows[begin[i]] .. rows[begin[i + 1]], in order.
struct Groups {
  std::vector<int64_t> begin;
  std::vector<int32_t> rows;
};
// Of the owner of each row, below `owners`; -1: none.
Groups group_by(const std::vector<int32_t>& owner, int64_t owners);

struct EntityOptions {
  std::string index;       // a column of unique values, which other tables may refer to; empty: none
  std::string time_index;  // a column that says when a row became known: dates, timestamps or integers; empty: always
  // What columns are, where that is not what it looks like: number, category, ordinal, boolean, datetime,
  // date_of_birth, text, ignore. By default text of three words and more is natural language, other text categories.
  std::map<std::string, std::string> types;
};

class Entities {
 public:
  struct Field {
    std::string name;
    Schema schema;
    int column = -1;  // of the table; -1: the row's number, for tables without an index
  };
  struct Entity {
    std::string name;
    EntityOptions options;
    tables::Table table;
    std::vector<Field> fields;
    int index = -1, time = -1;   // of fields
    std::vector<int32_t> order;  // rows of the table by time, then by index; empty: as they are
    std::vector<int64_t> times;  // of rows in that order, in nanoseconds, or the time index's integers; empty: none
    bool integer_time = false;
    int64_t size() const { return table->num_rows(); }
  };
  // A column of `child` that names a row of `parent` by its index.
  struct Relationship {
    int child = 0, child_field = 0, parent = 0;
    std::vector<int32_t> parent_of;  // rows of the parent by row of the child, both in order of time; -1: none
    Groups children;                 // rows of the child by row of the parent
  };

  // Adds a table. Errors name the column: an index that repeats or is missing, a time index of another type.
  Status add(const std::string& name, const tables::Table& table, const EntityOptions& options);
  // Rows of the child whose value the parent does not have belong to none.
  Status relate(const std::string& child, const std::string& column, const std::string& parent);

  const std::vector<Entity>& entities() const { return entities_; }
  const std::vector<Relationship>& relationships() const { return relationships_; }
  Result<int> find(const std::string& name) const;
  // A field's values in order of time.
  Result<Vector> values(int entity, int field) const;
  // Rows, in order of time, that have these values of the index; an error names the first that none has.
  Result<std::vector<int32_t>> rows_of(int entity, const tables::Column& instances) const;
  // The latest time of each row and of those that refer to it.
  std::vector<int64_t> last_times(int entity) const;

 private:
  static Result<Vector> values(const Entity& entity, int field);
  bool reaches(int from, int to) const;  // by references

  std::vector<Entity> entities_;
  std::vector<Relationship> relationships_;
};

// Times as integers: nanoseconds of dates and timestamps, or the integers themselves; missing ones are the latest of
// all.
Result<std::vector<int64_t>> times_of(const std::string& name, const tables::Column& column);
constexpr int64_t kNoTime = INT64_MAX;

}  // namespace deepseek::features
