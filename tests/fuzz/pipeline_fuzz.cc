// Any bytes are a saved pipeline or an error with a message, and as YAML steps or an error; what is read runs on a
// table and becomes SQL, or refuses to with a message. The same for feature synthesis, saved and described.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "features/synthesis.h"
#include "tables/pipeline.h"

namespace {

void check(const deepseek::Status& status) {
  if (!status.ok() && status.message().empty()) std::abort();
}

}  // namespace

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
  if (const auto loaded = Pipeline::load(path); loaded.ok()) {
    check(loaded->transform(table).status());
    check(loaded->to_sql(size % 2 == 0 ? "duckdb" : "spark", "data").status());
  } else {
    check(loaded.status());
  }
  if (auto parsed = Pipeline::parse(text, "fuzz"); parsed.ok()) {
    check(parsed->fit_transform(table).status());
  } else {
    check(parsed.status());
  }
  using deepseek::features::Synthesis;
  const deepseek::features::NamedTables tables = {{"a", table}, {"b", table}};
  if (const auto loaded = Synthesis::load(path); loaded.ok()) {
    check(loaded->transform(tables).status());
  } else {
    check(loaded.status());
  }
  if (auto config = deepseek::features::SynthesisConfig::parse(text, "fuzz"); config.ok()) {
    config->options.max_features = 50;
    config->options.depth = std::min<int64_t>(config->options.depth, 3);
    Synthesis synthesis(*config);
    if (const deepseek::Status fitted = synthesis.fit(tables); fitted.ok())
      check(synthesis.transform(tables).status());
    else
      check(fitted);
  } else {
    check(config.status());
  }
  return 0;
}
