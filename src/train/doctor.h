// Whether an installation works: what `deepseek doctor` tells. Test: tests/python/test_messages.py
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace deepseek::train {

struct Finding {
  std::string subject, text;
  std::string advice;  // what to do; empty where all is well
};

// Versions, devices, memory, threads, the disk of `folder`, what optional libraries are there, and some steps of
// training on each usable device. `load_error`: why a shared library of the installation can't be loaded, or "".
// Takes about a second.
std::vector<Finding> examine(const std::string& folder, const std::function<std::string(const char*)>& load_error);

}  // namespace deepseek::train
