// The version of this build, of the CMake project. Test: tests/train/model_export_test.cc
#pragma once

#include <string>

namespace deepseek {

std::string version();  // "0.1.0"

}  // namespace deepseek
