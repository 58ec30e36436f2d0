// The stable text form: print(parse(text)) == text and parse(print(graph)) == graph. Example:
//   graph {
//     input %0 "x" : f32[2,3]
//     state %1 "w" : f32[3,4]
//     %2 = matmul(%0, %1) {transpose_a=false, transpose_b=false} : f32[2,4] @"fc"
//     output "y" %2
//     update "w" %3
//   }
// Tensors print as f32[2]<1,2> with enough digits to be exact, or, where they lie outside of the text, as f32[2]<"name">;
// bodies as nested graph { ... }. Test: tests/graph/text_test.cc
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace deepseek::graph {

// What a tensor outside of the text is called; nothing where it is to stand in the text.
using NameTensor = std::function<std::optional<std::string>(const Tensor&)>;
using FindTensor = std::function<Result<Tensor>(const std::string& name)>;

struct ParseOptions {
  FindTensor outside = {};     // none: no tensor may lie outside
  bool fill_defaults = false;  // attributes that an op has got since the text was written take their defaults
};

std::string print(const Graph& graph, const NameTensor& outside = {});
// `where` names the source in errors ("file.graph"): "file.graph:3:14: expected ..., got ...".
Result<Graph> parse(std::string_view text, const OpRegistry& registry, std::string_view where = "graph",
                    const ParseOptions& options = {});
std::string print(const AttrValue& value);

}  // namespace deepseek::graph
