#include "passes/bind_inputs.h"

#include <algorithm>

#include "graph/cloner.h"

namespace deepseek::passes {

using namespace graph;

Result<Graph> bind_inputs(const Graph& graph, const std::map<std::string, Tensor>& values) {
  if (values.empty()) return graph;
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  std::vector<bool> bound;
  size_t found = 0;
  for (const Input& input : graph.inputs()) {
    const auto value = values.find(input.name);
    bound.push_back(value != values.end());
    if (!bound.back()) {
      cloner[input.value] = builder.input(input.name, graph.type(input.value), input.kind);
      continue;
    }
    ++found;
    if (value->second.type() != graph.type(input.value))
      return invalid("input '{}': expected a constant {}, got {}", input.name, to_string(graph.type(input.value)),
                     to_string(value->second.type()));
    cloner[input.value] = builder.constant(value->second);
  }
  if (found < values.size())
    for (const auto& named : values)
      if (std::none_of(graph.inputs().begin(), graph.inputs().end(),
                       [&](const Input& input) { return input.name == named.first; }))
        return invalid("there is no input '{}' that could be a constant", named.first);
  for (const Update& update : graph.updates())
    if (bound[update.input])
      return invalid("input '{}' can't be a constant: the graph updates it", graph.inputs()[update.input].name);
  cloner.nodes();
  cloner.results();
  return builder.finish();
}

}  // namespace deepseek::passes
