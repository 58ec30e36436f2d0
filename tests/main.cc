// Tests run where a program would: with the built-in backends registered; and every pass is checked.
#include <gtest/gtest.h>

#include "backends/builtin/register.h"
#include "passes/driver.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  deepseek::backends::builtin::register_backends();
  deepseek::passes::verify_passes(true);
  return RUN_ALL_TESTS();
}
