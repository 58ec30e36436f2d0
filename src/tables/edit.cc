#include "tables/edit.h"

#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <atomic>
#include <cmath>
#include <limits>

#include "base/threads.h"
#include "tables/columns.h"
#include "tables/numbers.h"

namespace deepseek::tables {

namespace {

// f(part, values of T) for all parts in parallel.
template <class T, class F>
void each_part(const arrow::ChunkedArray& column, F f) {
  const std::vector<Part> parts = parts_of(column);
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) f(parts[static_cast<size_t>(p)], parts[static_cast<size_t>(p)].values<T>());
  });
}

template <class T>
bool is_nan(T x) {
  return x != x;
}

// A column of one chunk; `valid` may be null.
Column make_column(const std::shared_ptr<arrow::DataType>& type, int64_t length, std::shared_ptr<arrow::Buffer> valid,
                   std::shared_ptr<arrow::Buffer> values) {
  const bool all = valid == nullptr;
  auto data =
      arrow::ArrayData::Make(type, length, {std::move(valid), std::move(values)}, all ? 0 : arrow::kUnknownNullCount);
  return std::make_shared<arrow::ChunkedArray>(arrow::MakeArray(std::move(data)));
}

// The validity of the whole column as one bitmap, or null if nothing is missing; the column's own where it can be.
Result<std::shared_ptr<arrow::Buffer>> validity(const arrow::ChunkedArray& column) {
  if (column.null_count() == 0) return std::shared_ptr<arrow::Buffer>();
  if (column.num_chunks() == 1 && column.chunk(0)->offset() == 0) return column.chunk(0)->null_bitmap();
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Buffer> bits, arrow::AllocateEmptyBitmap(column.length()));
  int64_t row = 0;
  for (const auto& chunk : column.chunks()) {
    if (chunk->null_bitmap() != nullptr)
      arrow::internal::CopyBitmap(chunk->null_bitmap_data(), chunk->offset(), chunk->length(), bits->mutable_data(),
                                  row);
    else
      arrow::bit_util::SetBitsTo(bits->mutable_data(), row, chunk->length(), true);
    row += chunk->length();
  }
  return bits;
}

// A bound of doubles in the column's type: the least or greatest value of it that is inside.
template <class T>
T bound(double value, bool upper) {
  if constexpr (std::is_integral_v<T>) {
    const double inside = upper ? std::floor(value) : std::ceil(value);
    if (inside <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
    if (inside >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
    return static_cast<T>(inside);
  } else {
    return static_cast<T>(value);
  }
}

}  // namespace

Result<Column> fill(const arrow::ChunkedArray& column, double value, const std::shared_ptr<arrow::DataType>& type) {
  const bool wide = type->id() == arrow::Type::DOUBLE;
  const int64_t size = wide ? 8 : type->byte_width();
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Buffer> buffer, arrow::AllocateBuffer(column.length() * size));
  visit_number(column.type()->id(), [&](auto from) {
    using From = decltype(from);
    const auto write = [&](auto zero) {
      using To = decltype(zero);
      To* const out = reinterpret_cast<To*>(buffer->mutable_data());
      const To replacement = static_cast<To>(value);
      each_part<From>(column, [&](const Part& part, const From* x) {
        To* const to = out + part.begin;
        for (int64_t i = 0; i < part.length; ++i) to[i] = is_nan(x[i]) ? replacement : static_cast<To>(x[i]);
        part.each_null([&](int64_t i) { to[i] = replacement; });
      });
    };
    if (wide)
      write(double());
    else
      write(from);
  });
  return make_column(type, column.length(), nullptr, std::move(buffer));
}

Result<Column> clip(const arrow::ChunkedArray& column, double low, double high) {
  const std::shared_ptr<arrow::DataType>& type = column.type();
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Buffer> buffer, arrow::AllocateBuffer(column.length() * type->byte_width()));
  visit_number(type->id(), [&](auto zero) {
    using T = decltype(zero);
    const T least = bound<T>(low, false), most = bound<T>(high, true);
    T* const out = reinterpret_cast<T*>(buffer->mutable_data());
    each_part<T>(column, [&](const Part& part, const T* x) {
      T* const to = out + part.begin;
      for (int64_t i = 0; i < part.length; ++i) {  // NaN is neither
        const T raised = x[i] < least ? least : x[i];
        to[i] = raised > most ? most : raised;
      }
    });
  });
  DS_ASSIGN(std::shared_ptr<arrow::Buffer> valid, validity(column));
  return make_column(type, column.length(), std::move(valid), std::move(buffer));
}

