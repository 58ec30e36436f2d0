#include "graph/hash.h"

#include <bit>

namespace deepseek::graph {

namespace {

void add_number(Hasher& hasher, int64_t v) { hasher.word(static_cast<uint64_t>(v)); }

void add_value(Hasher& hasher, const AttrValue& value) {
  add_number(hasher, static_cast<int64_t>(value.index()));
  struct Visitor {
    Hasher& hasher;
    void operator()(bool v) const { hasher.word(v ? 1 : 0); }
    void operator()(int64_t v) const { add_number(hasher, v); }
    void operator()(double v) const { hasher.word(std::bit_cast<uint64_t>(v)); }
    void operator()(const std::string& v) const { hasher.text(v); }
    void operator()(const std::vector<int64_t>& v) const { hasher.bytes(v.data(), v.size() * sizeof(int64_t)); }
    void operator()(const std::vector<double>& v) const { hasher.bytes(v.data(), v.size() * sizeof(double)); }
    void operator()(DType v) const { add_number(hasher, static_cast<int64_t>(v)); }
    void operator()(const Tensor& v) const { add(hasher, v); }
    void operator()(const GraphRef& v) const {
      hasher.word(v ? 1 : 0);
      if (v) add(hasher, *v);
    }
  };
  std::visit(Visitor{hasher}, value);
}

}  // namespace

void add(Hasher& hasher, const TensorType& type) {
  add_number(hasher, static_cast<int64_t>(type.dtype));
  add_number(hasher, type.channel_block);
  hasher.bytes(type.dims.data(), type.dims.size() * sizeof(int64_t));
}

void add(Hasher& hasher, const Tensor& tensor) {
  add(hasher, tensor.type());
  const Hash128 bytes = hash_bytes(tensor.data(), tensor.defined() ? tensor.num_bytes() : 0);
  hasher.word(bytes.low);
  hasher.word(bytes.high);
}

void add(Hasher& hasher, const Graph& graph) {
  hasher.word(graph.inputs().size());
  for (const Input& input : graph.inputs()) {
    hasher.text(input.name);
    hasher.word(input.kind == InputKind::kState ? 1 : 0);
    add_number(hasher, input.value.id);
    add(hasher, graph.type(input.value));
  }
  hasher.word(graph.nodes().size());
  for (const Node& node : graph.nodes()) {
    hasher.word(reinterpret_cast<uintptr_t>(node.op));  // of its registry: two may share a name
    hasher.text(node.scope);
    for (Value v : node.inputs) add_number(hasher, v.id);
    add_number(hasher, node.first_output.id);
    add_number(hasher, node.num_outputs);
    for (int32_t i = 0; i < node.num_outputs; ++i) add(hasher, graph.type(node.output(i)));
    for (const auto& [name, value] : node.attrs) {
      hasher.text(name);
      add_value(hasher, value);
    }
  }
  hasher.word(graph.outputs().size());
  for (const Output& output : graph.outputs()) {
    hasher.text(output.name);
    add_number(hasher, output.value.id);
  }
  hasher.word(graph.updates().size());
  for (const Update& update : graph.updates()) {
    add_number(hasher, update.input);
    add_number(hasher, update.value.id);
  }
}

}  // namespace deepseek::graph
