#include "features/vector.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/threads.h"
#include "tables/columns.h"
#include "tables/numbers.h"

namespace deepseek::features {

namespace {

using tables::Column;
using tables::Part;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kGrain = 1 << 14;

Vector numbers_of(const Column& column) {
  if (column->num_chunks() == 1 && column->type()->id() == arrow::Type::DOUBLE && column->null_count() == 0) {
    const auto& data = column->chunk(0)->data();
    Vector vector;
    vector.data = data->GetValues<double>(1);
    vector.size = column->length();
    vector.owner = data;
    return vector;
  }
  double* out = nullptr;
  Vector vector = make_vector(column->length(), out);
  const std::vector<Part> parts = tables::parts_of(*column);
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    tables::Numbers numbers;
    for (int64_t p = begin; p < end; ++p) {
      const Part& part = parts[static_cast<size_t>(p)];
      const double* x = numbers.load(part);
      std::copy(x, x + part.length, out + part.begin);
    }
  });
  return vector;
}

Result<Vector> times_of(const Column& column) {
  const auto cut = arrow::compute::CastOptions::Unsafe(arrow::timestamp(arrow::TimeUnit::MICRO));
  DS_ASSIGN(const Column stamps, tables::map_column("cast", column, &cut));
  DS_ASSIGN(const Column counts, tables::cast_column(stamps, arrow::int64()));
  return numbers_of(counts);
}

Result<Vector> booleans_of(const Column& column) {
  DS_ASSIGN(const Column bytes, tables::cast_column(column, arrow::int8()));
  return numbers_of(bytes);
}

// Text by number of its sorted values.
Result<Vector> categories_of(const Column& given) {
  Column column = given;
  if (column->type()->id() == arrow::Type::DICTIONARY) {
    const auto& type = static_cast<const arrow::DictionaryType&>(*column->type());
    if (type.value_type()->id() != arrow::Type::STRING) {
      DS_ASSIGN(column, tables::cast_column(column, type.value_type()));
    }
  }
  if (tables::holds_numbers(*column->type())) return numbers_of(column);
  if (column->type()->id() == arrow::Type::BOOL) return booleans_of(column);
  if (column->type()->id() != arrow::Type::DICTIONARY) {
    DS_ASSIGN(column, tables::as_text(column));
    DS_ASSIGN(const arrow::Datum encoded, tables::call("dictionary_encode", {arrow::Datum(column)}));
    column = encoded.chunked_array();
  }
  DS_ARROW_ASSIGN(const Column unified, arrow::DictionaryUnifier::UnifyChunkedArray(column));
  double* out = nullptr;
  Vector vector = make_vector(unified->length(), out);
  if (unified->num_chunks() == 0) {
    arrow::StringBuilder none;
    DS_ARROW_ASSIGN(const auto array, none.Finish());
    vector.words = std::static_pointer_cast<arrow::StringArray>(array);
    return vector;
  }
  const auto& first = static_cast<const arrow::DictionaryArray&>(*unified->chunk(0));
  const auto words = std::static_pointer_cast<arrow::StringArray>(first.dictionary());
  std::vector<int64_t> order(static_cast<size_t>(words->length()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return words->GetView(a) < words->GetView(b); });
  std::vector<double> code(order.size());
  arrow::StringBuilder sorted;
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t w = order[i];
    code[static_cast<size_t>(w)] = words->IsValid(w) ? static_cast<double>(i) : kNan;
    DS_ARROW(sorted.Append(words->GetView(w)));
  }
  DS_ARROW_ASSIGN(const auto array, sorted.Finish());
  vector.words = std::static_pointer_cast<arrow::StringArray>(array);
  int64_t at = 0;
  for (const auto& chunk : unified->chunks()) {
    const auto& dictionary = static_cast<const arrow::DictionaryArray&>(*chunk);
    const int64_t from = at;
    parallel_for(chunk->length(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[from + i] = dictionary.IsValid(i) ? code[static_cast<size_t>(dictionary.GetValueIndex(i))] : kNan;
    });
    at += chunk->length();
  }
  return vector;
}

Result<Vector> text_of(const Column& column) {
  DS_ASSIGN(const Column text, tables::as_text(column));
  Vector vector;
  vector.size = text->length();
  std::shared_ptr<arrow::Array> whole;
  if (text->num_chunks() == 0) {
    DS_ARROW_ASSIGN(whole, arrow::MakeEmptyArray(arrow::utf8()));
  } else {
    DS_ARROW_ASSIGN(whole, arrow::Concatenate(text->chunks()));
  }
  vector.text = std::static_pointer_cast<arrow::StringArray>(whole);
  return vector;
}

