#include "ops/scan.h"

#include <algorithm>
#include <map>
#include <optional>

#include "ops/common.h"
#include "ops/interpreter.h"

namespace deepseek::ops {

using graph::Graph;

namespace {

// Where operands and results of a scan stand.
struct Layout {
  const Graph* body;
  size_t carries, xs, consts, ys;
  bool reverse, save;
  explicit Layout(const OpContext& c)
      : body(c.attrs->get<graph::GraphRef>("body").get()),
        carries(static_cast<size_t>(c.integer("num_carry"))),
        xs(static_cast<size_t>(c.integer("num_xs"))),
        consts(c.num_inputs() - carries - xs),
        ys(body->outputs().size() - carries),
        reverse(c.flag("reverse")),
        save(c.flag("save_carries")) {}
};

TensorType stacked(int64_t steps, TensorType type) {
  type.dims.insert(type.dims.begin(), steps);
  return type;
}

TypesOrError infer_scan(const OpContext& c) {
  const auto& body = c.attrs->get<graph::GraphRef>("body");
  const int64_t carries = c.integer("num_carry"), xs = c.integer("num_xs"),
                inputs = static_cast<int64_t>(c.num_inputs());
  if (!body || !body->defined()) return invalid("expected a body graph, got none");
  if (carries < 0 || xs < 1 || carries > inputs || xs > inputs - carries)
    return invalid("expected num_carry >= 0, num_xs >= 1 and at most {} inputs of both, got {} and {}", inputs, carries,
                   xs);
  if (static_cast<int64_t>(body->inputs().size()) != inputs)
    return invalid("expected a body with {} inputs (carries, slices, consts), got {}", inputs, body->inputs().size());
  if (static_cast<int64_t>(body->outputs().size()) < carries)
    return invalid("expected a body with at least {} outputs (new carries first), got {}", carries,
                   body->outputs().size());
  if (!body->updates().empty()) return invalid("a body updates no state; carry it instead");
  const TensorType& first = c.in(carries);
  if (first.rank() < 1) return invalid("expected xs with a leading axis, got {}", to_string(first));
  const int64_t steps = first.dims[0];
  for (int64_t i = 0; i < inputs; ++i) {
    const TensorType type = body->type(body->inputs()[i].value);
    const TensorType expected = i >= carries && i < carries + xs ? stacked(steps, type) : type;
    if (c.in(i) != expected)
      return invalid("input {}: the body's input '{}' asks for {}, got {}", i, body->inputs()[i].name,
                     to_string(expected), to_string(c.in(i)));
  }
  std::vector<TensorType> types;
  for (int64_t i = 0; i < static_cast<int64_t>(body->outputs().size()); ++i) {
    const TensorType type = body->type(body->outputs()[i].value);
    if (i < carries && type != c.in(i))
      return invalid("carry {} goes in as {} and comes out as {}", i, to_string(c.in(i)), to_string(type));
    types.push_back(i < carries ? type : stacked(steps, type));
  }
  for (int64_t i = 0; c.flag("save_carries") && i < carries; ++i) types.push_back(stacked(steps, c.in(i)));
  return types;
}

Status scan_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const Layout s(c);
  const int64_t steps = in[s.carries].dims[0];
  std::vector<RefTensor> carries(in.begin(), in.begin() + s.carries);
  const auto put = [](const RefTensor& part, RefTensor& whole, int64_t t) {
    std::copy(part.data.begin(), part.data.end(), whole.data.begin() + t * static_cast<int64_t>(part.data.size()));
  };
  for (int64_t k = 0; k < steps; ++k) {
    const int64_t t = s.reverse ? steps - 1 - k : k;
    std::vector<RefTensor> args = carries;
    for (size_t i = 0; i < s.xs; ++i) {
      RefTensor part(s.body->type(s.body->inputs()[s.carries + i].value));
      std::copy_n(in[s.carries + i].data.begin() + t * static_cast<int64_t>(part.data.size()), part.data.size(),
                  part.data.begin());
      args.push_back(std::move(part));
    }
    args.insert(args.end(), in.begin() + s.carries + s.xs, in.end());
    for (size_t i = 0; s.save && i < s.carries; ++i) put(carries[i], out[s.carries + s.ys + i], t);
    DS_ASSIGN(std::vector<RefTensor> results, evaluate_reference(*s.body, args));
    for (size_t i = 0; i < s.carries; ++i) carries[i] = results[i];
    for (size_t i = 0; i < s.ys; ++i) put(results[s.carries + i], out[s.carries + i], t);
  }
  for (size_t i = 0; i < s.carries; ++i) out[i].data = carries[i].data;
  return {};
}

Expr or_zeros(Expr grad, Expr like) { return grad.defined() ? grad : zeros_like(like); }

// A const's gradient that is a product over rows of every step: one product of the stacked factors after the scan takes
// the place of a product and a sum per step.
struct StepProduct {
  graph::Value a, b;  // in the derivative; the gradient of one step is a^T b
};

// The body of the reverse scan. Inputs: gradients of the float carries, sums for the wanted consts | carries before the
// step, xs, gradients of the float ys, gradients of the saved carries | consts. It recomputes the step. Consts whose
// gradient is a StepProduct have no sum; their factors are among the stacked results.
class BackwardBody {
 public:
  BackwardBody(const GradContext& g, const Layout& s) : g_(g), s_(s), builder_(g.builder.registry()) {}

