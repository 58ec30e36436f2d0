// A PostgreSQL server of the test's own: in a temporary folder, on a unix socket alone, gone with the test. Its
// programs are looked for in PATH and where Debian has them. Root may not run one, so that then it runs as `postgres`
// or `nobody`.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/strings.h"
#include "tests/io/temp_folder.h"

namespace deepseek {

class PostgresServer {
 public:
  // Of the whole test program; started at first use. Where missing() says something there is none.
  static PostgresServer& shared() {
    static PostgresServer server;
    return server;
  }
  ~PostgresServer() { stop(SIGQUIT); }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  const std::string& missing() const { return missing_; }
  std::string url() const { return "postgresql://tester@/postgres?host=" + folder_.path(); }
  void start() {
    pid_ = spawn({programs_ + "/postgres", "-D", folder_ / "data", "-k", folder_.path(), "-c",
                  "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=30"});
  }
  // SIGINT: ends its sessions; SIGQUIT: as if it had crashed.
  void stop(int signal) {
    if (pid_ <= 0 || owner_ != ::getpid()) return;
    ::kill(pid_, signal);
    (void)::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  PostgresServer() {
    std::vector<std::string> folders;
    if (const char* path = std::getenv("PATH")) folders = split(path, ':');
    std::error_code ignored;
    std::vector<std::string> versions;
    for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored))
      versions.push_back(entry.path().string() + "/bin");
    std::sort(versions.rbegin(), versions.rend());
    folders.insert(folders.end(), versions.begin(), versions.end());
    for (const std::string& folder : folders)
      if (programs_.empty() && std::filesystem::exists(folder + "/initdb", ignored) &&
          std::filesystem::exists(folder + "/postgres", ignored))
        programs_ = folder;
    if (programs_.empty()) {
      missing_ = "no PostgreSQL server is installed (Debian: postgresql)";
      return;
    }
    if (::geteuid() == 0) {
      user_ = ::getpwnam("postgres");
      if (!user_) user_ = ::getpwnam("nobody");
      if (!user_ || ::chown(folder_.path().c_str(), user_->pw_uid, user_->pw_gid) != 0) {
        missing_ = "PostgreSQL doesn't run as root, and there is no user 'postgres' or 'nobody'";
        return;
      }
    }
    const pid_t made = spawn({programs_ + "/initdb", "-D", folder_ / "data", "-U", "tester", "-A", "trust", "-E",
                              "UTF8", "--no-locale", "--no-sync"});
    int state = -1;
    if (made <= 0 || ::waitpid(made, &state, 0) != made || state != 0) {
      std::stringstream log;
      log << std::ifstream(folder_ / "log").rdbuf();
      missing_ = "initdb failed: " + log.str();
      return;
    }
    start();
  }

  pid_t spawn(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const std::string& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
    arguments.push_back(nullptr);
    const std::string log = folder_ / "log";
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    if (user_ && (::initgroups(user_->pw_name, user_->pw_gid) != 0 || ::setgid(user_->pw_gid) != 0 ||
                  ::setuid(user_->pw_uid) != 0))
      ::_exit(126);
    ::prctl(PR_SET_PDEATHSIG, SIGQUIT);  // also where the test is killed
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || ::dup2(fd, 1) < 0 || ::dup2(fd, 2) < 0 || ::chdir("/") != 0) ::_exit(126);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }

  TempFolder folder_;
  std::string programs_, missing_;
  const passwd* user_ = nullptr;
  pid_t pid_ = 0, owner_ = ::getpid();
};

}  // namespace deepseek
