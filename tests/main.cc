// Tests run where a program would: with the built-in backends registered.
#include <gtest/gtest.h>

#include "backends/builtin/register.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  deepseek::backends::builtin::register_backends();
  return RUN_ALL_TESTS();
}
