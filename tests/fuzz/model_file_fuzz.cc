// Any bytes are a model or an error with a message, and a model is whole: it gives a graph for the batch sizes that it
// says it takes, or an error. Text that begins with '@' is made a file first, so that mutations reach the rules behind
// the container: "@key" before each text of the metadata, "@tensor NAME DTYPE DIM DIM ..." for a tensor of zeros.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "infer/model_file.h"

namespace {

using namespace deepseek;

void check(std::span<const std::byte> bytes) {
  const Result<infer::ModelFile> model = infer::parse_model(bytes, "fuzz");
  if (!model.ok()) {
    if (model.status().message().empty()) std::abort();
    return;
  }
  if (!infer::check_model(*model).ok()) std::abort();
  for (const int64_t size : {1, 2, 3})
    if (const Result<graph::Graph> graph = infer::graph_for(*model, size); graph.ok() && !graph::verify(*graph).ok())
      std::abort();
}

std::string file_of(std::string_view text) {
  nlohmann::json header = nlohmann::json::object(), metadata = nlohmann::json::object();
  size_t data = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.size(), text.find("\n@"));
    const std::string_view section = text.substr(1, end - 1);  // without the "@"
    text.remove_prefix(std::min(text.size(), end + 1));
    const size_t line = std::min(section.size(), section.find('\n'));
    std::istringstream words{std::string(section.substr(0, line))};
    std::string kind, name, dtype;
    if (words >> kind; kind != "tensor") {
      metadata[kind] = std::string(section.substr(std::min(section.size(), line + 1)));
      continue;
    }
    words >> name >> dtype;
    std::vector<uint64_t> dims;
    size_t bytes = dtype == "F32" ? 4 : dtype == "I64" ? 8 : 1;
    for (uint64_t dim = 0; words >> dim;) {
      dims.push_back(dim);
      if (__builtin_mul_overflow(bytes, dim, &bytes) || bytes > 65536) bytes = 0;
    }
    header[name] = {{"dtype", dtype}, {"shape", dims}, {"data_offsets", {data, data + bytes}}};
    data += bytes;
  }
  header["__metadata__"] = metadata;
  const std::string json = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(json.size() >> (8 * i));
  return file + json + std::string(data, '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(std::as_bytes(std::span(text)));
  if (text.starts_with('@')) {
    const std::string file = file_of(text);
    check(std::as_bytes(std::span(file)));
  }
  return 0;
}
