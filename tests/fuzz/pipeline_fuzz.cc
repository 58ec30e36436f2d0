// Any bytes are a saved pipeline or an error with a message, and as YAML steps or an error; what is read runs on a
// table, or refuses it with a message.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "tables/pipeline.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepseek::tables;
  static const std::string path = "/tmp/fuzz-" + std::to_string(getpid()) + ".json";
  static const Table table = [] {
    arrow::DoubleBuilder x;
    arrow::StringBuilder s;
    const bool made = x.AppendValues({1, 2, 3}).ok() && x.AppendNull().ok() && s.AppendValues({"a", "b", "a", ""}).ok();
    if (!made) std::abort();
    return arrow::Table::Make(arrow::schema({arrow::field("x", arrow::float64()), arrow::field("s", arrow::utf8())}),
                              {x.Finish().ValueOrDie(), s.Finish().ValueOrDie()});
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::ofstream(path, std::ios::binary) << text;
  const auto loaded = Pipeline::load(path);
  if (!loaded.ok()) {
    if (loaded.status().message().empty()) std::abort();
  } else if (const auto done = loaded->transform(table); !done.ok() && done.status().message().empty()) {
    std::abort();
  }
  auto parsed = Pipeline::parse(text, "fuzz");
  if (!parsed.ok()) {
    if (parsed.status().message().empty()) std::abort();
  } else if (const auto done = parsed->fit_transform(table); !done.ok() && done.status().message().empty()) {
    std::abort();
  }
  return 0;
}
