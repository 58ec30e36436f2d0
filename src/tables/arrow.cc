#include "tables/arrow.h"

#include <algorithm>

#include "base/strings.h"

namespace deepseek::tables {

Status from_arrow(const arrow::Status& status) {
  if (status.ok()) return {};
  // A code for what Arrow tells apart; detail comes as text behind the message.
  const ErrorCode code = status.IsOutOfMemory() || status.IsIOError() ? ErrorCode::kIo
                         : status.IsNotImplemented()                  ? ErrorCode::kUnsupported
                         : status.IsKeyError()                        ? ErrorCode::kNotFound
                         : status.IsCancelled()                       ? ErrorCode::kInterrupted
                                                                      : ErrorCode::kInvalidArgument;
  return {code, status.message()};
}

std::vector<Part> parts_of(const arrow::ChunkedArray& column, int64_t most) {
  std::vector<Part> parts;
  int64_t row = 0;
  for (const auto& chunk : column.chunks())
    for (int64_t begin = 0; begin < chunk->length(); begin += most) {
      const int64_t length = std::min(most, chunk->length() - begin);
      parts.push_back({chunk->data()->Slice(begin, length), row, length});
      row += length;
    }
  return parts;
}

bool holds_numbers(const arrow::DataType& type) {
  return arrow::is_integer(type.id()) || type.id() == arrow::Type::FLOAT || type.id() == arrow::Type::DOUBLE;
}

namespace {

std::vector<std::shared_ptr<arrow::DataType>> known_types() {
  using arrow::TimeUnit;
  return {arrow::boolean(),
          arrow::int8(),
          arrow::int16(),
          arrow::int32(),
          arrow::int64(),
          arrow::uint8(),
          arrow::uint16(),
          arrow::uint32(),
          arrow::uint64(),
          arrow::float32(),
          arrow::float64(),
          arrow::utf8(),
          arrow::large_utf8(),
          arrow::date32(),
          arrow::timestamp(TimeUnit::SECOND),
          arrow::timestamp(TimeUnit::MILLI),
          arrow::timestamp(TimeUnit::MICRO),
          arrow::timestamp(TimeUnit::NANO),
          arrow::dictionary(arrow::int32(), arrow::utf8())};
}

}  // namespace

Result<std::shared_ptr<arrow::DataType>> type_of_name(const std::string& name) {
  static const std::vector<std::pair<std::string, std::shared_ptr<arrow::DataType>>> aliases = {
      {"float32", arrow::float32()}, {"float64", arrow::float64()},
      {"date", arrow::date32()},     {"timestamp", arrow::timestamp(arrow::TimeUnit::MICRO)},
      {"boolean", arrow::boolean()}, {"category", arrow::dictionary(arrow::int32(), arrow::utf8())}};
  std::vector<std::string> names;
  for (const auto& [alias, type] : aliases)
    if (alias == name) return type;
  for (const auto& type : known_types()) {
    if (type->ToString() == name) return type;
    names.push_back(type->ToString());
  }
  for (const auto& [alias, type] : aliases) names.push_back(alias);
  const std::string near = nearest(name, names);
  return invalid("unknown type '{}'{}; there are {}", name,
                 near.empty() ? std::string() : fmt::format(", did you mean '{}'?", near), join(names, ", "));
}

std::string known_columns(const arrow::Schema& schema, const std::string& name) {
  const std::vector<std::string> names = schema.field_names();
  const std::string near = nearest(name, names);
  if (!near.empty()) return fmt::format("did you mean '{}'?", near);
  constexpr size_t kShown = 20;
  const std::vector<std::string> shown(names.begin(),
                                       names.begin() + static_cast<int64_t>(std::min(kShown, names.size())));
  return fmt::format("there are {}{}", join(shown, ", "), names.size() > kShown ? ", ..." : "");
}

Result<int> find_column(const arrow::Schema& schema, const std::string& name, const std::string& wanted_by) {
  const std::vector<int> found = schema.GetAllFieldIndices(name);
  if (found.size() == 1) return found[0];
  if (found.empty()) return invalid("{}: there is no column '{}'; {}", wanted_by, name, known_columns(schema, name));
  return invalid("{}: {} columns are named '{}'; rename all but one", wanted_by, found.size(), name);
}

}  // namespace deepseek::tables
