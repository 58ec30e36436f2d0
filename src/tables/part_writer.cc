#include "tables/part_writer.h"

#include <arrow/builder.h>

#include "tables/files.h"

namespace deepseek::tables {
namespace {

template <class T>
Result<std::shared_ptr<arrow::Array>> to_arrow(const std::vector<T>& values) {
  std::conditional_t<std::is_same_v<T, std::string>, arrow::StringBuilder, typename arrow::CTypeTraits<T>::BuilderType>
      builder;
  std::shared_ptr<arrow::Array> array;
  if (arrow::Status s = builder.AppendValues(values); !s.ok()) return from_arrow(s);
  if (arrow::Status s = builder.Finish(&array); !s.ok()) return from_arrow(s);
  return array;
}

}  // namespace

Status write_parts(const std::string& path, const std::function<Status(const data::WritePart&)>& produce) {
  return write_tables(path, {}, [&](const WriteTable& write) {
    return produce([&](const data::TablePart& part) -> Status {
      arrow::FieldVector fields;
      arrow::ArrayVector columns;
      for (const data::TableColumn& c : part) {
        DS_ASSIGN(const std::shared_ptr<arrow::Array> array,
                  std::visit([](const auto& values) { return to_arrow(values); }, c.values));
        fields.push_back(arrow::field(c.name, array->type()));
        columns.push_back(array);
      }
      return write(arrow::Table::Make(arrow::schema(fields), columns));
    });
  });
}

}  // namespace deepseek::tables
