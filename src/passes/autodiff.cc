#include "passes/autodiff.h"

#include "graph/cloner.h"
#include "ops/dsl.h"
#include "passes/decompose.h"
#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// Composites without a rule of their own: element-wise ones stay whole (their gradient recomputes the decomposition,
// which fuses into one loop), others are taken apart first so that nothing is computed twice.
bool take_apart(const Graph&, const Node& node) {
  return node.op->gradient.value.differentiable() && !node.op->gradient.value.fn() && !node.op->traits.elementwise;
}

Result<Graph> extend_body(const Graph& body);

// The graph as it is differentiated: composites are taken apart, and nodes return what their gradients need.
Result<Graph> open(const Graph& original) {
  DS_ASSIGN(const Graph graph, decompose(original, take_apart));
  return rewrite(graph,
                 [&](Builder& builder, const Graph& g, const Node& node,
                     const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
                   const ExtendFn& extend = node.op->gradient.value.extend();
                   if (!extend) return std::nullopt;
                   const OpContext context = g.context(node);
                   ExtendContext c{builder, context, inputs, [&](const Graph& body) { return extend_body(body); }};
                   std::vector<Expr> outputs = extend(c);
                   if (outputs.empty()) return std::nullopt;
                   return outputs;
                 });
}

class Backward {
 public:
  Backward(Builder& builder, const Graph& graph, const std::vector<Expr>& values)
      : builder_(builder), graph_(graph), values_(values), grads_(values.size()), active_(values.size()) {}

  // Which values depend on what is differentiated.
  void activate(Value input) { active_[input.id] = true; }
  void seed(Value value, Expr grad) { accumulate(value, grad); }

  Status run() {
    for (const Node& node : graph_.nodes()) {
      bool any = false;
      for (Value v : node.inputs) any = any || active_[v.id];
      for (int32_t i = 0; i < node.num_outputs; ++i)
        active_[node.output(i).id] = any && is_float(graph_.type(node.output(i)).dtype);
    }
    for (size_t i = graph_.nodes().size(); i-- > 0;) DS_TRY(node_backward(graph_.nodes()[i]));
    return builder_.status();
  }
  Expr grad(Value v) const { return grads_[v.id]; }

 private:
  void accumulate(Value v, Expr grad) {
    if (!grad.defined()) return;
    grads_[v.id] = grads_[v.id].defined() ? ops::add(grads_[v.id], grad) : grad;
  }

  Status node_backward(const Node& node) {
    bool reached = false, wanted = false;
    for (int32_t i = 0; i < node.num_outputs; ++i) reached = reached || grads_[node.output(i).id].defined();
    for (Value v : node.inputs) wanted = wanted || active_[v.id];
    if (!reached || !wanted) return {};
    const Gradient& gradient = node.op->gradient.value;
    if (!gradient.differentiable())
      return make_error(ErrorCode::kUnsupported, "[{}] node '{}': cannot be differentiated: {}", node.op_name(),
                        node.scope, gradient.reason());
    const OpContext context = graph_.context(node);
    GradContext g{
        builder_, context, {}, {}, {}, {}, [this](const Graph& body, size_t saved) { return vjp(body, saved); }};
    for (Value v : node.inputs) {
      g.inputs.push_back(values_[v.id]);
      g.needs.push_back(active_[v.id]);
    }
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      g.outputs.push_back(values_[node.output(i).id]);
      g.output_grads.push_back(grads_[node.output(i).id]);
    }
    Scope scope(builder_, "");
    builder_.set_scope(node.scope.empty() ? "backward" : "backward/" + node.scope);
    DS_ASSIGN(std::vector<Expr> grads, gradient.fn() ? gradient.fn()(g) : by_decomposition(g));
    if (!builder_.status().ok())
      return Status(builder_.status()).note("while differentiating node '" + node.scope + "'");
    if (grads.size() != node.inputs.size())
      return internal_error("[{}] gradient rule returned {} gradients for {} inputs", node.op_name(), grads.size(),
                            node.inputs.size());
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined() || !active_[node.inputs[i].id]) continue;
      if (grads[i].type() != graph_.type(node.inputs[i]))
        return internal_error("[{}] gradient of input {}: expected {}, got {}", node.op_name(), i,
                              to_string(graph_.type(node.inputs[i])), to_string(grads[i].type()));
      accumulate(node.inputs[i], grads[i]);
    }
    return {};
  }

  Result<std::vector<Expr>> by_decomposition(GradContext& g) {
    DS_ASSIGN(Graph body, decomposition_graph(g.node));
    DS_ASSIGN(Graph derivative, vjp(body));
    std::vector<Expr> args = g.inputs;
    for (size_t i = 0; i < g.outputs.size(); ++i)
      if (is_float(g.outputs[i].dtype()))
        args.push_back(g.output_grads[i].defined() ? g.output_grads[i] : ops::zeros_like(g.outputs[i]));
    const std::vector<Expr> results = builder_.inline_graph(derivative, args);
    std::vector<Expr> grads(g.inputs.size());
    for (size_t i = 0, next = 0; i < grads.size(); ++i)
      if (is_float(g.inputs[i].dtype())) grads[i] = results[next++];
    return grads;
  }

  Builder& builder_;
  const Graph& graph_;
  const std::vector<Expr>& values_;
  std::vector<Expr> grads_;
  std::vector<bool> active_;
};