// Values as T, with a bitmap of those that are there, if one is missing.
template <class T>
Result<std::shared_ptr<arrow::Array>> array_of(const Vector& vector, const std::shared_ptr<arrow::DataType>& type) {
  const int64_t n = vector.size;
  int64_t missing = 0;
  for (int64_t i = 0; i < n; ++i) missing += std::isnan(vector.data[i]) ? 1 : 0;
  std::shared_ptr<arrow::Buffer> values, valid;
  DS_ARROW_ASSIGN(values, arrow::AllocateBuffer(n * static_cast<int64_t>(sizeof(T))));
  auto* out = reinterpret_cast<T*>(values->mutable_data());
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = std::isnan(vector.data[i]) ? T() : static_cast<T>(vector.data[i]);
  });
  if (missing > 0) {
    DS_ARROW_ASSIGN(valid, arrow::AllocateBitmap(n));
    uint8_t* bits = valid->mutable_data();
    std::fill(bits, bits + valid->size(), uint8_t{0});
    for (int64_t i = 0; i < n; ++i)
      if (!std::isnan(vector.data[i])) bits[i >> 3] = static_cast<uint8_t>(bits[i >> 3] | (1 << (i & 7)));
  }
  return arrow::MakeArray(arrow::ArrayData::Make(type, n, {valid, values}, missing));
}

}  // namespace

const char* name_of(Logical logical) {
  switch (logical) {
    case Logical::kInteger: return "integer";
    case Logical::kIntegerNullable: return "integer, some missing";
    case Logical::kDouble: return "double";
    case Logical::kBoolean: return "boolean";
    case Logical::kBooleanNullable: return "boolean, some missing";
    case Logical::kCategorical: return "category";
    case Logical::kOrdinal: return "ordinal";
    case Logical::kDatetime: return "datetime";
    case Logical::kText: return "text";
    case Logical::kNone: break;
  }
  return "number";
}

Vector make_vector(int64_t size, double*& data) {
  std::shared_ptr<double[]> memory(new double[static_cast<size_t>(std::max<int64_t>(size, 1))]);
  data = memory.get();
  Vector vector;
  vector.data = data;
  vector.size = size;
  vector.owner = std::move(memory);
  return vector;
}

Vector gather(const Vector& values, const std::vector<int32_t>& rows, double missing) {
  double* out = nullptr;
  const auto n = static_cast<int64_t>(rows.size());
  Vector result = make_vector(n, out);
  result.words = values.words;
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int32_t row = rows[static_cast<size_t>(i)];
      out[i] = row < 0 ? missing : values.data[row];
    }
  });
  return result;
}

Result<Vector> coded(const Vector& vector) {
  if (!vector.text) return vector;
  DS_ASSIGN(const auto strings, to_arrow(vector, Logical::kText));
  return categories_of(std::make_shared<arrow::ChunkedArray>(strings));
}

Result<Vector> from_arrow(const std::string& name, const Column& column, Logical logical) {
  const auto wrong = [&](const char* expected) {
    return invalid("column '{}' is {}, expected {}", name, column->type()->ToString(), expected);
  };
  switch (logical) {
    case Logical::kBoolean:
    case Logical::kBooleanNullable:
      if (column->type()->id() != arrow::Type::BOOL) return wrong("booleans");
      return booleans_of(column);
    case Logical::kCategorical:
    case Logical::kOrdinal: return categories_of(column);
    case Logical::kDatetime:
      if (!arrow::is_date(column->type()->id()) && column->type()->id() != arrow::Type::TIMESTAMP)
        return wrong("dates or timestamps");
      return times_of(column);
    case Logical::kText: return text_of(column);
    default:
      if (!tables::holds_numbers(*column->type())) return wrong("numbers");
      return numbers_of(column);
  }
}

Result<std::shared_ptr<arrow::Array>> to_arrow(const Vector& vector, Logical logical) {
  switch (logical) {
    case Logical::kBoolean:
    case Logical::kBooleanNullable: {
      arrow::BooleanBuilder builder;
      DS_ARROW(builder.Reserve(vector.size));
      for (int64_t i = 0; i < vector.size; ++i) {
        if (std::isnan(vector.data[i]))
          builder.UnsafeAppendNull();
        else
          builder.UnsafeAppend(vector.data[i] != 0);
      }
      return tables::from_arrow(builder.Finish());
    }
    case Logical::kDatetime: return array_of<int64_t>(vector, arrow::timestamp(arrow::TimeUnit::MICRO));
    case Logical::kText: {
      if (vector.words) break;
      arrow::StringBuilder builder;
      for (int64_t i = 0; i < vector.size; ++i) {
        const int64_t row = vector.rows != nullptr ? vector.rows[i] : i;
        if (row < 0 || vector.text->IsNull(row)) {
          DS_ARROW(builder.AppendNull());
        } else {
          DS_ARROW(builder.Append(vector.text->GetView(row)));
        }
      }
      return tables::from_arrow(builder.Finish());
    }
    default: break;
  }
  if (vector.words) {
    DS_ASSIGN(const auto codes, array_of<int32_t>(vector, arrow::int32()));
    return tables::from_arrow(
        arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int32(), arrow::utf8()), codes, vector.words));
  }
  if (logical == Logical::kDouble || logical == Logical::kNone) return array_of<double>(vector, arrow::float64());
  // Categories that are no whole numbers stay as they are.
  const bool whole = std::all_of(vector.data, vector.data + vector.size, [](double x) {
    return std::isnan(x) || (x == std::floor(x) && std::fabs(x) < 0x1p62);
  });
  return whole ? array_of<int64_t>(vector, arrow::int64()) : array_of<double>(vector, arrow::float64());
}

}  // namespace deepseek::features
