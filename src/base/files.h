// Paths and files as a user gives them: what isn't a file is told apart before it is read, so that a pipe without a
// writer, a folder or a name with a 0 in it is an error and not a wait, a crash or another file.
// Test: tests/base/files_test.cc
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace deepseek {

// "cannot <action> '<path>': <system's reason>; <advice>", code kNotFound for ENOENT and kIo for everything else.
Status system_error(const std::string& action, const std::string& path, int error_number);

// A path that the system can take as it stands: not empty, and without a 0, where it would end.
Status check_path(const std::string& path);

// A descriptor that is closed in the end.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { (void)close(); }
  int get() const { return fd_; }
  int release();
  int close();  // 0, or -1 with errno

 private:
  int fd_;
};

// An ordinary file opened for reading, and its size. Errors: kNotFound, kIo, kInvalidArgument for what is no file.
struct OpenFile {
  FileDescriptor file;
  size_t bytes = 0;
};
Result<OpenFile> open_file(const std::string& path);

// Fills `bytes` from the file's byte `offset` on; gives how many, which are fewer where the file ends before.
Result<size_t> read_at(const OpenFile& opened, size_t offset, std::span<std::byte> bytes, const std::string& path);

// The whole content of an ordinary file of at most so many bytes. Errors: as open_file().
Result<std::string> read_text(const std::string& path, size_t most = size_t{64} << 20);

}  // namespace deepseek
