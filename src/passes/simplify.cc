#include "passes/simplify.h"

#include <algorithm>

#include "ops/dsl.h"
#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// x, where that is what the node has as its type.
Expr same(const Found& f) {
  Expr x = f.at("x");
  return x.type() == f.type() ? x : Expr();
}

Pattern scalar(double value) { return either({constant(value), op("broadcast_to", {constant(value)})}); }

const Dims& permutation(const Found& f, std::string_view name) {
  return f.graph.producer(f.value(name))->attrs.ints("permutation");
}

bool is_identity(const Dims& perm) { return std::is_sorted(perm.begin(), perm.end()); }

// A transposition of the last two axes alone.
bool swaps_matrix(const AttrValue& v) {
  Dims perm = std::get<Dims>(v);
  if (perm.size() < 2) return false;
  std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return is_identity(perm);
}

// Every value of `from` is one of `to`.
bool exact(DType from, DType to) {
  if (from == DType::kBool || from == to) return true;
  return is_float(from) && is_float(to) && size_of(from) < size_of(to);
}

// A value within zeros along one axis.
struct Part {
  Value value;
  int64_t axis = -1, begin = 0, end = 0;
};

// v as a part; its axis is -1 if v is none.
Part part_of(const Graph& graph, Value v) {
  const Node* node = graph.producer(v);
  if (node == nullptr || node->op_name() != "pad" || node->attrs.number("value") != 0) return {v};
  const Dims &low = node->attrs.ints("low"), &high = node->attrs.ints("high"), &gaps = node->attrs.ints("interior");
  Part part{node->inputs[0]};
  for (size_t axis = 0; axis < low.size(); ++axis) {
    if (!gaps.empty() && gaps[axis] != 0) return {v};
    if (low[axis] == 0 && high[axis] == 0) continue;
    if (part.axis >= 0) return {v};
    part.axis = static_cast<int64_t>(axis);
    part.begin = low[axis];
    part.end = graph.type(v).dims[axis] - high[axis];
  }
  return part.axis < 0 ? Part{v} : part;
}

// The terms of the sum that v is, through additions that nobody else reads.
void find_terms(const Graph& graph, const std::vector<int32_t>& uses, Value v, bool root, std::vector<Value>& terms) {
  const Node* node = graph.producer(v);
  if (node == nullptr || node->op_name() != "add" || (!root && uses[v.id] != 1) ||
      graph.type(node->inputs[0]) != graph.type(node->inputs[1]))
    return terms.push_back(v);
  for (Value input : node->inputs) find_terms(graph, uses, input, false, terms);
}

// The sum of values that stand side by side in zeros, as the gradients of slices do, is their concatenation.
Expr join_parts(const Found& f) {
  std::vector<Value> terms;
  find_terms(f.graph, f.graph.use_counts(), f.node.output(), true, terms);
  std::vector<Part> parts;
  std::vector<Expr> sum;
  for (Value v : terms) {
    const Part part = part_of(f.graph, v);
    if (part.axis >= 0 && (parts.empty() || parts[0].axis == part.axis))
      parts.push_back(part);
    else
      sum.push_back(f.rewritten[v.id]);
  }
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.begin < b.begin; });
  bool joined = false;
  for (size_t first = 0, next; first < parts.size(); first = next) {
    std::vector<Expr> run;
    for (next = first; next < parts.size() && (next == first || parts[next].begin == parts[next - 1].end); ++next) {
      const Node* inner = f.graph.producer(parts[next].value);
      if (inner != nullptr && inner->op_name() == "concat" && inner->attrs.integer("axis") == parts[next].axis)
        for (Value v : inner->inputs) run.push_back(f.rewritten[v.id]);
      else
        run.push_back(f.rewritten[parts[next].value.id]);
    }
    joined = joined || next - first > 1;
    const size_t axis = static_cast<size_t>(parts[first].axis);
    Dims low(f.type().dims.size()), high = low;
    low[axis] = parts[first].begin;
    high[axis] = f.type().dims[axis] - parts[next - 1].end;
    Expr all = run.size() > 1 ? ops::concat(run, parts[first].axis) : run[0];
    const Attrs attrs{{"low", low}, {"high", high}};
    sum.push_back(low[axis] == 0 && high[axis] == 0 ? all : f.builder.op("pad", {all}, attrs));
  }
  if (!joined) return {};
  Expr result = sum[0];
  for (size_t i = 1; i < sum.size(); ++i) result = result + sum[i];
  return result;
}

