#include "ops/scan.h"

#include <algorithm>
#include <map>
#include <optional>

#include "ops/common.h"
#include "ops/interpreter.h"

namespace deepseek::ops {

using graph::ExtendContext;
using graph::Graph;

namespace {

// Where operands and results of a scan stand.
struct Layout {
  const Graph* body;
  size_t carries, xs, consts, ys;
  bool reverse, save;
  const Dims& saved;
  explicit Layout(const OpContext& c)
      : body(c.attrs->get<graph::GraphRef>("body").get()),
        carries(static_cast<size_t>(c.integer("num_carry"))),
        xs(static_cast<size_t>(c.integer("num_xs"))),
        consts(c.num_inputs() - carries - xs),
        ys(body->outputs().size() - carries),
        reverse(c.flag("reverse")),
        save(c.flag("save_carries")),
        saved(c.ints("saved")) {}
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
  for (int64_t y : c.ints("saved"))
    if (y < 0 || y >= static_cast<int64_t>(body->outputs().size()) - carries)
      return invalid("saved: expected numbers of ys, below {}, got {}",
                     static_cast<int64_t>(body->outputs().size()) - carries, y);
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

// Emits the reverse scan, whose body computes again what of the step is not saved. Its carries are gradients of the
// carries and sums for the wanted consts; consts whose gradient is a StepProduct have no sum, but their factors are
// among the stacked results.
class ReverseScan {
 public:
  ReverseScan(GradContext& g, const Layout& s)
      : g_(g), s_(s), sliced_(s.carries + s.xs), builder_(g.builder.registry()) {}

  // One gradient per input.
  Result<std::vector<Expr>> build() {
    DS_ASSIGN(const Graph step, differentiable_step());
    DS_ASSIGN(const Graph derivative, g_.differentiate_body(step, s_.saved.size()));
    find_products(derivative);
    std::vector<Expr> carries, consts, carry_grads, sums, args, saved_grads(s_.carries);
    for (size_t i = 0; i < s_.carries; ++i)
      if (floating(i)) carry_grads.push_back(input(carries, or_zeros(g_.output_grads[i], g_.outputs[i])));
    for (size_t i = sliced_; i < g_.inputs.size(); ++i)
      if (summed(i)) sums.push_back(input(carries, zeros_like(g_.inputs[i])));
    // The arguments of the derivative in its order; those that it does not read stay out of the scan.
    const std::vector<int32_t> uses = derivative.use_counts();
    const auto add_slice = [&](Expr stack) {
      const graph::Value v = derivative.inputs()[args.size()].value;
      if (uses[v.id] > 0) slices_of_[v.id] = xs_.size();
      args.push_back(uses[v.id] > 0 ? slice_of(stack) : Expr());
    };
    for (size_t i = 0; i < s_.carries; ++i) add_slice(g_.outputs[s_.carries + s_.ys + i]);
    for (size_t i = s_.carries; i < sliced_; ++i) add_slice(g_.inputs[i]);
    const size_t first_const = args.size();
    args.resize(g_.inputs.size());
    for (int64_t y : s_.saved) add_slice(g_.outputs[s_.carries + static_cast<size_t>(y)]);
    args.insert(args.end(), carry_grads.begin(), carry_grads.end());
    for (size_t y = s_.carries; y < s_.carries + s_.ys; ++y)
      if (y_grad(y).defined()) add_slice(y_grad(y));
    for (size_t i = 0; i < s_.carries; ++i)
      if (saved_grad(i).defined()) saved_grads[i] = slice_of(saved_grad(i));
    if (xs_.empty()) slice_of(g_.inputs[s_.carries]);  // there must be one, for the number of steps
    for (size_t i = sliced_; i < g_.inputs.size(); ++i) args[first_const + i - sliced_] = input(consts, g_.inputs[i]);

    const std::vector<Expr> values = builder_.inline_values(derivative, args);
    DS_TRY(builder_.status());
    std::vector<graph::Value> x_grads;
    size_t next = 0, sum = 0;
    for (size_t i = 0; i < g_.inputs.size(); ++i) {
      if (!floating(i)) continue;
      const graph::Value value = derivative.outputs()[next++].value;
      Expr grad = values[value.id];
      if (i < s_.carries)
        output(saved_grads[i].defined() ? grad + saved_grads[i] : grad);
      else if (i < sliced_ && g_.needs[i])
        stacked_.push_back(value);
      else if (summed(i))
        output(sums[sum++] + grad);
    }
    for (const auto& [input, product] : products_)
      for (graph::Value v : {product.a, product.b})
        if (!slices_of_.contains(v.id) && std::find(stacked_.begin(), stacked_.end(), v) == stacked_.end())
          stacked_.push_back(v);
    for (graph::Value v : stacked_) output(values[v.id]);
    DS_ASSIGN(Graph body, builder_.finish());
    return gradients(scan(g_.builder, std::move(body), carries, xs_, consts, !s_.reverse, false));
  }