// One gradient per float input, from a new input for each float one among `outputs`.
Result<std::vector<Expr>> gradients(Builder& builder, const Graph& graph, const std::vector<Expr>& values,
                                    std::span<const Output> outputs) {
  DS_TRY(builder.status());
  Backward backward(builder, graph, values);
  for (const Input& input : graph.inputs())
    if (is_float(graph.type(input.value).dtype)) backward.activate(input.value);
  for (const Output& output : outputs)
    if (is_float(graph.type(output.value).dtype))
      backward.seed(output.value, builder.input("grad:" + output.name, graph.type(output.value)));
  DS_TRY(backward.run());
  std::vector<Expr> grads;
  for (const Input& input : graph.inputs()) {
    if (!is_float(graph.type(input.value).dtype)) continue;
    const Expr grad = backward.grad(input.value);
    grads.push_back(grad.defined() ? grad : ops::zeros_like(values[input.value.id]));
  }
  return grads;
}

// What is computed again rather than kept, if its operands are at hand: it costs about as much as reading it.
bool is_light(const Node& node) {
  const std::string& op = node.op_name();
  return node.op->traits.elementwise || node.op->traits.view || op == "constant" || op == "broadcast_to" ||
         op == "slice";
}

Result<Graph> extend_body(const Graph& original) {
  DS_ASSIGN(const Graph graph, open(original));
  Builder builder(original.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  cloner.nodes();
  const std::vector<Expr>& values = cloner.values();
  const size_t forward = builder.data().nodes.size();
  DS_ASSIGN(const std::vector<Expr> grads, gradients(builder, graph, values, graph.outputs()));
  DS_TRY(builder.status());
  const Graph::Data& all = builder.data();
  std::vector<bool> read(all.types.size());  // by the nodes of the derivative
  for (Expr grad : grads) read[grad.value().id] = true;
  for (size_t n = all.nodes.size(); n-- > forward;) {
    const Node& node = all.nodes[n];
    bool live = false;
    for (int32_t i = 0; i < node.num_outputs; ++i) live = live || read[node.output(i).id];
    if (live)
      for (Value v : node.inputs) read[v.id] = true;
  }
  std::vector<bool> near(values.size());  // light work away from inputs and what is kept
  for (const Input& input : graph.inputs()) near[input.value.id] = true;
  Builder result(original.registry());
  Cloner copies(result, graph);
  copies.inputs();
  copies.nodes();
  copies.results();
  for (const Node& node : graph.nodes()) {
    bool light = is_light(node);
    for (Value v : node.inputs) light = light && near[v.id];
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      const int32_t v = node.output(i).id;
      const bool keep = !light && read[values[v].value().id];
      near[v] = light || keep;
      if (keep) result.output(fmt::format("saved:{}", v), copies.values()[v]);
    }
  }
  return result.finish();
}

}  // namespace

Result<Graph> autodiff(const Graph& original, const std::string& loss, const std::vector<std::string>& parameters) {
  DS_ASSIGN(const Graph graph, open(original));
  const int32_t loss_index = graph.find_output(loss);
  if (loss_index < 0) return invalid("there is no output '{}' to differentiate", loss);
  const Value loss_value = graph.outputs()[loss_index].value;
  if (const TensorType& t = graph.type(loss_value); t.num_elements() != 1 || !is_float(t.dtype))
    return invalid("expected the loss '{}' to be one float, got {}; reduce it with mean or sum", loss, to_string(t));
  Builder builder(original.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  cloner.nodes();
  DS_TRY(builder.status());
  const std::vector<Expr>& values = cloner.values();
  Backward backward(builder, graph, values);
  for (const std::string& name : parameters) {
    const int32_t i = graph.find_input(name);
    if (i < 0) return invalid("there is no input '{}' to differentiate by", name);
    if (!is_float(graph.type(graph.inputs()[i].value).dtype))
      return invalid("input '{}' is {}; only floats have gradients", name,
                     to_string(graph.type(graph.inputs()[i].value)));
    backward.activate(graph.inputs()[i].value);
  }
  const Expr loss_expr = values[loss_value.id];
  backward.seed(loss_value, ops::broadcast_to(ops::constant_like(loss_expr, 1), loss_expr.dims()));
  DS_TRY(backward.run());
  cloner.results();
  for (const std::string& name : parameters) {
    const Value v = graph.inputs()[graph.find_input(name)].value;
    builder.output("grad:" + name, backward.grad(v).defined() ? backward.grad(v) : ops::zeros_like(values[v.id]));
  }
  return builder.finish();
}

Result<Graph> vjp(const Graph& original, size_t saved) {
  DS_ASSIGN(const Graph graph, open(original));
  Builder builder(original.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  const std::span<const Output> outputs(graph.outputs().data(), graph.outputs().size() - saved);
  for (size_t i = outputs.size(); i < graph.outputs().size(); ++i) {
    const Output& output = graph.outputs()[i];
    cloner[output.value] = builder.input(output.name, graph.type(output.value));
  }
  cloner.nodes();
  DS_ASSIGN(const std::vector<Expr> grads, gradients(builder, graph, cloner.values(), outputs));
  size_t next = 0;
  for (const Input& input : graph.inputs())
    if (is_float(graph.type(input.value).dtype)) builder.output("grad:" + input.name, grads[next++]);
  return builder.finish();
}

}  // namespace deepseek::passes
