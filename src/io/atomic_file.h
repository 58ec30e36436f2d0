// Whole-file writes that are all or nothing: the bytes go to a temporary file in the same folder, are synced, and then
// take the final name. Invariant: at any moment, and after a crash at any moment, `path` holds either its old content
// or the whole new one. Test: tests/io/atomic_file_test.cc
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/status.h"

namespace deepseek::io {

// Appends bytes to the file being written; its errors must be returned by the writer callback.
using WriteBytes = std::function<Status(std::span<const std::byte>)>;

// Replaces `path` with the bytes. Errors: kIo (the system's reason and what to do about it). Symbolic links at `path`
// are replaced, not followed; devices and pipes are kInvalidArgument. A process killed midway may leave a file named
// "<path>.tmp-<pid>-<n>" behind.
Status write_file_atomic(const std::string& path, std::span<const std::byte> bytes);
// The same with content produced piece by piece; an error from `writer` leaves `path` untouched and is passed on.
Status write_file_atomic(const std::string& path, const std::function<Status(const WriteBytes&)>& writer);

// An error where the file holds more than the machine's memory.
Status check_fits(const OpenFile& opened, const std::string& path);
// The whole content of an ordinary file. Errors: kNotFound, kIo, kInvalidArgument for what is no file.
Result<std::vector<std::byte>> read_file(const std::string& path);

// open(2) of a regular file that a program writes to for long: a log, a lock. Links are not followed, a FIFO is
// refused, and the descriptor is none of standard input, output and error, where those are closed. Errors: kNotFound,
// kIo.
Result<int> open_regular(const std::string& path, int flags);

using deepseek::system_error;

}  // namespace deepseek::io
