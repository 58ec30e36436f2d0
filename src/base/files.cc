#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/file_kind.h"
#include "base/guard.h"

namespace deepseek {
namespace {

const char* advice_for(int error_number) {
  switch (error_number) {
    case ENOENT: return "check the path; its folder must exist";
    case EACCES:
    case EPERM: return "check the permissions of the file and of its folder";
    case ENOSPC:
    case EDQUOT: return "free space on the disk or choose another folder; the old file, if any, is untouched";
    case EROFS: return "the file system is read-only; choose another folder";
    case EISDIR: return "the path is a folder; give a file name";
    case ENOTDIR: return "a part of the path is a file, not a folder";
    case ENAMETOOLONG: return "choose a shorter name";
    case EMFILE:
    case ENFILE: return "too many open files; raise the limit (ulimit -n)";
    case EIO: return "the device reports a fault; check the disk and the system log";
    default: return "check the path and the device";
  }
}

const char* kind_of(mode_t mode) {
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

Status system_error(const std::string& action, const std::string& path, int error_number) {
  return make_error(error_number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot {} '{}': {}; {}", action,
                    path, std::generic_category().message(error_number), advice_for(error_number));
}

Status check_path(const std::string& path) {
  if (path.empty()) return invalid("expected a path, got an empty text");
  const size_t zero = path.find('\0');
  if (zero == std::string::npos) return {};
  return invalid("a path can't hold the character 0, got one after '{}'", path.substr(0, zero));
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    (void)close();
    fd_ = other.release();
  }
  return *this;
}
int FileDescriptor::release() { return std::exchange(fd_, -1); }
int FileDescriptor::close() { return fd_ < 0 ? 0 : ::close(release()); }

Result<OpenFile> open_file(const std::string& path) {
  DS_TRY(check_path(path));
  OpenFile opened;
  // Without O_NONBLOCK opening a pipe waits for who writes to it, maybe for ever.
  opened.file = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (const int number = errno; opened.file.get() < 0)
    return number != ENOENT ? system_error("open", path, number)
                            : make_error(ErrorCode::kNotFound, "cannot open '{}': No such file or directory{}", path,
                                         missing_file_hint(path));
  struct stat info;
  if (::fstat(opened.file.get(), &info) != 0) return system_error("inspect", path, errno);
  if (S_ISDIR(info.st_mode)) return system_error("read", path, EISDIR);
  if (!S_ISREG(info.st_mode))
    return invalid("'{}' is {}, expected a file; write what it gives to a file first", path, kind_of(info.st_mode));
  opened.bytes = static_cast<size_t>(info.st_size);
  return opened;
}

Result<size_t> read_at(const OpenFile& opened, size_t offset, std::span<std::byte> bytes, const std::string& path) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pread(opened.file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error("read", path, errno);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Result<std::string> read_text(const std::string& path, size_t most) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  if (opened.bytes > most)
    return invalid("'{}' has {} bytes, at most {} are expected here; is it the right file?", path, opened.bytes, most);
  return guarded(fmt::format("while reading '{}'", path), [&]() -> Result<std::string> {
    std::string text(opened.bytes, '\0');
    DS_ASSIGN(const size_t read, read_at(opened, 0, std::as_writable_bytes(std::span(text)), path));
    text.resize(read);  // less where it shrank meanwhile
    return text;
  });
}

}  // namespace deepseek