  Result<Graph> build() {
    DS_ASSIGN(const Graph derivative, g_.differentiate_body(*s_.body));
    find_products(derivative);
    std::vector<Expr> carry_grads, const_sums, body_inputs, y_grads, saved_grads;
    for (size_t i = 0; i < s_.carries; ++i)
      if (is_float(in_type(i).dtype)) carry_grads.push_back(input("carry_grad", in_type(i)));
    for (size_t i = s_.carries + s_.xs; i < g_.inputs.size(); ++i)
      if (summed(i)) const_sums.push_back(input("const_grad", in_type(i)));
    for (size_t i = 0; i < s_.carries + s_.xs; ++i) body_inputs.push_back(input("input", in_type(i)));
    for (size_t i = s_.carries; i < s_.carries + s_.ys; ++i)
      if (const TensorType& type = s_.body->type(s_.body->outputs()[i].value); is_float(type.dtype))
        y_grads.push_back(input("y_grad", type));
    for (size_t i = 0; i < s_.carries; ++i)
      saved_grads.push_back(saved_grad(i).defined() ? input("saved_grad", in_type(i)) : Expr());
    for (size_t i = s_.carries + s_.xs; i < g_.inputs.size(); ++i) body_inputs.push_back(input("const", in_type(i)));

    std::vector<Expr> args = body_inputs;
    args.insert(args.end(), carry_grads.begin(), carry_grads.end());
    args.insert(args.end(), y_grads.begin(), y_grads.end());
    const std::vector<Expr> values = builder_.inline_values(derivative, args);
    DS_TRY(builder_.status());
    size_t next = 0, sums = 0;
    for (size_t i = 0; i < g_.inputs.size(); ++i) {
      if (!is_float(in_type(i).dtype)) continue;
      const graph::Value value = derivative.outputs()[next++].value;
      Expr grad = values[value.id];
      if (i < s_.carries)
        output(saved_grads[i].defined() ? grad + saved_grads[i] : grad);
      else if (wanted(i) && i < s_.carries + s_.xs)
        stacked_.push_back(value);
      else if (summed(i))
        output(const_sums[sums++] + grad);
    }
    for (const auto& [input, product] : products_)
      for (graph::Value v : {product.a, product.b})
        if (!stack_of(v)) stacked_.push_back(v);
    for (graph::Value v : stacked_) output(values[v.id]);
    return builder_.finish();
  }

  // The gradient of const `i`, after the scan over `xs` gave `ys`.
  Expr product(size_t i, const std::vector<Expr>& xs, const std::vector<Expr>& ys) const {
    const auto rows = [&](graph::Value v) {
      const Stack at = *stack_of(v);
      Expr all = at.from_xs ? xs[at.index] : ys[at.index];
      return reshape(all, {all.dim(0) * all.dim(1), all.dim(2)});
    };
    const StepProduct& p = products_.at(i);
    return matmul(rows(p.a), rows(p.b), true, false);
  }

  bool summed(size_t i) const { return wanted(i) && !products_.contains(i); }
  bool wanted(size_t i) const { return g_.needs[i] && is_float(in_type(i).dtype); }
  Expr saved_grad(size_t i) const { return g_.output_grads[s_.carries + s_.ys + i]; }
  const TensorType& in_type(size_t i) const { return s_.body->type(s_.body->inputs()[i].value); }

