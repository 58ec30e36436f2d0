#include "ops/interpreter.h"

#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {

using namespace graph;

Result<std::vector<RefTensor>> evaluate_node(const OpContext& context, std::vector<RefTensor> inputs,
                                             const std::vector<TensorType>& outputs, bool round) {
  std::vector<RefTensor> results;
  if (const ReferenceFn& fn = context.op->reference.value.fn()) {
    for (const TensorType& type : outputs) results.emplace_back(type);
    DS_TRY(fn(context, inputs, results));
  } else {
    Builder builder(*context.op->registry);
    std::vector<Expr> args;
    for (size_t i = 0; i < context.num_inputs(); ++i) args.push_back(builder.input(std::to_string(i), context.in(i)));
    const std::vector<Expr> exprs = context.op->decompose(builder, context, args);
    for (size_t i = 0; i < exprs.size(); ++i) builder.output(std::to_string(i), exprs[i]);
    DS_ASSIGN(const Graph body, builder.finish());
    DS_ASSIGN(results, evaluate_reference(body, inputs, round));
  }
  for (RefTensor& t : results)
    if (!is_float(t.dtype))
      for (double& x : t.data) x = std::trunc(x);
  if (round)
    for (RefTensor& t : results)
      if (is_float(t.dtype))
        for (double& x : t.data) {
          double bits = 0;
          store_from_double(t.dtype, &bits, 0, x);
          x = load_as_double(t.dtype, &bits, 0);
        }
  return results;
}

Result<std::vector<RefTensor>> evaluate_reference(const Graph& graph, const std::vector<RefTensor>& inputs,
                                                  bool round) {
  if (inputs.size() != graph.inputs().size())
    return invalid("reference: expected {} inputs, got {}", graph.inputs().size(), inputs.size());
  std::vector<RefTensor> values(static_cast<size_t>(graph.num_values()));
  for (size_t i = 0; i < inputs.size(); ++i) values[graph.inputs()[i].value.id] = inputs[i];
  for (const Node& node : graph.nodes()) {
    std::vector<RefTensor> in;
    for (Value v : node.inputs) in.push_back(values[v.id]);
    std::vector<TensorType> types;
    for (int32_t i = 0; i < node.num_outputs; ++i) types.push_back(graph.type(node.output(i)));
    DS_ASSIGN(std::vector<RefTensor> out, evaluate_node(graph.context(node), std::move(in), types, round));
    for (size_t i = 0; i < out.size(); ++i) values[node.output(static_cast<int32_t>(i)).id] = std::move(out[i]);
  }
  std::vector<RefTensor> results;
  for (const Output& o : graph.outputs()) results.push_back(values[o.value.id]);
  for (const Update& u : graph.updates()) results.push_back(values[u.value.id]);
  return results;
}

}  // namespace deepseek::ops
