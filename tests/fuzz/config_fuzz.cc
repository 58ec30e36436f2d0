// Any bytes as a run's config (and one line as a --set override): either an error with a message, or options whose YAML
// form reads back to the same options.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "train/run_options.h"

namespace {

using namespace deepseek;

void check(const Status& status, OptionTable& table) {
  if (!status.ok()) {
    if (status.message().empty()) std::abort();
    return;
  }
  const std::string yaml = table.to_yaml();
  train::RunOptions again;
  OptionTable other = train::option_table(again);
  const Status reread = other.load_yaml(yaml, "again");
  if (!reread.ok() || other.to_yaml() != yaml) {
    std::fprintf(stderr, "%s\ndoes not read back (%s); it became\n%s\n", yaml.c_str(), reread.to_string().c_str(),
                 other.to_yaml().c_str());
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  train::RunOptions options;
  OptionTable table = train::option_table(options);
  check(table.load_yaml(text, "fuzz"), table);
  train::RunOptions overridden;
  OptionTable one = train::option_table(overridden);
  check(one.set(text.substr(0, text.find('\n')), "--set"), one);
  return 0;
}
