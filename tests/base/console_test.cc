// Each in a process of its own, whose standard output and error are what a shell might make of them.
#include "base/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <new>
#include <string>

#include "tests/io/temp_folder.h"

namespace deepseek {
namespace {

// The exit code of run_main(body), or 128 and the signal, with descriptors prepared by `before`.
int code_of(const std::function<void()>& before, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    before();
    ::_exit(run_main(body));
  }
  int state = 0;
  if (::waitpid(child, &state, 0) != child) return -1;
  return WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}
void redirect(int fd, const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, fd);
  ::close(file);
}
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Console, WritesAtOnceAndGivesTheBodysCode) {
  TempFolder folder;
  EXPECT_EQ(code_of(
                [&] {
                  redirect(1, folder / "out");
                  redirect(2, folder / "err");
                },
                [] {
                  print_out("{} lines\n", 2);
                  print_err("a mistake\n");
                  return 7;
                }),
            7);
  EXPECT_EQ(text_of(folder / "out"), "2 lines\n");
  EXPECT_EQ(text_of(folder / "err"), "a mistake\n");
}

TEST(Console, AFullOutputFailsInTheEnd) {
  TempFolder folder;
  int calls = 0;
  EXPECT_EQ(code_of(
                [&] {
                  redirect(1, "/dev/full");
                  redirect(2, folder / "err");
                },
                [&] {
                  for (; calls < 3; ++calls) print_out("line\n");
                  return calls == 3 ? 0 : 9;
                }),
            1);
  EXPECT_EQ(text_of(folder / "err"), "error: cannot write to standard output: No space left on device\n");
}

TEST(Console, AFullErrorOutputChangesNothing) {
  EXPECT_EQ(code_of([] { redirect(2, "/dev/full"); },
                    [] {
                      print_err("progress\n");
                      return 0;
                    }),
            0);
}

TEST(Console, AReaderThatHasEnoughIsNoError) {
  TempFolder folder;
  const auto broken_pipe = [&] {
    int ends[2];
    if (::pipe(ends) != 0) ::_exit(99);
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close(ends[0]);
    ::close(ends[1]);
  };
  EXPECT_EQ(code_of(broken_pipe,
                    [] {
                      print_out("line\n");
                      print_err("line\n");
                      return 0;
                    }),
            0);
}

TEST(Console, ClosedDescriptorsAreNoFilesNumbers) {
  TempFolder folder;
  EXPECT_EQ(code_of(
                [] {
                  for (int fd = 0; fd <= 2; ++fd) ::close(fd);
                },
                [&] {
                  const int file = ::open((folder / "log").c_str(), O_WRONLY | O_CREAT, 0600);
                  print_out("out\n");
                  print_err("err\n");
                  return file > 2 ? 0 : 1;
                }),
            0);
  EXPECT_EQ(text_of(folder / "log"), "");
}

TEST(Console, AFileBeyondTheLimitIsAnErrorOfWrite) {
  TempFolder folder;
  EXPECT_EQ(code_of(
                [&] {
                  const rlimit none{0, 0};
                  if (::setrlimit(RLIMIT_FSIZE, &none) != 0) ::_exit(99);
                  redirect(1, folder / "out");
                },
                [] {
                  print_out("line\n");
                  return 0;
                }),
            1);
}

TEST(Console, WhatIsThrownIsToldAndIsOne) {
  TempFolder folder;
  const auto told = [&](const std::function<int()>& body) {
    std::ofstream(folder / "err").close();
    EXPECT_EQ(code_of([&] { redirect(2, folder / "err"); }, body), 1);
    return text_of(folder / "err");
  };
  EXPECT_EQ(told([]() -> int { throw std::bad_alloc(); }),
            "error: the command has failed: there is not enough memory for it\n");
  EXPECT_EQ(told([]() -> int { throw std::runtime_error("odd"); }), "error: the command has failed: odd\n");
}

}  // namespace
}  // namespace deepseek
