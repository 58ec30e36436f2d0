#include "runtime/backend.h"

#include <gtest/gtest.h>

namespace deepseek::runtime {
namespace {

TEST(Backends, AreFoundByName) {
  const Result<BackendPtr> cpu = open_backend("cpu");
  ASSERT_TRUE(cpu.ok()) << cpu.status().to_string();
  EXPECT_EQ((*cpu)->name(), "cpu");
  EXPECT_EQ(open_backend("cpu")->get(), cpu->get());  // one for all
  EXPECT_EQ(open_backend("null").value()->name(), "null");
  EXPECT_EQ(open_backend("cup").status().message(),
            "there is no device 'cup'; there are: cpu, null; did you mean 'cpu'?");
  EXPECT_EQ(registered_backends()[0].name, "cpu");
}

TEST(Backends, AreRegisteredOnceAndSayWhyTheyAreNotUsable) {
  static int opened = 0;
  ASSERT_TRUE(register_backend({"broken", "for this test",
                                []() -> Result<BackendPtr> {
                                  ++opened;
                                  return make_error(ErrorCode::kUnsupported, "there is no such chip");
                                }})
                  .ok());
  EXPECT_EQ(register_backend({"broken", "again", {}}).message(), "backend 'broken' is registered twice");
  for (int i = 0; i < 2; ++i) {
    const Status status = open_backend("broken").status();
    EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(status.to_string(), "there is no such chip\n  note: while opening the device 'broken'");
  }
  EXPECT_EQ(opened, 1);
}

}  // namespace
}  // namespace deepseek::runtime
