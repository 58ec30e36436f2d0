#include "passes/driver.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace deepseek::passes {

using namespace graph;

namespace {

#ifdef NDEBUG
std::atomic<bool> verifies{false};
#else
std::atomic<bool> verifies{true};
#endif

// What differs for those who run or read the graph; empty if nothing.
std::string interface_difference(const Graph& before, const Graph& after) {
  if (before.inputs().size() != after.inputs().size()) return "the number of inputs";
  for (size_t i = 0; i < before.inputs().size(); ++i) {
    const Input &x = before.inputs()[i], &y = after.inputs()[i];
    if (x.name != y.name || x.kind != y.kind || before.type(x.value) != after.type(y.value))
      return "input '" + x.name + "'";
  }
  if (before.outputs().size() != after.outputs().size()) return "the number of outputs";
  for (size_t i = 0; i < before.outputs().size(); ++i) {
    const Output &x = before.outputs()[i], &y = after.outputs()[i];
    if (x.name != y.name || before.type(x.value) != after.type(y.value)) return "output '" + x.name + "'";
  }
  if (before.updates().size() != after.updates().size()) return "the number of updates";
  for (size_t i = 0; i < before.updates().size(); ++i)
    if (before.updates()[i].input != after.updates()[i].input)
      return "the update of '" + before.inputs()[static_cast<size_t>(before.updates()[i].input)].name + "'";
  return {};
}

}  // namespace

const Target& plain_target() {
  static const Target target;
  return target;
}

void verify_passes(bool on) { verifies = on; }
bool verifies_passes() { return verifies; }

bool PassDriver::disabled(std::string_view pass) const {
  return std::find(options_.disabled.begin(), options_.disabled.end(), pass) != options_.disabled.end();
}

Result<Graph> PassDriver::run(std::span<const Pass> passes, const Graph& graph) const {
  Graph current = graph;
  for (const Pass& pass : passes) {
    DS_ASSIGN(current, run(pass.name, current, pass.run));
  }
  return current;
}

Result<Graph> PassDriver::run(std::string_view name, const Graph& graph, const Transform& transform,
                              bool keeps_interface) const {
  if (disabled(name)) return graph;
  const auto begin = std::chrono::steady_clock::now();
  Result<Graph> result = transform(graph, context_);
  const auto note = [&] { return fmt::format("in pass '{}'", name); };
  if (!result.ok()) return std::move(result).status().note(note());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (verifies && !result->same_as(graph)) {
    if (Status s = verify(*result); !s.ok()) return std::move(s).note(note());
    const std::string difference = keeps_interface ? interface_difference(graph, *result) : "";
    if (!difference.empty()) return internal_error("pass '{}' changes {} of the graph", name, difference);
  }
  if (options_.observe) options_.observe({name, graph, *result, seconds});
  return result;
}

}  // namespace deepseek::passes
