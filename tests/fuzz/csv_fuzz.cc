// Any bytes are a table or an error with a message; a table goes through a pipeline of all steps, or is refused by it
// with a message.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tables/files.h"
#include "tables/pipeline.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepseek::tables;
  static const std::string path = "/tmp/fuzz-" + std::to_string(getpid()) + ".csv";
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  const auto table = read_table(path);
  if (!table.ok()) {
    if (table.status().message().empty()) std::abort();
    return 0;
  }
  auto pipeline =
      Pipeline::parse("steps: [duplicates, {impute: {flag: true}}, {outliers: {method: mad}}, constant]", "");
  if (!pipeline.ok()) std::abort();
  const auto fitted = pipeline->fit_transform(*table);
  if (!fitted.ok() && fitted.status().message().empty()) std::abort();
  if (fitted.ok() && !pipeline->transform(*table).ok()) std::abort();
  return 0;
}
