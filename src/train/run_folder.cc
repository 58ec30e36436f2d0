#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

#include "io/atomic_file.h"

namespace deepseek::train {

namespace fs = std::filesystem;

namespace {

constexpr const char *kLock = "lock", *kLog = "log.txt", *kCheckpoint = "last.safetensors";

Status folder_error(const char* what, const fs::path& folder, const std::error_code& error) {
  return make_error(ErrorCode::kIo, "train.output: cannot {} '{}': {}", what, folder.string(), error.message());
}

// The descriptor of the folder's lock, held.
Result<int> take_lock(const fs::path& folder) {
  const std::string path = (folder / kLock).string();
  while (true) {
    DS_ASSIGN(const int fd, io::open_regular(path, O_RDWR | O_CREAT));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      char holder[32] = {};
      const bool known = ::pread(fd, holder, sizeof(holder) - 1, 0) > 0;
      ::close(fd);
      if (reason != EWOULDBLOCK) return io::system_error("lock", path, reason);
      return invalid("train.output: another training{} writes to '{}'; wait for its end, or give another folder",
                     known ? fmt::format(" (process {})", holder) : "", folder.string());
    }
    // Another process may have removed or moved the file between the two calls.
    struct stat ours, there;
    if (::fstat(fd, &ours) == 0 && ::stat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino &&
        ours.st_dev == there.st_dev) {
      const std::string id = std::to_string(::getpid());
      if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, id.data(), id.size(), 0) < 0) {
        const int reason = errno;
        ::close(fd);
        return io::system_error("write", path, reason);
      }
      return fd;
    }
    ::close(fd);
  }
}

// Removes the file first, so that nobody finds it without a holder.
void release_lock(const fs::path& folder, int fd) {
  (void)::unlink((folder / kLock).c_str());  // a file left behind holds nobody up
  ::close(fd);
}

}  // namespace

Result<RunFolder> RunFolder::at(const std::string& path) {
  if (path.find('\0') != std::string::npos) return invalid("train.output: the path has a NUL character");
  RunFolder folder;
  size_t length = path.size();
  while (length > 1 && path[length - 1] == '/') --length;
  folder.path_ = path.substr(0, length);
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept { *this = std::move(other); }

RunFolder& RunFolder::operator=(RunFolder&& other) noexcept {
  if (this == &other) return *this;
  close();
  path_ = std::move(other.path_);
  lock_ = std::exchange(other.lock_, -1);
  log_ = std::exchange(other.log_, -1);
  early_ = std::move(other.early_);
  log_status_ = std::move(other.log_status_);
  events_ = std::move(other.events_);
  return *this;
}

RunFolder::~RunFolder() { close(); }

void RunFolder::close() {
  if (log_ >= 0) ::close(std::exchange(log_, -1));
  if (lock_ >= 0) release_lock(path_, std::exchange(lock_, -1));
}

Status RunFolder::resume() {
  if (!kept()) return invalid("resume needs train.output, the folder of the run");
  std::error_code error;
  if (!fs::exists(path_ / kCheckpoint, error))
    return make_error(ErrorCode::kNotFound, "cannot resume: there is no '{}'; train without resume first",
                      file(kCheckpoint));
  DS_ASSIGN(lock_, take_lock(path_));
  return open_files();
}

Result<std::string> RunFolder::begin() {
  std::string moved;
  if (!kept()) return moved;
  while (true) {
    std::error_code error;
    fs::create_directories(path_, error);
    if (error) return folder_error("make the folder", path_, error);
    DS_ASSIGN(lock_, take_lock(path_));
    if (!fs::exists(path_ / kCheckpoint, error)) break;
    const fs::path name = path_.filename();
    if (name.empty() || name == "." || name == "..")
      return invalid("train.output: '{}' holds an earlier run and cannot be moved; give another folder",
                     path_.string());
    fs::path old;
    for (int i = 1; old.empty() || fs::exists(fs::symlink_status(old, error)); ++i)
      old = path_.string() + "." + std::to_string(i);
    fs::rename(path_, old, error);
    if (error)
      return folder_error("move the earlier run", path_, error)
          .note(fmt::format("its new name would be '{}'", old.string()));
    release_lock(old, std::exchange(lock_, -1));
    moved = fmt::format("the earlier run in {} is now {}", path_.string(), old.string());
  }
  DS_TRY(open_files());
  return moved;
}

Status RunFolder::open_files() {
  const std::string path = file(kLog);
  DS_ASSIGN(log_, io::open_regular(path, O_WRONLY | O_CREAT | O_APPEND));
  DS_ASSIGN(io::EventFile made, io::EventFile::create(path_.string()));
  events_.emplace(std::move(made));
  append(std::exchange(early_, ""));
  return log_status_;
}

void RunFolder::log(const std::string& line) {
  if (!kept()) return;
  if (log_ >= 0)
    append(line + "\n");
  else
    early_ += line + "\n";
}

void RunFolder::append(const std::string& text) {
  for (size_t done = 0; done < text.size() && log_status_.ok();) {
    const ssize_t n = ::write(log_, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) log_status_ = io::system_error("write", file(kLog), errno);
    if (n > 0) done += static_cast<size_t>(n);
  }
}

Status RunFolder::write(const char* name, std::string_view text) const {
  if (!kept()) return {};
  return io::write_file_atomic(file(name), std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace deepseek::train
