// How much memory there is, and texts for amounts of it. Test: tests/base/memory_test.cc
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace deepseek {

// Bytes that this process may use at most: the machine's memory, or less where a control group (a container, say)
// limits it. `root` is "/" but for tests.
size_t machine_memory(const std::string& root = "/");
// Of them, those that nobody uses now, as the system estimates.
size_t available_memory(const std::string& root = "/");

// "8GiB", "500 MB", "1.5e9": a number of bytes, with or without a unit (kB, MB, GB, TB of 1000; KiB, MiB, GiB, TiB of
// 1024).
Result<size_t> parse_bytes(std::string_view text);
// "20%" or "0.2".
Result<double> parse_share(std::string_view text);
// "1.5 GiB"
std::string format_bytes(size_t bytes);

}  // namespace deepseek
