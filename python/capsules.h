// Arrow's tables in and out of Python as streams (the C data interface).
#pragma once

#include <arrow/c/bridge.h>
#include <nanobind/nanobind.h>

#include "errors.h"
#include "tables/arrow.h"

namespace deepseek::python {

// What __arrow_c_stream__() returns: the reader in a capsule that frees what nobody took.
inline nanobind::object to_capsule(std::shared_ptr<arrow::RecordBatchReader> reader) {
  auto* stream = new ArrowArrayStream;
  check(tables::from_arrow(arrow::ExportRecordBatchReader(std::move(reader), stream)));
  return nanobind::steal(PyCapsule_New(stream, "arrow_array_stream", [](PyObject* capsule) {
    auto* s = static_cast<ArrowArrayStream*>(PyCapsule_GetPointer(capsule, "arrow_array_stream"));
    if (s->release != nullptr) s->release(s);
    delete s;
  }));
}
inline nanobind::object to_capsule(const tables::Table& table) {
  return to_capsule(std::make_shared<arrow::TableBatchReader>(table));
}

inline tables::Table from_capsule(nanobind::handle capsule) {
  auto* stream = static_cast<ArrowArrayStream*>(PyCapsule_GetPointer(capsule.ptr(), "arrow_array_stream"));
  if (stream == nullptr) throw nanobind::python_error();
  return unwrap(without_gil([&]() -> Result<tables::Table> {
    DS_ARROW_ASSIGN(const auto reader, arrow::ImportRecordBatchReader(stream));
    return tables::from_arrow(reader->ToTable());
  }));
}

void bind_features(nanobind::module_& m);

}  // namespace deepseek::python
