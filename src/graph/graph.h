// An immutable program in SSA form: nodes in topological order, each value produced once. A Graph is a cheap handle.
// State (parameters, moments, running statistics, random counters) are inputs of kind kState whose new value is one of
// the graph's updates; a program writes it back in place. Build with builder.h; text form in text.h.
// Test: tests/graph/graph_test.cc
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/attrs.h"
#include "graph/op_def.h"
#include "graph/tensor_type.h"

namespace deepseek::graph {

struct Value {
  int32_t id = -1;
  bool defined() const { return id >= 0; }
  bool operator==(const Value&) const = default;
};

struct Node {
  const OpDef* op = nullptr;
  std::vector<Value> inputs;
  Value first_output;
  int32_t num_outputs = 1;
  Attrs attrs;
  std::string scope;  // "encoder/3/attention": which layer it came from

  const std::string& op_name() const { return op->name.value; }
  Value output(int32_t i = 0) const { return {first_output.id + i}; }
};

enum class InputKind { kData, kState };

struct Input {
  std::string name;
  InputKind kind = InputKind::kData;
  Value value;
};
struct Output {
  std::string name;
  Value value;
};
// State `input` (index into inputs) takes `value` when the program has run.
struct Update {
  int32_t input;
  Value value;
};

class Graph {
 public:
  struct Data {
    std::vector<TensorType> types;  // by value id
    std::vector<int32_t> producer;  // node index by value id, -1 for inputs
    std::vector<Input> inputs;
    std::vector<Node> nodes;  // topological order
    std::vector<Output> outputs;
    std::vector<Update> updates;
    std::vector<int64_t> observed;
    const OpRegistry* registry = nullptr;  // that its ops come from, or that extends theirs; outlives the graph
  };
  Graph() = default;
  explicit Graph(Data data) : data_(std::make_shared<const Data>(std::move(data))) {}

  bool defined() const { return data_ != nullptr; }
  std::span<const Input> inputs() const { return data_->inputs; }
  std::span<const Node> nodes() const { return data_->nodes; }
  std::span<const Output> outputs() const { return data_->outputs; }
  std::span<const Update> updates() const { return data_->updates; }
  // What its ops come from, and passes take further ones from: an op of a plugin or a test lies beside the built-in
  // ones.
  const OpRegistry& registry() const { return *data_->registry; }
  bool has_registry() const { return data_->registry != nullptr; }
  // The sizes that the code which traced the graph decided something by, in order: see resize.h. Passes drop them.
  std::span<const int64_t> observed() const { return data_->observed; }
  int32_t num_values() const { return static_cast<int32_t>(data_->types.size()); }
  const TensorType& type(Value v) const { return data_->types[v.id]; }
  // The node that makes v; null for an input.
  const Node* producer(Value v) const {
    const int32_t i = data_->producer[v.id];
    return i < 0 ? nullptr : &data_->nodes[i];
  }
  int32_t find_input(std::string_view name) const;  // index, or -1
  int32_t find_output(std::string_view name) const;
  OpContext context(const Node& node) const;
  // How many times each value is read, by nodes, outputs and updates.
  std::vector<int32_t> use_counts() const;
  // Same storage: what the pass driver calls "(unchanged)".
  bool same_as(const Graph& other) const { return data_ == other.data_; }

 private:
  std::shared_ptr<const Data> data_;
};

// Checks SSA order, types against inference, names, updates; the error names the node. Builders, the parser and the
// pass driver call it.
Status verify(const Graph& graph);

}  // namespace deepseek::graph