 private:
  // The step with the results that have gradients, and then what is saved.
  Result<Graph> differentiable_step() const {
    Builder builder(builder_.registry());
    std::vector<Expr> inputs;
    for (const graph::Input& i : s_.body->inputs()) inputs.push_back(builder.input(i.name, s_.body->type(i.value)));
    const std::vector<Expr> results = builder.inline_graph(*s_.body, inputs);
    const auto keep = [&](size_t i) { builder.output(std::to_string(builder.data().outputs.size()), results[i]); };
    for (size_t i = 0; i < s_.carries + s_.ys; ++i)
      if (i < s_.carries || y_grad(i).defined()) keep(i);
    for (int64_t y : s_.saved) keep(s_.carries + static_cast<size_t>(y));
    return builder.finish();
  }

  void find_products(const Graph& derivative) {
    const auto varies = [&](graph::Value v) {  // not a const, which is the same in all steps
      for (size_t i = sliced_; i < g_.inputs.size(); ++i)
        if (derivative.inputs()[i].value == v) return false;
      return derivative.type(v).rank() == 2;
    };
    size_t next = 0;
    for (size_t i = 0; i < g_.inputs.size(); ++i) {
      if (!floating(i)) continue;
      const graph::Node* node = derivative.producer(derivative.outputs()[next++].value);
      if (i >= sliced_ && g_.needs[i] && node != nullptr && node->op_name() == "matmul" &&
          node->attrs.flag("transpose_a") && !node->attrs.flag("transpose_b") && varies(node->inputs[0]) &&
          varies(node->inputs[1]))
        products_[i] = {node->inputs[0], node->inputs[1]};
    }
  }

  std::vector<Expr> gradients(const ScanResult& r) const {
    std::vector<Expr> grads(g_.inputs.size());
    const auto rows = [&](graph::Value v) {
      const auto x = slices_of_.find(v.id);
      const auto y = std::find(stacked_.begin(), stacked_.end(), v) - stacked_.begin();
      Expr all = x != slices_of_.end() ? xs_[x->second] : r.ys[static_cast<size_t>(y)];
      return reshape(all, {all.dim(0) * all.dim(1), all.dim(2)});
    };
    size_t carry = 0, slice = 0;
    for (size_t i = 0; i < g_.inputs.size(); ++i) {
      if (!floating(i)) continue;
      if (i < s_.carries || summed(i))
        grads[i] = r.carries[carry++];
      else if (i < sliced_ && g_.needs[i])
        grads[i] = r.ys[slice++];
      else if (const auto p = products_.find(i); p != products_.end())
        grads[i] = matmul(rows(p->second.a), rows(p->second.b), true, false);
    }
    return grads;
  }

  bool floating(size_t i) const { return is_float(in_type(i).dtype); }
  bool summed(size_t i) const { return i >= sliced_ && g_.needs[i] && floating(i) && !products_.contains(i); }
  Expr y_grad(size_t i) const { return is_float(g_.outputs[i].dtype()) ? g_.output_grads[i] : Expr(); }
  Expr saved_grad(size_t i) const { return g_.output_grads[s_.carries + s_.ys + i]; }
  const TensorType& in_type(size_t i) const { return s_.body->type(s_.body->inputs()[i].value); }