Result<Column> scale(const arrow::ChunkedArray& column, double center, double scale) {
  const bool narrow = column.type()->id() == arrow::Type::FLOAT;
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Buffer> buffer, arrow::AllocateBuffer(column.length() * (narrow ? 4 : 8)));
  visit_number(column.type()->id(), [&](auto zero) {
    using T = decltype(zero);
    using To = std::conditional_t<std::is_same_v<T, float>, float, double>;
    To* const out = reinterpret_cast<To*>(buffer->mutable_data());
    each_part<T>(column, [&](const Part& part, const T* x) {
      To* const to = out + part.begin;
      for (int64_t i = 0; i < part.length; ++i) to[i] = static_cast<To>((static_cast<double>(x[i]) - center) / scale);
    });
  });
  DS_ASSIGN(std::shared_ptr<arrow::Buffer> valid, validity(column));
  return make_column(narrow ? arrow::float32() : arrow::float64(), column.length(), std::move(valid),
                     std::move(buffer));
}

Result<Column> mask(const arrow::ChunkedArray& column, const std::vector<uint8_t>& keep) {
  std::vector<std::shared_ptr<arrow::Array>> chunks;
  int64_t row = 0;
  for (const auto& chunk : column.chunks()) {
    DS_ARROW_ASSIGN(std::shared_ptr<arrow::Buffer> bits, arrow::AllocateEmptyBitmap(chunk->length()));
    uint8_t* const to = bits->mutable_data();
    for (int64_t i = 0; i < chunk->length(); ++i)
      if (keep[static_cast<size_t>(row + i)] != 0 && chunk->IsValid(i))
        to[i >> 3] |= static_cast<uint8_t>(1 << (i & 7));
    const int64_t width = chunk->type()->byte_width();
    auto values = arrow::SliceBuffer(chunk->data()->buffers[1], chunk->offset() * width, chunk->length() * width);
    chunks.push_back(
        arrow::MakeArray(arrow::ArrayData::Make(chunk->type(), chunk->length(), {std::move(bits), std::move(values)})));
    row += chunk->length();
  }
  return std::make_shared<arrow::ChunkedArray>(std::move(chunks), column.type());
}

std::vector<uint8_t> missing(const arrow::ChunkedArray& column) {
  std::vector<uint8_t> result(static_cast<size_t>(column.length()));
  if (!holds_numbers(*column.type())) {
    int64_t row = 0;
    for (const auto& chunk : column.chunks())
      for (int64_t i = 0; i < chunk->length(); ++i) result[static_cast<size_t>(row++)] = chunk->IsNull(i);
    return result;
  }
  visit_number(column.type()->id(), [&](auto zero) {
    using T = decltype(zero);
    each_part<T>(column, [&](const Part& part, const T* x) {
      for (int64_t i = 0; i < part.length; ++i)
        result[static_cast<size_t>(part.begin + i)] = is_nan(x[i]) || !part.valid(i);
    });
  });
  return result;
}

std::vector<uint8_t> outside(const arrow::ChunkedArray& column, double low, double high) {
  std::vector<uint8_t> result(static_cast<size_t>(column.length()));
  visit_number(column.type()->id(), [&](auto zero) {
    using T = decltype(zero);
    each_part<T>(column, [&](const Part& part, const T* x) {
      uint8_t* const to = result.data() + part.begin;
      for (int64_t i = 0; i < part.length; ++i) {
        const auto v = static_cast<double>(x[i]);
        to[i] = static_cast<uint8_t>(v < low) | static_cast<uint8_t>(v > high);
      }
      part.each_null([&](int64_t i) { to[i] = 0; });
    });
  });
  return result;
}

int64_t count_outside(const arrow::ChunkedArray& column, double low, double high) {
  std::atomic<int64_t> total = 0;
  visit_number(column.type()->id(), [&](auto zero) {
    using T = decltype(zero);
    each_part<T>(column, [&](const Part& part, const T* x) {
      const auto is_outside = [&](int64_t i) {
        const auto v = static_cast<double>(x[i]);
        return static_cast<int64_t>(v < low) | static_cast<int64_t>(v > high);
      };
      int64_t count = 0;
      for (int64_t i = 0; i < part.length; ++i) count += is_outside(i);
      part.each_null([&](int64_t i) { count -= is_outside(i); });
      total += count;
    });
  });
  return total;
}

Result<Column> flags(const std::vector<uint8_t>& values) {
  arrow::BooleanBuilder builder;
  DS_ARROW(builder.AppendValues(values.data(), static_cast<int64_t>(values.size())));
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::Array> array, builder.Finish());
  return std::make_shared<arrow::ChunkedArray>(std::move(array));
}

Result<Table> keep_rows(const Table& table, const std::vector<uint8_t>& keep) {
  DS_ASSIGN(const Column selection, flags(keep));
  DS_ASSIGN(const arrow::Datum rows, call("filter", {arrow::Datum(table), arrow::Datum(selection)}));
  return rows.table();
}

}  // namespace deepseek::tables
