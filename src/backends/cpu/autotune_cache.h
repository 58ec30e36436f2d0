// The fastest of the kernels that take a node, by timing them, and what was found before: kept per machine in a file of
// the user's cache folder, so that a program compiled again is the same and costs no measurement.
// Test: tests/backends_cpu/autotune_cache_test.cc
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cpu/kernel.h"

namespace deepseek::backends::cpu {

class AutotuneCache {
 public:
  // Reads `path`, if it is there and of the same `machine`; what can't be read is measured again.
  AutotuneCache(std::string path, std::string machine);
  // $DEEPSEEK_CACHE, else $XDG_CACHE_HOME/deepseek, else ~/.cache/deepseek; of this CPU, number of threads and build.
  static AutotuneCache& of_machine();

  // The implementation that was fastest for the node of that text, or "".
  std::string find(std::string_view node);
  void remember(std::string_view node, std::string implementation);
  // Writes the file if something is new, with what other processes wrote meanwhile.
  Status save();

 private:
  void read(std::map<std::string, std::string>& into) const;

  std::string path_, machine_;
  std::mutex mutex_;
  std::map<std::string, std::string> known_;  // by hash of the node's text
  bool changed_ = false;
};

// Seconds that a run of each kernel takes at least, on operands that it may read and write. A kernel that fails takes
// infinitely long.
std::vector<double> time_kernels(const NodeInfo& node, const std::vector<const Kernel*>& kernels);

}  // namespace deepseek::backends::cpu
