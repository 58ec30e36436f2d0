// Any bytes as graph text: either an error with a message, or a graph whose text form is a fixed point. Mutations start
// again and again from the registry's samples, so that they reach each op's type inference.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "graph/builder.h"
#include "graph/text.h"
#include "ops/registry.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace deepseek;
using namespace deepseek::graph;

// The graph of each sample of each op, as text.
std::vector<std::string> sample_texts() {
  std::vector<std::string> texts;
  for (const auto& [name, def] : ops::registry().all())
    for (const Sample& sample : def.samples.value) {
      Builder builder(ops::registry());
      std::vector<Expr> inputs;
      for (const SampleInput& input : sample.inputs) {
        const std::string id = std::to_string(inputs.size());
        inputs.push_back(builder.input(id, input.type));
      }
      const std::vector<Expr> results = builder.emit(name, inputs, sample.attrs);
      for (size_t i = 0; i < results.size(); ++i) builder.output(std::to_string(i), results[i]);
      if (Result<Graph> graph = builder.finish(); graph.ok()) texts.push_back(print(*graph));
    }
  return texts;
}

// Puts a number at the edge of something in place of one of the text's numbers.
void replace_number(std::string& text, unsigned int random) {
  constexpr const char* kEdges[] = {"0",
                                    "1",
                                    "-1",
                                    "2",
                                    "7",
                                    "-9223372036854775808",
                                    "9223372036854775807",
                                    "4611686018427387904",
                                    "4294967296",
                                    "2147483647",
                                    "65536",
                                    "nan",
                                    "1e308"};
  const auto digit = [&](size_t i) { return i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])); };
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i)
    if (digit(i) && (i == 0 || std::strchr("[,= -", text[i - 1]) != nullptr)) starts.push_back(i);
  if (starts.empty()) return;
  const size_t begin = starts[random % starts.size()];
  size_t end = begin;
  while (digit(end)) ++end;
  text.replace(begin, end - begin, kEdges[random / 7919 % std::size(kEdges)]);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  static const std::vector<std::string> texts = sample_texts();
  std::mt19937 random(seed);
  std::string text(reinterpret_cast<const char*>(data), size);
  if (random() % 32 == 0) text = texts[random() % texts.size()];
  for (unsigned int n = random() % 4; n > 0; --n) replace_number(text, static_cast<unsigned int>(random()));
  size = std::min(text.size(), max_size);
  std::memcpy(data, text.data(), size);
  return random() % 2 == 0 ? size : LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Result<Graph> parsed = parse(std::string_view(reinterpret_cast<const char*>(data), size), ops::registry());
  if (!parsed.ok()) {
    if (parsed.status().message().empty()) std::abort();
    return 0;
  }
  const std::string text = print(*parsed);
  const Result<Graph> again = parse(text, ops::registry());
  if (!again.ok() || print(*again) != text) {
    std::fprintf(stderr, "print(parse(text)) is no fixed point:\n%s\n%s\n", text.c_str(),
                 again.ok() ? print(*again).c_str() : again.status().to_string().c_str());
    std::abort();
  }
  return 0;
}
