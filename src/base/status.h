// Errors are values. Status carries a code, a message and notes that are added while it travels up; Result<T> is a
// value or a Status. User errors and internal bugs have different codes; nothing aborts on user input.
// Messages read: "[op] node 'scope': expected ..., got ...; hint". Test: tests/base/status_test.cc
#pragma once

#include <fmt/core.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace deepseek {

enum class ErrorCode {
  kInvalidArgument,  // the caller's value is wrong (shape, dtype, option, config)
  kNotFound,         // a file, key or name does not exist
  kUnsupported,      // valid, but no implementation takes it
  kDataCorrupt,      // a file's bytes contradict its format
  kIo,               // the operating system refused
  kInterrupted,      // SIGINT, SIGTERM or a cancelled call
  kInternal,         // a bug of ours
};

const char* to_string(ErrorCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(ErrorCode code, std::string message) : rep_(std::make_shared<Rep>(Rep{code, std::move(message), {}})) {}

  bool ok() const { return rep_ == nullptr; }
  ErrorCode code() const { return rep_->code; }
  // Empty if ok.
  const std::string& message() const;
  const std::vector<std::string>& notes() const { return rep_->notes; }
  // Adds where the error passed through ("while reading 'run.yaml'"); no effect on ok.
  Status note(std::string text) &&;
  // Message, then one "  note: ..." line per note.
  std::string to_string() const;

 private:
  struct Rep {
    ErrorCode code;
    std::string message;
    std::vector<std::string> notes;
  };
  std::shared_ptr<Rep> rep_;
};

template <class... Args>
Status make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Status(code, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
Status invalid(fmt::format_string<Args...> format, Args&&... args) {
  return Status(ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
Status internal_error(fmt::format_string<Args...> format, Args&&... args) {
  return Status(ErrorCode::kInternal, fmt::format(format, std::forward<Args>(args)...));
}

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) {}

  bool ok() const { return value_.has_value(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T value() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T operator*() && { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace deepseek

#define DS_CONCAT_INNER(a, b) a##b
#define DS_CONCAT(a, b) DS_CONCAT_INNER(a, b)
// Returns the error of a Status expression from the enclosing function.
#define DS_TRY(expr)                         \
  do {                                       \
    ::deepseek::Status ds_status_ = (expr);  \
    if (!ds_status_.ok()) return ds_status_; \
  } while (false)
// DS_ASSIGN(auto x, f()): x becomes f()'s value, or the enclosing function returns its error.
#define DS_ASSIGN(decl, expr) DS_ASSIGN_IMPL(DS_CONCAT(ds_result_, __LINE__), decl, expr)
#define DS_ASSIGN_IMPL(tmp, decl, expr)          \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  decl = std::move(tmp).value()
