#include "data/table_writer.h"

#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "data/builtin_sources.h"
#include "io/atomic_file.h"

namespace deepseek::data {
namespace {

std::mutex mutex;
TableWriter registered;

// The shortest text that reads back as the same number.
template <class T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, std::string>)
    return dump_json(nlohmann::json(value), -1, true);
  else if constexpr (std::is_floating_point_v<T>)
    return std::isfinite(value) ? fmt::format("{}", value) : "null";
  else
    return fmt::format("{}", value);
}

Status write_json_lines(const std::string& path, const std::function<Status(const WritePart&)>& produce) {
  return io::write_file_atomic(path, [&](const io::WriteBytes& write) {
    return produce([&](const TablePart& part) -> Status {
      if (part.empty()) return {};
      const size_t rows = std::visit([](const auto& v) { return v.size(); }, part[0].values);
      std::string text;
      for (size_t row = 0; row < rows; ++row) {
        for (size_t c = 0; c < part.size(); ++c)
          text += (c == 0 ? "{" : ", ") + text_of(part[c].name) + ": " +
                  std::visit([&](const auto& v) { return text_of(v.at(row)); }, part[c].values);
        text += "}\n";
      }
      return write(std::as_bytes(std::span(text.data(), text.size())));
    });
  });
}

}  // namespace

void register_table_writer(TableWriter writer) {
  const std::lock_guard lock(mutex);
  registered = std::move(writer);
}

Status write_table(const std::string& path, const std::function<Status(const WritePart&)>& produce) {
  for (const char* suffix : {".jsonl", ".ndjson"})
    if (path.ends_with(suffix)) return write_json_lines(path, produce);
  DS_TRY(load_source_library("table").note("to write '" + path + "'; .jsonl files need nothing"));
  TableWriter writer;
  {
    const std::lock_guard lock(mutex);
    writer = registered;
  }
  if (!writer) return internal_error("the library of tables registered no writer");
  return writer(path, produce);
}

}  // namespace deepseek::data
