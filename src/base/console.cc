#include "base/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>

#include "base/guard.h"

namespace deepseek {
namespace {

std::atomic<int> lost{0};  // errno of the first write to standard output that failed

// 0, or the system's reason.
int write_all(int fd, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

}  // namespace

void console_out(std::string_view text) noexcept {
  if (lost != 0) return;
  const int before = errno;
  lost = write_all(STDOUT_FILENO, text);
  errno = before;
}

void console_err(std::string_view text) noexcept {
  const int before = errno;
  (void)write_all(STDERR_FILENO, text);
  errno = before;
}

int run_main(const std::function<int()>& body) noexcept {
  for (int fd = 0; fd <= 2; ++fd)  // the lowest number that is free is the one that open() takes
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  (void)std::signal(SIGPIPE, SIG_IGN);
  (void)std::signal(SIGXFSZ, SIG_IGN);  // a file beyond ulimit -f is an error of write(), too
  int code = 1;
  try {
    code = body();
    if (lost != 0 && lost != EPIPE) {
      print_err("error: cannot write to standard output: {}\n", std::generic_category().message(lost));
      if (code == 0) code = 1;
    }
  } catch (...) {
    const Status status = status_of_exception("the command has failed");
    console_err("error: ");
    console_err(status.message());
    console_err("\n");
  }
  return code;
}

}  // namespace deepseek
