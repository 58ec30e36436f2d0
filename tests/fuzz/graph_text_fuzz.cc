// Any bytes as graph text: either an error, or a graph whose text form is a fixed point.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "graph/text.h"
#include "ops/registry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepseek;
  Result<graph::Graph> parsed =
      graph::parse(std::string_view(reinterpret_cast<const char*>(data), size), ops::registry());
  if (!parsed.ok()) return 0;
  const std::string text = graph::print(*parsed);
  Result<graph::Graph> again = graph::parse(text, ops::registry());
  if (!again.ok() || graph::print(*again) != text) {
    std::fprintf(stderr, "print(parse(text)) is no fixed point:\n%s\n", text.c_str());
    std::abort();
  }
  return 0;
}