  // An input of the body, bound to `operand`, which goes to the end of `operands`.
  Expr input(std::vector<Expr>& operands, Expr operand, bool sliced = false) {
    TensorType type = operand.type();
    if (sliced) type.dims.erase(type.dims.begin());
    operands.push_back(operand);
    return builder_.input(std::to_string(builder_.data().inputs.size()), std::move(type));
  }
  Expr slice_of(Expr stack) { return input(xs_, stack, true); }
  void output(Expr e) { builder_.output(std::to_string(builder_.data().outputs.size()), e); }

  GradContext& g_;
  const Layout& s_;
  const size_t sliced_;  // how many operands are carries or xs
  Builder builder_;
  std::vector<Expr> xs_;                    // of the reverse scan
  std::map<size_t, StepProduct> products_;  // by operand
  std::map<int32_t, size_t> slices_of_;     // the derivative's value of each x of the reverse scan
  std::vector<graph::Value> stacked_;       // the derivative's values that the reverse scan stacks, in order
};

std::vector<Expr> scan_gradient(GradContext& g) {
  const Layout s(g.node);
  if (!s.save) {  // extend_scan could not differentiate the body
    const Result<Graph> why = g.differentiate_body(*s.body, 0);
    g.builder.fail(why.ok()
                       ? internal_error("[scan] node '{}': carries were not saved for the gradient", g.builder.scope())
                       : why.status());
    return std::vector<Expr>(g.inputs.size());
  }
  Result<std::vector<Expr>> grads = ReverseScan(g, s).build();
  if (grads.ok()) return *grads;
  g.builder.fail(std::move(grads).status());
  return std::vector<Expr>(g.inputs.size());
}

// The carries before each step, and values of the step that the gradient reads, become further results.
std::vector<Expr> extend_scan(ExtendContext& c) {
  const Layout s(c.node);
  if (s.save && !s.saved.empty()) return {};
  const Result<Graph> extended = c.extend_body(*s.body);
  if (!extended.ok()) return {};  // an error only if somebody asks for the gradient
  Builder builder(c.builder.registry());
  std::vector<Expr> inputs;
  for (const graph::Input& i : extended->inputs()) inputs.push_back(builder.input(i.name, extended->type(i.value)));
  const std::vector<Expr> results = builder.inline_graph(*extended, inputs);
  const size_t own = s.carries + s.ys;
  std::vector<int32_t> ys;  // a value that is a result already is not stacked twice
  Dims saved;
  for (size_t i = 0; i < results.size(); ++i) {
    const int32_t id = results[i].value().id;
    const auto y = i < own ? ys.end() : std::find(ys.begin(), ys.end(), id);
    if (i >= own) saved.push_back(y - ys.begin());
    if (y != ys.end()) continue;
    builder.output(extended->outputs()[i].name, results[i]);
    if (i >= s.carries) ys.push_back(id);
  }
  Result<Graph> body = builder.finish();
  if (!body.ok()) return {};
  Attrs attrs = *c.node.attrs;
  attrs.set("body", std::make_shared<const Graph>(std::move(*body)));
  attrs.set("save_carries", true);
  attrs.set("saved", saved);
  std::vector<Expr> outputs =
      c.builder.emit("scan", std::vector<Expr>(c.inputs.begin(), c.inputs.end()), std::move(attrs));
  if (outputs.size() < own + ys.size() - s.ys) return {};  // after an error
  outputs.erase(outputs.begin() + static_cast<int64_t>(own),
                outputs.begin() + static_cast<int64_t>(s.carries + ys.size()));
  if (!s.save) outputs.resize(own);
  return outputs;
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
                  {"save_carries", AttrKind::kBool, false, "also return the carries before each step"},
                  {"saved", AttrKind::kInts, Dims{},
                   "which ys are values of the step that the gradient reads; differentiating a scan fills it in"}},
        .infer = infer_scan,
        .gradient = Gradient::rule(scan_gradient, extend_scan),
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
