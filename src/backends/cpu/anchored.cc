#include "backends/cpu/anchored.h"

#include "graph/cloner.h"

namespace deepseek::backends::cpu {

using namespace graph;

int Anchored::input_of(size_t operand) const {
  const Value v = node().inputs[operand];
  for (size_t i = 0; i < body.inputs().size(); ++i)
    if (body.inputs()[i].value == v) return static_cast<int>(i);
  return -1;
}

int Anchored::output_of(int32_t i) const {
  for (size_t o = 0; o < body.outputs().size(); ++o)
    if (body.outputs()[o].value == node().output(i)) return static_cast<int>(o);
  return -1;
}

Result<Graph> body_of(const NodeInfo& node) {
  if (node.context.op->name.value == "fused") return *node.context.attrs->get<GraphRef>("body");
  return graph_of(node.context);
}

Result<Anchored> find_anchor(const NodeInfo& node) {
  DS_ASSIGN(const Graph body, body_of(node));
  Anchored result{body, -1};
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    if (node.op->traits.elementwise || node.op_name() == "constant") continue;
    if (result.anchor >= 0)
      return refuse(fmt::format("{} and {} in one body", result.node().op_name(), node.op_name()));
    result.anchor = static_cast<int32_t>(n);
  }
  if (result.anchor < 0) return refuse("no heavy op in the body");
  return result;
}

Extractor::Extractor(const Anchored& anchored, Builder& to, std::function<Expr(int32_t)> make)
    : anchored_(anchored), to_(to), make_(std::move(make)), map_(static_cast<size_t>(anchored.body.num_values())) {}

Expr Extractor::add_input(const TensorType& type, int source) {
  sources_.push_back(source);
  return to_.input(std::to_string(sources_.size() - 1), type);
}

Expr Extractor::value(Value v) {
  Expr& known = map_[static_cast<size_t>(v.id)];
  if (known.defined()) return known;
  const Graph& body = anchored_.body;
  const Node* producer = body.producer(v);
  if (producer == nullptr) {
    for (size_t i = 0; i < body.inputs().size(); ++i)
      if (body.inputs()[i].value == v) return known = add_input(body.type(v), static_cast<int>(i));
  }
  if (producer == &anchored_.node()) return known = make_(v.id - producer->first_output.id);
  std::vector<Expr> inputs;
  for (Value in : producer->inputs) inputs.push_back(value(in));
  return map_[static_cast<size_t>(v.id)] = to_.op(producer->op_name(), std::move(inputs), producer->attrs);
}

Result<Loop> Loop::make(Builder& builder, std::vector<int> sources, std::vector<int> outputs, int64_t block,
                        Purpose purpose) {
  DS_ASSIGN(const Graph graph, builder.finish());
  DS_ASSIGN(TileProgram program, TileProgram::compile(graph, block, purpose));
  if (block % program.unit() != 0) return refuse("channels are not the inner axis of the loop");
  return Loop{std::move(program), std::move(sources), std::move(outputs)};
}

void Loop::bind(const KernelArgs& args, std::span<const void* const> vectors, std::vector<const void*>& in,
                std::vector<void*>& out) const {
  for (int source : sources)
    in.push_back(source >= kOutputs ? args.out[static_cast<size_t>(source - kOutputs)]
                 : source >= 0      ? args.in[static_cast<size_t>(source)]
                                    : vectors[static_cast<size_t>(-1 - source)]);
  for (int o : outputs) out.push_back(o < 0 ? nullptr : args.out[static_cast<size_t>(o)]);
}

}  // namespace deepseek::backends::cpu
