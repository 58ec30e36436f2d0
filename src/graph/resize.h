// The graph that code would trace for inputs of another size, without running the code: from its traces for two sizes.
// What differs between the two must be proportional to the size (a batch of 8 that became 24 times 8 in one trace has
// to be 24 times 16 in the other); everything else must be equal, also the sizes that the code has looked at
// (Builder::observe). Inference then runs anew, node by node, and must agree. Else the error says what does not fit,
// and the caller traces. Test: tests/graph/resize_test.cc
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/builder.h"

namespace deepseek::graph {

// `inputs`: the types of the data inputs, in order.
Result<Graph> resize(const Graph& a, const Graph& b, std::span<const TensorType> inputs);

// Traces of one piece of code. Not for several threads at once.
class Traces {
 public:
  // The graph for data inputs of these types: a known one, one by resize(), or else by `trace`.
  Result<Graph> get(std::span<const TensorType> inputs, const std::function<Result<Graph>()>& trace);
  int64_t count() const { return count_; }               // how often `trace` ran
  const std::string& reason() const { return reason_; }  // why it ran the last time
  void clear() { known_.clear(); }

 private:
  std::map<std::string, std::deque<Graph>> known_;  // by dtypes and ranks; the latest first
  int64_t count_ = 0;
  std::string reason_;
};

}  // namespace deepseek::graph
