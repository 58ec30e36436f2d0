// Graphs from text, and what tests of passes ask of them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "graph/text.h"
#include "ops/registry.h"

namespace deepseek::passes {

inline graph::Graph parsed(const char* text) {
  Result<graph::Graph> result = graph::parse(text, ops::registry());
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  return result.ok() ? *result : graph::Graph(graph::Graph::Data{});
}
inline std::vector<std::string> ops_of(const graph::Graph& graph) {
  std::vector<std::string> names;
  for (const graph::Node& node : graph.nodes()) names.push_back(node.op_name());
  return names;
}

}  // namespace deepseek::passes
