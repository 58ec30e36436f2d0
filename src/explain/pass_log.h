// What each pass made of a graph: `deepseek explain --passes`. Collects from a PassDriver and prints.
// Test: tests/explain/pass_log_test.cc
#pragma once

#include <string>
#include <vector>

#include "passes/driver.h"

namespace deepseek::explain {

class PassLog {
 public:
  // To be given to a driver; the log outlives it.
  passes::PassObserver observer();

  struct Entry {
    std::string pass;
    graph::Graph before, after;
    double seconds;
    bool changed() const { return !before.same_as(after); }
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

struct PassLogOptions {
  std::string pass;    // only this one; empty: all
  bool graphs = true;  // the graph after each pass that changed it
  bool diff = false;   // instead of whole graphs, the lines that changed
  bool time = false;   // what each pass took, at the end
};

// One section per pass: "== simplify: 120 nodes -> 100". Errors: kInvalidArgument for a pass that did not run, with
// those that did.
Result<std::string> pass_log_text(const PassLog& log, const PassLogOptions& options);

// The lines that one text has and the other hasn't, "- old" and "+ new", in order, with up to `context` common lines
// ("  ") around each; left out lines show as "  ...". Numbers of values (%12) don't count as a difference, as passes
// number anew. Longest common subsequence.
std::string graph_diff(const graph::Graph& before, const graph::Graph& after, int64_t context = 0);

}  // namespace deepseek::explain
