// Standard output and error, written so that a full disk, a closed pipe or a closed descriptor neither throws nor ends
// the process: who trains for days must not lose it to a line of progress. And the frame of main functions.
// Test: tests/base/console_test.cc
#pragma once

#include <fmt/core.h>

#include <functional>
#include <string_view>
#include <utility>

namespace deepseek {

// Written at once. What can't be written is lost; of standard output run_main() tells it in the end.
void console_out(std::string_view text) noexcept;
void console_err(std::string_view text) noexcept;

template <class... Args>
void print_out(fmt::format_string<Args...> format, Args&&... args) {
  console_out(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void print_err(fmt::format_string<Args...> format, Args&&... args) {
  console_err(fmt::format(format, std::forward<Args>(args)...));
}

// What a main function is: before `body`, descriptors 0 to 2 that are closed become /dev/null, so that no file gets
// their numbers, and a closed pipe or too large a file is an error of write() rather than a signal. What `body` throws is told, exit code
// 1; so is output that got lost, but to a reader that had enough.
int run_main(const std::function<int()>& body) noexcept;

}  // namespace deepseek
