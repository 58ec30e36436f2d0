#include "tables/matrix.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/threads.h"
#include "tables/columns.h"
#include "tables/selection.h"

namespace deepseek::tables {
namespace {

using Type = arrow::Type;

// The type in which a model's pipeline sees a column of `type`.
std::shared_ptr<arrow::DataType> real_type(const std::shared_ptr<arrow::DataType>& type) {
  if (arrow::is_integer(type->id()) || arrow::is_decimal(type->id())) return arrow::float64();
  return type->id() == Type::HALF_FLOAT ? arrow::float32() : type;
}

std::shared_ptr<arrow::DataType> plain_type(const std::shared_ptr<arrow::DataType>& type) {
  if (type->id() == Type::STRING_VIEW || type->id() == Type::LARGE_STRING) return arrow::utf8();
  if (type->id() != Type::DICTIONARY) return type;
  return plain_type(static_cast<const arrow::DictionaryType&>(*type).value_type());
}

Result<Table> with_types(const Table& table,
                         std::shared_ptr<arrow::DataType> (*wanted)(const std::shared_ptr<arrow::DataType>&)) {
  Table result = table->ReplaceSchemaMetadata(nullptr);
  for (int c = 0; c < table->num_columns(); ++c) {
    const auto& type = table->field(c)->type();
    const auto as = wanted(type);
    if (as->Equals(type)) continue;
    const auto options = arrow::compute::CastOptions::Unsafe(as);  // integers beyond 2^53 are rounded
    Result<Column> column = map_column("cast", table->column(c), &options);
    if (!column.ok())
      return std::move(column).status().note(
          fmt::format("while column '{}' of {} becomes {}", table->field(c)->name(), type->ToString(), as->ToString()));
    DS_ASSIGN(result, set_column(result, c, *column));
  }
  return result;
}

std::string what_helps(const arrow::DataType& type) {
  if (holds_text(type)) return "add the step one_hot, or ordinal, target, hashing, types or text";
  if (arrow::is_temporal(type.id())) return "add the step dates";
  if (type.id() == Type::NA) return "it has no value at all, add the step constant, which leaves it out";
  return "leave it out by `ignore`";
}

}  // namespace

Result<Table> plain(const Table& table) { return with_types(table, plain_type); }
Result<Table> as_reals(const Table& table) { return with_types(table, real_type); }

Result<graph::Tensor> to_matrix(const arrow::Table& table, const NameRow& name_row) {
  const int64_t rows = table.num_rows(), width = table.num_columns();
  for (const auto& field : table.schema()->fields())
    if (!holds_numbers(*field->type()) && field->type()->id() != Type::BOOL)
      return invalid("[data] column '{}' is {} behind the pipeline, models take numbers; {}", field->name(),
                     field->type()->ToString(), what_helps(*field->type()));
  graph::Tensor out(DType::kF32, {rows, width});
  constexpr int64_t kColumns = 16;  // of f32 in a cache line
  for (int64_t first = 0; first < width; first += kColumns) {
    const int64_t n = std::min(kColumns, width - first);
    std::vector<std::vector<double>> values;
    for (int64_t c = first; c < first + n; ++c) {
      DS_ASSIGN(std::vector<double> column,
                values_of(table.field(static_cast<int>(c))->name(), table.column(static_cast<int>(c)), "[data]"));
      values.push_back(std::move(column));
    }
    std::mutex mutex;
    int64_t bad_row = rows, bad_column = 0;  // the first one
    parallel_for(rows, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* const to = out.as<float>() + row * width + first;
        for (int64_t c = 0; c < n; ++c) {
          to[c] = static_cast<float>(values[static_cast<size_t>(c)][static_cast<size_t>(row)]);
          if (std::isfinite(to[c])) continue;
          const std::lock_guard lock(mutex);
          if (row < bad_row) bad_row = row, bad_column = c;
          return;
        }
      }
    });
    if (bad_row == rows) continue;
    const std::string& name = table.field(static_cast<int>(first + bad_column))->name();
    const double value = values[static_cast<size_t>(bad_column)][static_cast<size_t>(bad_row)];
    return make_error(ErrorCode::kDataCorrupt, "[data] column '{}' {} in {} behind the pipeline; {}", name,
                      std::isnan(value)   ? "has no value"
                      : std::isinf(value) ? "is infinite"
                                          : fmt::format("is {}, beyond what f32 holds,", value),
                      name_row(bad_row),
                      std::isnan(value)   ? "add the step impute"
                      : std::isinf(value) ? "add the step outliers with the method iqr, which bounds it"
                                          : "add the step scale");
  }
  return out;
}

}  // namespace deepseek::tables
