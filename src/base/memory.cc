#include "base/memory.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/strings.h"

namespace deepseek {

namespace {

constexpr size_t kUnknown = std::numeric_limits<size_t>::max();

// A file of one number; "max" and files that are not there are no limit.
size_t limit_in(const std::string& path) {
  std::ifstream file(path);
  size_t bytes = 0;
  return file >> bytes ? bytes : kUnknown;
}

// A line of /proc/meminfo.
size_t line_of(const std::string& root, std::string_view wanted) {
  std::ifstream file(root + "proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    size_t kibibytes = 0;
    if (words >> name >> kibibytes && name == wanted) return kibibytes * 1024;
  }
  return kUnknown;
}

// The number at the beginning of `text`, and what follows it.
Result<std::pair<double, std::string>> split(std::string_view text, const char* expected) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number < 0)
    return invalid("expected {}, got '{}'", expected, text);
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  return std::pair(number, std::string(unit));
}

}  // namespace

size_t machine_memory(const std::string& root) {
  size_t bytes = line_of(root, "MemTotal:");
  // Of version 2 of control groups every group on the way from the process's to the root counts.
  std::ifstream file(root + "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::")) continue;
    for (std::string group = line.substr(3); !group.empty(); group.resize(group.find_last_of('/')))
      bytes = std::min(bytes, limit_in(root + "sys/fs/cgroup" + group + "/memory.max"));
  }
  bytes = std::min(bytes, limit_in(root + "sys/fs/cgroup/memory.max"));
  return std::min(bytes, limit_in(root + "sys/fs/cgroup/memory/memory.limit_in_bytes"));
}

size_t available_memory(const std::string& root) {
  return std::min(machine_memory(root), line_of(root, "MemAvailable:"));
}

Result<size_t> parse_bytes(std::string_view text) {
  constexpr const char* kExpected = "an amount of memory such as 8GiB or 500MB";
  constexpr std::array<std::pair<std::string_view, double>, 10> kUnits{{{"", 1.0},
                                                                        {"B", 1.0},
                                                                        {"kB", 1e3},
                                                                        {"MB", 1e6},
                                                                        {"GB", 1e9},
                                                                        {"TB", 1e12},
                                                                        {"KiB", 1024.0},
                                                                        {"MiB", 1048576.0},
                                                                        {"GiB", 1073741824.0},
                                                                        {"TiB", 1099511627776.0}}};
  DS_ASSIGN(const auto parts, split(text, kExpected));
  for (const auto& [unit, factor] : kUnits)
    if (parts.second == unit) {
      const double bytes = parts.first * factor;
      if (bytes < 1 || bytes > 9e18) return invalid("expected {}, got '{}'", kExpected, text);
      return static_cast<size_t>(bytes);
    }
  return invalid("expected {}, got '{}'", kExpected, text);
}

Result<double> parse_share(std::string_view text) {
  constexpr const char* kExpected = "a share such as 20% or 0.2, below 1";
  DS_ASSIGN(const auto parts, split(text, kExpected));
  const double share = parts.second == "%" ? parts.first / 100 : parts.first;
  if ((parts.second != "%" && !parts.second.empty()) || share >= 1)
    return invalid("expected {}, got '{}'", kExpected, text);
  return share;
}

std::string format_bytes(size_t bytes) {
  constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", value,
                                 value < 10    ? 2
                                 : value < 100 ? 1
                                               : 0,
                                 kUnits[unit]);
}

}  // namespace deepseek
