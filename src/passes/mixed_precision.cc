#include "passes/mixed_precision.h"

#include <algorithm>
#include <cmath>

#include "ops/dsl.h"
#include "passes/decompose.h"

namespace deepseek::passes {

using namespace graph;

namespace {

class Lowering {
 public:
  Lowering(const Graph& graph, DType low)
      : graph_(graph),
        low_(low),
        builder_(graph.registry()),
        made_(static_cast<size_t>(graph.num_values())),
        other_(made_.size()),
        neutral_(made_.size()) {}

  Result<Graph> run() {
    for (const Input& input : graph_.inputs()) {
      made_[id(input.value)] = builder_.input(input.name, graph_.type(input.value), input.kind);
      neutral_[id(input.value)] = input.kind == InputKind::kState;
    }
    for (const Node& node : graph_.nodes()) DS_TRY(emit(node));
    builder_.set_scope("");
    for (const Output& output : graph_.outputs()) builder_.output(output.name, wide(output.value));
    for (const Update& update : graph_.updates())
      builder_.update(made_[id(graph_.inputs()[update.input].value)], wide(update.value));
    return builder_.finish();
  }

 private:
  static size_t id(Value v) { return static_cast<size_t>(v.id); }
  // What the pass may change the type of.
  bool changes(Value v) const { return graph_.type(v).dtype == DType::kF32; }

  // The value in `dtype`. The cast is made once and then shared.
  Expr in(Value v, DType dtype) {
    if (made_[id(v)].dtype() == dtype) return made_[id(v)];
    if (!other_[id(v)].defined()) other_[id(v)] = ops::cast(made_[id(v)], dtype);
    return other_[id(v)];
  }
  Expr wide(Value v) { return in(v, graph_.type(v).dtype); }
  Expr low(Value v) { return changes(v) ? in(v, low_) : made_[id(v)]; }
  bool is_low(Value v) const { return changes(v) && made_[id(v)].dtype() == low_; }

  // A new shape of the same elements.
  static bool is_view(const Node& node) {
    return node.op->traits.view || node.op_name() == "broadcast_to" || node.op_name() == "transpose";
  }

  // Whether v, a parameter or a constant or a view of one, may take the other operands' type. A constant must fit.
  bool yields(Value v) const {
    if (!neutral_[id(v)]) return false;
    const Node* node = graph_.producer(v);
    while (node != nullptr && is_view(*node)) node = graph_.producer(node->inputs[0]);
    if (node == nullptr || node->op_name() != "constant") return true;
    const Tensor& value = node->attrs.get<Tensor>("value");
    const double most = low_ == DType::kF16 ? 65504 : 3.38e38;
    for (int64_t i = 0; i < value.num_elements(); ++i)
      if (std::isfinite(value.at(i)) && std::fabs(value.at(i)) > most) return false;
    return true;
  }

  // Some operand is low already, and the rest are, too, or yield.
  bool follows(const Node& node) const {
    bool any = false;
    for (Value v : node.inputs) {
      if (!changes(v)) continue;
      if (!is_low(v) && !yields(v)) return false;
      any = any || is_low(v);
    }
    return any;
  }

  Status emit(const Node& node) {
    builder_.set_scope(node.scope);
    const Precision precision = node.op->mixed_precision();
    const bool lower = precision == Precision::kLow || (precision == Precision::kFollow && follows(node));
    std::vector<Expr> inputs;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Value v = node.inputs[i];
      const bool as_is = precision == Precision::kFollowFirst && i == 0;
      inputs.push_back(as_is ? made_[id(v)] : lower ? low(v) : wide(v));
    }
    DS_ASSIGN(Attrs attrs, lower_bodies(node.attrs));
    const std::vector<Expr> results = builder_.emit(node.op_name(), inputs, std::move(attrs));
    DS_TRY(builder_.status());
    for (int32_t i = 0; i < node.num_outputs; ++i) made_[id(node.output(i))] = results[static_cast<size_t>(i)];
    const bool is_constant = node.op_name() == "constant";
    neutral_[id(node.output())] = is_constant || (is_view(node) && neutral_[id(node.inputs[0])]);
    return {};
  }

  // A body keeps the types of its inputs and outputs, so the node around it does.
  Result<Attrs> lower_bodies(const Attrs& attrs) const {
    Attrs out = attrs;
    for (const auto& [name, value] : attrs)
      if (const auto* body = std::get_if<GraphRef>(&value); body != nullptr && *body != nullptr) {
        DS_ASSIGN(Graph lowered, mixed_precision(**body, low_));
        out.set(name, std::make_shared<const Graph>(std::move(lowered)));
      }
    return out;
  }

  const Graph& graph_;
  const DType low_;
  Builder builder_;
  std::vector<Expr> made_;     // by value id: as its node gives it
  std::vector<Expr> other_;    // the same in the other type, once somebody asked
  std::vector<bool> neutral_;  // a parameter, a constant or a view of one
};

}  // namespace

Result<Graph> mixed_precision(const Graph& graph, DType low) {
  if (low != DType::kBF16 && low != DType::kF16)
    return invalid("mixed precision: expected bf16 or f16 as the low type, got {}", to_string(low));
  DS_ASSIGN(const Graph parts, decompose(graph, [](const Graph&, const Node& node) {
              return node.op->mixed_precision() == Precision::kParts;
            }));
  return Lowering(parts, low).run();
}

}  // namespace deepseek::passes