// dy - e^y * sum(dy) along the axis, where dy is zeros but for one element in each row, as a loss by class gives it: dy
// itself, as large as y, need not be made.
Expr picked_gradient(const Found& f) {
  Expr y = f.at("y"), v = f.at("v");
  const int64_t rank = y.rank(), axis = (f.node.attrs.integer("axis") + rank) % rank;
  const Node& put = *f.graph.producer(f.value("dy"));
  if ((put.attrs.integer("axis") + rank) % rank != axis || v.dim(axis) != 1) return {};
  Dims dims(static_cast<size_t>(rank), 1);
  dims[static_cast<size_t>(axis)] = y.dim(axis);
  Expr number = f.builder.op("iota", {}, {{"dims", dims}, {"axis", axis}, {"dtype", DType::kI32}});
  Expr here = ops::equal(number, ops::cast(f.at("i"), number.dtype()));
  // Named, since in which order a product's sides are made is the compiler's choice.
  const Expr all = ops::exp(y) * v;
  return ops::select(here, v, ops::zeros_like(v)) - all;
}

std::vector<Rule> make_rules() {
  std::vector<Rule> rules;
  // Numbers that change nothing.
  rules.push_back({"add_0", op("add", {any("x"), scalar(0)}), same});
  rules.push_back({"sub_0", op("sub", {any("x"), scalar(0)}), same});
  rules.push_back({"mul_1", op("mul", {any("x"), scalar(1)}), same});
  rules.push_back({"div_1", op("div", {any("x"), scalar(1)}), same});
  rules.push_back({"pow_1", op("pow", {any("x"), scalar(1)}), same});
  rules.push_back({"neg_neg", op("neg", {op("neg", {any("x")})}), same});
  // Copies that change nothing.
  rules.push_back({"cast_same", op("cast", {any("x")}), same});
  rules.push_back({"reshape_same", op("reshape", {any("x")}), same});
  rules.push_back({"broadcast_same", op("broadcast_to", {any("x")}), same});
  rules.push_back({"transpose_same", op("transpose", {any("x")}).as("y"),
                   [](const Found& f) { return is_identity(permutation(f, "y")) ? f.at("x") : Expr(); }});
  rules.push_back({"concat_one", op("concat", {any("x")}), same});
  rules.push_back({"slice_all", op("slice", {any("x")}), same});  // of the same size: start 0, step 1
  rules.push_back({"pad_none", op("pad", {any("x")}), same});
  // One copy instead of two.
  rules.push_back({"reshape_reshape", op("reshape", {op("reshape", {any("x")})}),
                   [](const Found& f) { return ops::reshape(f.at("x"), f.type().dims); }});
  rules.push_back({"broadcast_broadcast", op("broadcast_to", {op("broadcast_to", {any("x")})}),
                   [](const Found& f) { return ops::broadcast_to(f.at("x"), f.type().dims); }});
  rules.push_back({"transpose_transpose", op("transpose", {op("transpose", {any("x")}).as("inner")}).as("outer"),
                   [](const Found& f) {
                     const Dims &inner = permutation(f, "inner"), &outer = permutation(f, "outer");
                     Dims both;
                     for (int64_t axis : outer) both.push_back(inner[axis]);
                     return ops::transpose(f.at("x"), both);
                   }});
  const Pattern sum = either({op("pad"), op("add", {op("pad"), any()})});
  rules.push_back({"add_parts", op("add", {op("pad"), sum}), join_parts});
  rules.push_back({"cast_cast", op("cast", {op("cast", {any("x")}).as("inner")}), [](const Found& f) {
                     return exact(f.at("x").dtype(), f.graph.type(f.value("inner")).dtype)
                                ? ops::cast(f.at("x"), f.type().dtype)
                                : Expr();
                   }});
  rules.push_back({"log_softmax_picked",
                   op("log_softmax_grad", {any("y"), op("put_along_axis_add", {any("v"), any("i")}).as("dy")}),
                   picked_gradient});
  // The product reads either order.
  const Pattern turned = op("transpose", {any("x")}).attr("permutation", swaps_matrix);
  rules.push_back({"matmul_transpose_a", op("matmul", {turned, any("b")}), [](const Found& f) {
                     return ops::matmul(f.at("x"), f.at("b"), !f.node.attrs.flag("transpose_a"),
                                        f.node.attrs.flag("transpose_b"));
                   }});
  rules.push_back({"matmul_transpose_b", op("matmul", {any("a"), turned}), [](const Found& f) {
                     return ops::matmul(f.at("a"), f.at("x"), f.node.attrs.flag("transpose_a"),
                                        !f.node.attrs.flag("transpose_b"));
                   }});
  return rules;
}

}  // namespace

Result<Graph> simplify(const Graph& graph, const PassContext&) {
  static const std::vector<Rule> rules = make_rules();
  return rewrite(graph, rules);
}

}  // namespace deepseek::passes
