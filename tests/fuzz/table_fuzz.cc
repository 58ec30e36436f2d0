// Any bytes, as a file of each format, are a table or an error with a message; a table goes through a pipeline of all
// steps, or is refused by it with a message.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tables/files.h"
#include "tables/pipeline.h"

namespace {

using namespace deepseek::tables;

void check(const Table& table) {
  auto pipeline =
      Pipeline::parse("steps: [duplicates, {impute: {flag: true}}, {outliers: {method: mad}}, constant]", "");
  if (!pipeline.ok()) std::abort();
  const auto fitted = pipeline->fit_transform(table);
  if (!fitted.ok() && fitted.status().message().empty()) std::abort();
  if (fitted.ok() && !pipeline->transform(table).ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = "/tmp/fuzz-table-" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  for (const char* format : {"csv", "jsonl", "arrow", "parquet"}) {
    const auto table = read_table(path, {.format = format});
    if (table.ok())
      check(*table);
    else if (table.status().message().empty())
      std::abort();
    const auto stream = open_table(path, {.format = format});
    if (!stream.ok() && stream.status().message().empty()) std::abort();
  }
  return 0;
}