 private:
  struct Stack {  // where all steps' values of one of the derivative's values stand
    bool from_xs;
    size_t index;
  };
  std::optional<Stack> stack_of(graph::Value v) const {
    if (const auto x = inputs_.find(v.id); x != inputs_.end()) return Stack{true, x->second};
    const auto y = std::find(stacked_.begin(), stacked_.end(), v);
    if (y == stacked_.end()) return std::nullopt;
    return Stack{false, static_cast<size_t>(y - stacked_.begin())};
  }

  void find_products(const Graph& derivative) {
    const size_t sliced = s_.carries + s_.xs;  // the derivative's inputs begin with the body's
    for (size_t i = 0; i < sliced; ++i) inputs_[derivative.inputs()[i].value.id] = i;
    const auto varies = [&](graph::Value v) {  // not a const, which is the same in all steps
      for (size_t i = sliced; i < g_.inputs.size(); ++i)
        if (derivative.inputs()[i].value == v) return false;
      return derivative.type(v).rank() == 2;
    };
    size_t next = 0;
    for (size_t i = 0; i < g_.inputs.size(); ++i) {
      if (!is_float(in_type(i).dtype)) continue;
      const graph::Node* node = derivative.producer(derivative.outputs()[next++].value);
      if (i >= sliced && wanted(i) && node != nullptr && node->op_name() == "matmul" &&
          node->attrs.flag("transpose_a") && !node->attrs.flag("transpose_b") && varies(node->inputs[0]) &&
          varies(node->inputs[1]))
        products_[i] = {node->inputs[0], node->inputs[1]};
    }
  }

  Expr input(const char* name, const TensorType& type) {
    return builder_.input(name + std::to_string(builder_.data().inputs.size()), type);
  }
  void output(Expr e) { builder_.output(std::to_string(builder_.data().outputs.size()), e); }

  const GradContext& g_;
  const Layout& s_;
  Builder builder_;
  std::map<size_t, StepProduct> products_;  // by operand
  std::map<int32_t, size_t> inputs_;        // the derivative's value of each x of the reverse scan
  std::vector<graph::Value> stacked_;       // the derivative's values that the reverse scan stacks, in order
};

std::vector<Expr> scan_gradient(GradContext& g) {
  const Layout s(g.node);
  std::vector<Expr> grads(g.inputs.size());
  if (!s.save) {
    g.builder.fail(
        invalid("[scan] node '{}': its gradient reads the carries of every step; set save_carries", g.builder.scope()));
    return grads;
  }
  BackwardBody backward(g, s);
  Result<Graph> body = backward.build();
  if (!body.ok()) {
    g.builder.fail(std::move(body).status());
    return grads;
  }
  std::vector<Expr> carries, xs;
  for (size_t i = 0; i < s.carries; ++i)
    if (is_float(g.inputs[i].dtype())) carries.push_back(or_zeros(g.output_grads[i], g.outputs[i]));
  const size_t carry_count = carries.size();
  for (size_t i = s.carries + s.xs; i < g.inputs.size(); ++i)
    if (backward.summed(i)) carries.push_back(zeros_like(g.inputs[i]));
  for (size_t i = 0; i < s.carries; ++i) xs.push_back(g.outputs[s.carries + s.ys + i]);
  for (size_t i = s.carries; i < s.carries + s.xs; ++i) xs.push_back(g.inputs[i]);
  for (size_t i = s.carries; i < s.carries + s.ys; ++i)
    if (is_float(g.outputs[i].dtype())) xs.push_back(or_zeros(g.output_grads[i], g.outputs[i]));
  for (size_t i = 0; i < s.carries; ++i)
    if (backward.saved_grad(i).defined()) xs.push_back(backward.saved_grad(i));
  const std::vector<Expr> consts(g.inputs.begin() + static_cast<int64_t>(s.carries + s.xs), g.inputs.end());
  const ScanResult r = scan(g.builder, std::move(*body), carries, xs, consts, !s.reverse, false);
  size_t carry = 0, sums = carry_count, slices = 0;
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    if (!is_float(g.inputs[i].dtype())) continue;
    if (i < s.carries)
      grads[i] = r.carries[carry++];
    else if (!backward.wanted(i))
      continue;
    else if (i < s.carries + s.xs)
      grads[i] = r.ys[slices++];
    else
      grads[i] = backward.summed(i) ? r.carries[sums++] : backward.product(i, xs, r.ys);
  }
  return grads;
}

