// Runs the suite over one backend: test_conformance --backend=cpu, one GoogleTest case per check.
#include <gtest/gtest.h>

#include <string_view>

#include "backends/builtin/register.h"
#include "tests/conformance/suite.h"

namespace deepseek::conformance {
namespace {

class CheckTest : public ::testing::Test {
 public:
  CheckTest(const Check& check, const runtime::Backend& backend) : check_(check), backend_(backend) {}
  void TestBody() override {
    for (const std::string& failure : check_.run(backend_)) ADD_FAILURE() << failure;
  }

 private:
  const Check& check_;
  const runtime::Backend& backend_;
};

int run(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::string name(runtime::kDefaultDevice);
  for (int i = 1; i < argc; ++i)
    if (const std::string_view argument = argv[i]; argument.starts_with("--backend=")) name = argument.substr(10);
  backends::builtin::register_backends();
  const Result<runtime::BackendPtr> backend = runtime::open_backend(name);
  if (!backend.ok()) {
    fmt::print(stderr, "{}\n", backend.status().to_string());
    return 2;
  }
  for (const Check& check : checks())
    ::testing::RegisterTest("Conformance", check.name.c_str(), nullptr, name.c_str(), __FILE__, __LINE__,
                            [&check, backend]() -> CheckTest* { return new CheckTest(check, **backend); });
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace deepseek::conformance

int main(int argc, char** argv) { return deepseek::conformance::run(argc, argv); }
