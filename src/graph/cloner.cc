#include "graph/cloner.h"

#include <algorithm>

namespace deepseek::graph {

void Cloner::inputs() {
  for (const Input& input : graph_.inputs())
    (*this)[input.value] = builder_.input(input.name, graph_.type(input.value), input.kind);
}

void Cloner::nodes() {
  for (const Node& node : graph_.nodes()) {
    std::vector<Expr> given;
    for (int32_t i = 0; i < node.num_outputs; ++i) given.push_back(at(node.output(i)));
    if (std::all_of(given.begin(), given.end(), [](Expr e) { return e.defined(); })) continue;
    copy(node);
    for (int32_t i = 0; i < node.num_outputs; ++i)
      if (given[static_cast<size_t>(i)].defined()) (*this)[node.output(i)] = given[static_cast<size_t>(i)];
  }
  builder_.set_scope("");
}

void Cloner::results() {
  builder_.set_scope("");
  for (const Output& output : graph_.outputs()) builder_.output(output.name, at(output.value));
  for (const Update& update : graph_.updates())
    builder_.update(at(graph_.inputs()[static_cast<size_t>(update.input)].value), at(update.value));
}

std::vector<Expr> Cloner::at(const std::vector<Value>& values) const {
  std::vector<Expr> list;
  list.reserve(values.size());
  for (Value v : values) list.push_back(at(v));
  return list;
}

std::vector<Expr> Cloner::copy(const Node& node, std::vector<Expr> operands, Attrs attrs) {
  builder_.set_scope(node.scope);
  std::vector<Expr> outputs = builder_.emit(node.op_name(), std::move(operands), std::move(attrs));
  set(node, outputs);
  return outputs;
}

void Cloner::set(const Node& node, const std::vector<Expr>& outputs) {
  // After an error there may be fewer; the builder has it.
  for (int32_t i = 0; i < node.num_outputs && static_cast<size_t>(i) < outputs.size(); ++i)
    (*this)[node.output(i)] = outputs[static_cast<size_t>(i)];
}

Result<Graph> graph_of(const OpContext& context, const std::vector<bool>& used) {
  Builder builder(*context.op->registry);
  std::vector<Expr> inputs;
  for (size_t i = 0; i < context.num_inputs(); ++i) inputs.push_back(builder.input(std::to_string(i), context.in(i)));
  const std::vector<Expr> outputs = builder.emit(context.op->name.value, std::move(inputs), *context.attrs);
  for (size_t i = 0; i < outputs.size(); ++i)
    if (used.empty() || used[i]) builder.output(std::to_string(i), outputs[i]);
  return builder.finish();
}

}  // namespace deepseek::graph