// h' = tanh(h W + x), y = h' * x: a recurrence whose gradient reaches carries, xs and consts.
graph::GraphRef sample_body(const OpRegistry& registry) {
  Builder b(registry);
  Expr h = b.input("h", {DType::kF32, {2, 3}}), x = b.input("x", {DType::kF32, {2, 3}}),
       w = b.input("w", {DType::kF32, {3, 3}});
  Expr next = tanh(matmul(h, w) + x);
  b.output("h", next);
  b.output("y", next * x);
  Result<Graph> graph = b.finish();
  return graph.ok() ? std::make_shared<const Graph>(std::move(*graph)) : nullptr;
}

}  // namespace

ScanResult scan(Builder& builder, Graph body, const std::vector<Expr>& carries, const std::vector<Expr>& xs,
                const std::vector<Expr>& consts, bool reverse, bool save_carries) {
  std::vector<Expr> inputs = carries;
  inputs.insert(inputs.end(), xs.begin(), xs.end());
  inputs.insert(inputs.end(), consts.begin(), consts.end());
  const size_t outputs = body.outputs().size(), n = carries.size();
  std::vector<Expr> all = builder.emit("scan", std::move(inputs),
                                       {{"body", std::make_shared<const Graph>(std::move(body))},
                                        {"num_carry", static_cast<int64_t>(n)},
                                        {"num_xs", static_cast<int64_t>(xs.size())},
                                        {"reverse", reverse},
                                        {"save_carries", save_carries}});
  all.resize(outputs + (save_carries ? n : 0), Expr(&builder, graph::Value()));  // after an error there are fewer
  ScanResult r;
  r.carries.assign(all.begin(), all.begin() + static_cast<int64_t>(n));
  r.ys.assign(all.begin() + static_cast<int64_t>(n), all.begin() + static_cast<int64_t>(outputs));
  r.saved.assign(all.begin() + static_cast<int64_t>(outputs), all.end());
  return r;
}

Status register_scan(OpRegistry& registry) {
  const graph::GraphRef body = sample_body(registry);
  if (!body) return internal_error("op 'scan': the sample's body cannot be built");
  const auto attrs = [&](bool reverse) {
    return Attrs{{"body", body},
                 {"num_carry", int64_t{1}},
                 {"num_xs", int64_t{1}},
                 {"reverse", reverse},
                 {"save_carries", true}};
  };
  return add_all(
      registry,
      {{.name = "scan",
        .doc = "Runs `body` along the leading axis of the xs. The body maps (carries, one slice per x, consts) to (new "
               "carries, ys). "
               "The xs and the stacked ys keep their order also in reverse.",
        .inputs = std::vector<OperandSpec>{{"operands", "carries, then xs [T, ...], then consts", false, true}},
        .outputs = std::vector<OperandSpec>{{"results",
                                             "final carries, stacked ys [T, ...], with save_carries also the carries "
                                             "before each step [T, ...]",
                                             false, true}},
        .attrs = {{"body", AttrKind::kGraph, {}, "one step"},
                  {"num_carry", AttrKind::kInt, {}, "how many operands are carries"},
                  {"num_xs", AttrKind::kInt, {}, "how many operands are sliced, at least 1"},
                  {"reverse", AttrKind::kBool, false, "from the last step to the first"},
                  {"save_carries", AttrKind::kBool, false,
                   "also return the carries before each step; the gradient needs them"}},
        .infer = infer_scan,
        .gradient = Gradient::rule(scan_gradient),
        .reference = Reference::kernel(scan_reference),
        .cost =
            [](const OpContext& c, std::span<const TensorType>, graph::Cost& cost) {
              cost.flops *=
                  static_cast<double>(c.in(static_cast<size_t>(c.integer("num_carry"))).dims[0]);  // one body a step
            },
        .samples = std::vector<Sample>{{"forward", {f32({2, 3}), f32({5, 2, 3}), f32({3, 3})}, attrs(false)},
                                       {"reverse", {f32({2, 3}), f32({4, 2, 3}), f32({3, 3})}, attrs(true)}}}});
}

}  // namespace deepseek::ops
