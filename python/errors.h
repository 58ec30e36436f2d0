// Errors of the library as Python's exceptions.
#pragma once

#include <nanobind/nanobind.h>

#include "base/status.h"
#include "gil.h"

namespace deepseek::python {

// Raises with the whole message: ValueError for a user's mistake and damaged files, FileNotFoundError,
// NotImplementedError, OSError, KeyboardInterrupt, or RuntimeError for a bug of ours. The lock need not be held.
inline void check(const Status& status) {
  if (status.ok()) return;
  PyObject* type = PyExc_RuntimeError;
  switch (status.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kDataCorrupt: type = PyExc_ValueError; break;
    case ErrorCode::kNotFound: type = PyExc_FileNotFoundError; break;
    case ErrorCode::kUnsupported: type = PyExc_NotImplementedError; break;
    case ErrorCode::kIo: type = PyExc_OSError; break;
    case ErrorCode::kInterrupted: type = PyExc_KeyboardInterrupt; break;
    case ErrorCode::kInternal: break;
  }
  const Acquired gil;
  // A path in it may be any bytes.
  const std::string text = status.to_string();
  if (PyObject* message = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace")) {
    PyErr_SetObject(type, message);
    Py_DECREF(message);
  }
  throw nanobind::python_error();
}
template <class T>
T unwrap(Result<T> result) {
  check(result.ok() ? Status() : result.status());
  return std::move(result).value();
}
inline void unwrap(const Status& status) { check(status); }

}  // namespace deepseek::python
