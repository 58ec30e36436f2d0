#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "base/guard.h"
#include "base/memory.h"

namespace deepseek::io {
namespace {

Status write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return system_error("write", path, errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status write_temporary(const std::string& temporary, mode_t mode, const std::string& path,
                       const std::function<Status(const WriteBytes&)>& writer) {
  FileDescriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (file.get() < 0) return system_error("create", path, errno);
  DS_TRY(writer([&](std::span<const std::byte> bytes) { return write_all(file.get(), bytes, path); }));
  if (::fsync(file.get()) != 0) return system_error("sync", path, errno);
  if (file.close() != 0) return system_error("close", path, errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return system_error("replace", path, errno);
  return {};
}

}  // namespace

Status write_file_atomic(const std::string& path, const std::function<Status(const WriteBytes&)>& writer) {
  static std::atomic<uint64_t> counter{0};
  DS_TRY(check_path(path));
  struct stat old;
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (exists && S_ISDIR(old.st_mode)) return system_error("write", path, EISDIR);
  if (exists && !S_ISREG(old.st_mode))  // the rename would put a file in the place of /dev/null
    return invalid("'{}' is a device or a pipe, expected the name of a file", path);
  const std::string temporary = fmt::format("{}.tmp-{}-{}", path, ::getpid(), counter.fetch_add(1));
  Status status = guarded(fmt::format("while writing '{}'", path), [&] {
    return write_temporary(temporary, exists ? (old.st_mode & 0777) : 0666, path, writer);
  });
  if (!status.ok()) {
    // Fails when the temporary file was never made; the first error is the one that matters.
    (void)::unlink(temporary.c_str());
    return status;
  }
  // The rename itself survives a power cut only once the folder is synced.
  const std::string folder = folder_of(path);
  FileDescriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return system_error("open folder", folder, errno);
  // Some network and FUSE file systems cannot sync folders and say EINVAL; nothing more can be done there.
  if (::fsync(directory.get()) != 0 && errno != EINVAL) return system_error("sync folder", folder, errno);
  return {};
}

Status write_file_atomic(const std::string& path, std::span<const std::byte> bytes) {
  return write_file_atomic(path, [bytes](const WriteBytes& write) { return write(bytes); });
}

Result<int> open_regular(const std::string& path, int flags) {
  // Without O_NONBLOCK a FIFO would wait for a reader; regular files know no waiting.
  FileDescriptor file(::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
  if (file.get() < 0 && errno == ELOOP)
    return make_error(ErrorCode::kIo, "cannot open '{}': it is a symbolic link; remove it", path);
  if (file.get() < 0) return system_error("open", path, errno);
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return system_error("inspect", path, errno);
  if (!S_ISREG(info.st_mode))
    return make_error(ErrorCode::kIo, "cannot open '{}': it is no regular file; remove it", path);
  const int fd = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return system_error("open", path, errno);
  return fd;
}

Status check_fits(const OpenFile& opened, const std::string& path) {
  constexpr size_t kSmall = size_t{1} << 30;
  if (opened.bytes <= kSmall || opened.bytes <= machine_memory()) return {};
  return make_error(ErrorCode::kIo, "cannot read '{}': its {} are more than the memory there is", path,
                    format_bytes(opened.bytes));
}

Result<std::vector<std::byte>> read_file(const std::string& path) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  DS_TRY(check_fits(opened, path));
  return guarded(fmt::format("while reading '{}'", path), [&]() -> Result<std::vector<std::byte>> {
    std::vector<std::byte> bytes(opened.bytes);
    DS_ASSIGN(const size_t read, read_at(opened, 0, bytes, path));
    bytes.resize(read);  // less where it shrank meanwhile; the format's own checks name the truncation
    return bytes;
  });
}

}  // namespace deepseek::io
