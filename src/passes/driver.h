// The one way that graphs go through passes. Each pass has a name, by which it is timed, checked, shown and disabled.
// Invariant: a pass keeps the graph's interface (names, types and kinds of inputs, outputs and updates), unless it says
// otherwise. Test: tests/passes/driver_test.cc
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "passes/target.h"

namespace deepseek::passes {

// What every pass gets beside the graph.
struct PassContext {
  const Target& target = plain_target();
};

struct Pass {
  std::string_view name, doc;
  Result<graph::Graph> (*run)(const graph::Graph&, const PassContext&);
};

// One pass that ran.
struct PassRecord {
  std::string_view pass;
  const graph::Graph& before;
  const graph::Graph& after;
  double seconds = 0;
  bool changed() const { return !before.same_as(after); }
};
using PassObserver = std::function<void(const PassRecord&)>;

struct DriverOptions {
  std::vector<std::string> disabled;  // names of passes
  PassObserver observe = {};          // called after each one
};

// Whether drivers verify the graph and its interface after each pass: by default in debug builds. Tests turn it on.
void verify_passes(bool on);
bool verifies_passes();

class PassDriver {
 public:
  explicit PassDriver(const Target& target = plain_target(), DriverOptions options = {})
      : context_{target}, options_(std::move(options)) {}

  bool disabled(std::string_view pass) const;
  // The graph after the passes in order, those that are disabled left out. Errors tell which pass they come from.
  Result<graph::Graph> run(std::span<const Pass> passes, const graph::Graph& graph) const;
  // A pass with further parameters, such as autodiff. `keeps_interface`: as passes do.
  using Transform = std::function<Result<graph::Graph>(const graph::Graph&, const PassContext&)>;
  Result<graph::Graph> run(std::string_view name, const graph::Graph& graph, const Transform& transform,
                           bool keeps_interface = true) const;

 private:
  PassContext context_;
  DriverOptions options_;
};

}  // namespace deepseek::passes
