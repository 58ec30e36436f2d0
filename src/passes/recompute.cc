#include "passes/recompute.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "graph/builder.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// An operand so much smaller than what is computed from it stays, rather than being computed again itself.
constexpr int64_t kSmall = 16;
// More work than that, of the graph's own, is no trade any more.
constexpr double kMostWork = 1;
// Values that may be computed again for the sake of one.
constexpr size_t kLongest = 64;

// How one output of a node is computed again: which inputs of the node that reads, and which of the other outputs of
// its first computation.
struct Recipe {
  std::vector<size_t> inputs;
  std::vector<int32_t> earlier;
  bool loop = true;  // element by element: what it costs is the memory that it touches
};

// A node of the body, or the node itself, that OpDef::rematerialize makes cheaper.
struct Shortcut {
  const Node* node = nullptr;
  std::map<int32_t, int32_t> earlier;  // by output of that node: output of the whole
};

Shortcut shortcut(const Node& whole) {
  if (whole.op_name() != "fused") {
    if (!whole.op->rematerialize) return {};
    Shortcut result{&whole, {}};
    for (int32_t i : whole.op->rematerialize->outputs) result.earlier[i] = i;
    return result;
  }
  const Graph& body = *whole.attrs.get<GraphRef>("body");
  for (const Node& node : body.nodes()) {
    if (!node.op->rematerialize) continue;
    Shortcut result{&node, {}};
    for (int32_t i : node.op->rematerialize->outputs)
      for (size_t o = 0; o < body.outputs().size(); ++o)
        if (body.outputs()[o].value == node.output(i)) result.earlier[i] = static_cast<int32_t>(o);
    if (result.earlier.size() == node.op->rematerialize->outputs.size()) return result;
  }
  return {};
}

// Statistics themselves need the whole node.
Shortcut shortcut(const Node& whole, int32_t output) {
  Shortcut way = shortcut(whole);
  for (const auto& [i, own] : way.earlier)
    if (own == output) return {};
  if (way.node == &whole && output != 0) return {};
  return way;
}

// Of a body: backwards from the output, by the shorter way, and if `cuts` no further than to the other outputs.
Recipe body_recipe(const Graph& body, int32_t output, const Shortcut& way, bool cuts) {
  Recipe result;
  std::vector<bool> wanted(static_cast<size_t>(body.num_values()));
  const Value goal = body.outputs()[static_cast<size_t>(output)].value;
  wanted[goal.id] = true;
  const auto use = [&](int32_t own) {
    if (std::find(result.earlier.begin(), result.earlier.end(), own) == result.earlier.end())
      result.earlier.push_back(own);
  };
  for (size_t n = body.nodes().size(); n-- > 0;) {
    const Node& inner = body.nodes()[n];
    for (size_t o = 0; cuts && o < body.outputs().size(); ++o)
      for (int32_t i = 0; i < inner.num_outputs; ++i)
        if (const Value v = inner.output(i); v == body.outputs()[o].value && v != goal && wanted[v.id]) {
          wanted[v.id] = false;
          use(static_cast<int32_t>(o));
        }
    bool any = false;
    for (int32_t i = 0; i < inner.num_outputs; ++i) any = any || wanted[inner.output(i).id];
    if (!any) continue;
    if (way.node == &inner) {
      for (const auto& [of, own] : way.earlier) use(own);
      for (int32_t i : inner.op->rematerialize->inputs) wanted[inner.inputs[static_cast<size_t>(i)].id] = true;
      continue;
    }
    for (Value v : inner.inputs) wanted[v.id] = true;
    result.loop = result.loop && (inner.op->traits.elementwise || inner.op_name() == "constant");
  }
  for (size_t i = 0; i < body.inputs().size(); ++i)  // what is no loop is repeated as it is
    if (!result.loop || wanted[body.inputs()[i].value.id]) result.inputs.push_back(i);
  if (!result.loop) result.earlier.clear();
  return result;
}

Recipe recipe(const Node& node, int32_t output) {
  const Shortcut way = shortcut(node, output);
  if (node.op_name() == "fused") {
    const Graph& body = *node.attrs.get<GraphRef>("body");
    const Recipe result = body_recipe(body, output, way, false);
    return result.loop ? result : body_recipe(body, output, way, true);
  }
  Recipe result;
  if (way.node != nullptr) {
    result.inputs.assign(node.op->rematerialize->inputs.begin(), node.op->rematerialize->inputs.end());
    for (const auto& [of, own] : way.earlier) result.earlier.push_back(own);
  } else {
    for (size_t i = 0; i < node.inputs.size(); ++i) result.inputs.push_back(i);
    result.loop = node.op->traits.elementwise;
  }
  return result;
}

// Stands for an operand of nodes that are dead, which the builder drops.
Expr unread(Builder& builder, const TensorType& type) { return builder.constant(Tensor::zeros(type.dtype, type.dims)); }

// A body with those outputs alone; `inputs` become the numbers of those that it still reads.
Result<Graph> part_of(const Graph& body, const std::vector<size_t>& outputs, std::vector<size_t>& inputs) {
  std::vector<bool> wanted(static_cast<size_t>(body.num_values()));
  for (size_t o : outputs) wanted[body.outputs()[o].value.id] = true;
  for (size_t n = body.nodes().size(); n-- > 0;) {
    const Node& node = body.nodes()[n];
    bool any = false;
    for (int32_t i = 0; i < node.num_outputs; ++i) any = any || wanted[node.output(i).id];
    if (any)
      for (Value v : node.inputs) wanted[v.id] = true;
  }
  Builder builder(body.registry());
  std::vector<Expr> arguments;
  inputs.clear();
  for (size_t i = 0; i < body.inputs().size(); ++i) {
    const Input& input = body.inputs()[i];
    if (!wanted[input.value.id]) {
      arguments.push_back(unread(builder, body.type(input.value)));
      continue;
    }
    arguments.push_back(builder.input(std::to_string(inputs.size()), body.type(input.value)));
    inputs.push_back(i);
  }
  const std::vector<Expr> values = builder.inline_values(body, arguments);
  for (size_t i = 0; i < outputs.size(); ++i)
    builder.output(std::to_string(i), values[body.outputs()[outputs[i]].value.id]);
  return builder.finish();
}

class Recomputation {
 public:
  Recomputation(const Graph& graph, const std::function<double(const Graph&, const Node&)>& cost)
      : graph_(graph), cost_(cost), made_(static_cast<size_t>(graph.num_values())) {
    for (int32_t v = 0; v < graph.num_values(); ++v) made_[v].root = v;
    for (size_t n = 0; n < graph.nodes().size(); ++n) {
      const Node& node = graph.nodes()[n];
      Item item{static_cast<int32_t>(n), -1, node.first_output.id, {}, {}};
      for (Value v : node.inputs) item.inputs.push_back(v.id);
      order_.push_back(append(std::move(item)));
    }
    // What is returned lives elsewhere, or to the end in any case.
    for (const Output& output : graph.outputs()) root(output.value.id).bytes = 0;
    for (const Update& update : graph.updates()) root(update.value.id).bytes = 0;
  }

  Result<Recomputed> run(int64_t limit) {
    Recomputed result{graph_};
    measure();
    double all = 0;
    for (const Node& node : graph_.nodes()) all += cost_(graph_, node);
    while (peak_ > limit && result.cost < kMostWork * all) {
      std::optional<Plan> best;
      for (size_t v = 0; v < made_.size(); ++v) {
        std::optional<Plan> plan = plan_for(static_cast<int32_t>(v));
        if (plan &&
            (!best || plan->cost * static_cast<double>(best->gain) < best->cost * static_cast<double>(plan->gain)))
          best = std::move(plan);
      }
      if (!best) break;
      apply(*best);
      measure();
      result.values += static_cast<int64_t>(best->again.size());
      result.cost += best->cost;
    }
    result.peak = peak_;
    if (result.values > 0) {
      DS_ASSIGN(result.graph, build());
    }
    return result;
  }

 private:
  // One computation of a node: the first gives all outputs, a further one only `output`.
  struct Item {
    int32_t node, output;
    int32_t first;                       // number of the first value that it gives
    std::vector<int32_t> inputs;         // values by number; -1: not read
    std::map<int32_t, int32_t> earlier;  // other outputs of the first, by number
  };
  // A value: numbers of the graph's values, then of further ones.
  struct Made {
    int32_t item = -1;  // -1: an input
    int32_t root = 0;   // whose bytes it is
    int64_t bytes = 0;  // of a root; 0: no intermediate
  };
  // To be computed again before the item at position `at`, in order, so that `gain` bytes are free at the peak.
  struct Plan {
    int32_t value = -1, at = 0;
    std::vector<int32_t> again;
    double cost = 0;
    int64_t gain = 0;
  };

  const Node& node(const Item& item) const { return graph_.nodes()[static_cast<size_t>(item.node)]; }
  Item& item(int32_t i) { return items_[static_cast<size_t>(i)]; }
  const Item& item(int32_t i) const { return items_[static_cast<size_t>(i)]; }
  bool is_view(const Item& item) const { return node(item).op->traits.view; }
  const Made& root(int32_t v) const { return made_[static_cast<size_t>(made_[static_cast<size_t>(v)].root)]; }
  Made& root(int32_t v) { return made_[static_cast<size_t>(made_[static_cast<size_t>(v)].root)]; }

  int32_t append(Item added) {
    const Node& n = node(added);
    const auto number = static_cast<int32_t>(items_.size());
    const int32_t count = added.output < 0 ? n.num_outputs : 1;
    made_.resize(std::max(made_.size(), static_cast<size_t>(added.first + count)));
    for (int32_t i = 0; i < count; ++i) {
      Made& made = made_[static_cast<size_t>(added.first + i)];
      made.item = number;
      made.root = added.first + i;
      if (n.op->traits.view)
        made.root = made_[static_cast<size_t>(added.inputs[0])].root;
      else if (n.op_name() != "constant")
        made.bytes = static_cast<int64_t>(graph_.type(n.output(added.output < 0 ? i : added.output)).num_bytes());
    }
    items_.push_back(std::move(added));
    return number;
  }

  // By root, where it is made and the positions of its readers; and where most is alive.
  void measure() {
    const auto count = static_cast<int32_t>(order_.size());
    reads_.assign(made_.size(), {});
    made_at_.assign(made_.size(), -1);
    for (int32_t p = 0; p < count; ++p) {
      const Item& at = item(order_[static_cast<size_t>(p)]);
      if (is_view(at)) continue;
      const auto read = [&](int32_t v) {
        if (v < 0) return;
        std::vector<int32_t>& list = reads_[static_cast<size_t>(made_[static_cast<size_t>(v)].root)];
        if (list.empty() || list.back() != p) list.push_back(p);
      };
      for (int32_t v : at.inputs) read(v);
      for (const auto& [output, v] : at.earlier) read(v);
      for (int32_t i = 0; i < (at.output < 0 ? node(at).num_outputs : 1); ++i)
        made_at_[static_cast<size_t>(at.first + i)] = p;
    }
    std::vector<int64_t> change(order_.size() + 1);
    for (size_t v = 0; v < made_.size(); ++v) {
      if (made_[v].bytes == 0 || made_at_[v] < 0 || reads_[v].empty()) continue;
      change[static_cast<size_t>(made_at_[v])] += made_[v].bytes;
      change[static_cast<size_t>(reads_[v].back()) + 1] -= made_[v].bytes;
    }
    int64_t alive = 0;
    peak_ = 0;
    for (int32_t p = 0; p < count; ++p)
      if (alive += change[static_cast<size_t>(p)]; alive > peak_) {
        peak_ = alive;
        peak_at_ = p;
      }
  }

  int32_t output_of(int32_t v) const {
    const Item& from = item(made_[static_cast<size_t>(v)].item);
    return from.output < 0 ? v - from.first : from.output;
  }

  // The item that computes v again, of the values that the item before it read.
  Item repeat(int32_t v) const {
    const Item& from = item(made_[static_cast<size_t>(v)].item);
    const int32_t output = output_of(v);
    const Recipe how = recipe(node(from), output);
    Item result{from.node, output, -1, std::vector<int32_t>(from.inputs.size(), -1), {}};
    for (size_t i : how.inputs) result.inputs[i] = from.inputs[i];
    for (int32_t own : how.earlier) result.earlier[own] = from.output < 0 ? from.first + own : from.earlier.at(own);
    return result;
  }

  // Adds what has to be computed again so that root v is at hand; false if that is too much.
  bool add(int32_t v, Plan& plan, std::set<int32_t>& done) const {
    if (!done.insert(v).second) return true;
    if (done.size() > kLongest) return false;
    const Item again = repeat(v);
    const int64_t own = made_[static_cast<size_t>(v)].bytes;
    double moved = static_cast<double>(own);
    std::vector<int32_t> operands = again.inputs;
    for (const auto& [of, u] : again.earlier) operands.push_back(u);
    for (int32_t u : operands) {
      if (u < 0) continue;
      const int32_t r = made_[static_cast<size_t>(u)].root;
      const Made& made = made_[static_cast<size_t>(r)];
      moved += static_cast<double>(made.bytes);
      const std::vector<int32_t>& reads = reads_[static_cast<size_t>(r)];
      const int32_t last = reads.empty() ? -1 : reads.back();
      if (made.item < 0 || made.bytes == 0 || last >= plan.at || done.contains(r)) continue;
      if (made.bytes * kSmall <= own) {
        if (last < peak_at_) plan.gain -= made.bytes;
      } else if (!add(r, plan, done)) {
        return false;
      }
    }
    plan.cost += recipe(node(again), again.output).loop ? moved : cost_(graph_, node(again));
    plan.again.push_back(v);
    return true;
  }

  std::optional<Plan> plan_for(int32_t v) const {
    const Made& made = made_[static_cast<size_t>(v)];
    const int32_t at = made_at_[static_cast<size_t>(v)];
    if (made.root != v || made.bytes == 0 || at < 0 || at >= peak_at_) return std::nullopt;
    const std::vector<int32_t>& reads = reads_[static_cast<size_t>(v)];
    const auto next = std::lower_bound(reads.begin(), reads.end(), peak_at_);
    if (next == reads.end() || *next == peak_at_) return std::nullopt;
    Plan plan{v, *next, {}, 0, made.bytes};
    std::set<int32_t> done;
    if (!add(v, plan, done) || plan.gain <= 0) return std::nullopt;
    return plan;
  }

  void apply(const Plan& plan) {
    std::map<int32_t, int32_t> again;
    std::vector<int32_t> added;
    const auto insert = [&](Item item) {
      item.first = static_cast<int32_t>(made_.size());
      added.push_back(append(std::move(item)));
      return items_.back().first;
    };
    // A view of what is computed again is made again.
    const std::function<int32_t(int32_t)> at_hand = [&](int32_t v) {
      if (v < 0) return v;
      if (const auto it = again.find(v); it != again.end()) return it->second;
      const Made made = made_[static_cast<size_t>(v)];
      if (made.root == v || !again.contains(made.root)) return v;
      Item view = item(made.item);
      view.output = 0;
      for (int32_t& u : view.inputs) u = at_hand(u);
      return again[v] = insert(std::move(view));
    };
    for (int32_t v : plan.again) {
      Item next = repeat(v);
      for (int32_t& u : next.inputs) u = at_hand(u);
      for (auto& [of, u] : next.earlier) u = at_hand(u);
      again[v] = insert(std::move(next));
    }
    for (size_t p = static_cast<size_t>(plan.at); p < order_.size(); ++p) {
      Item reader = item(order_[p]);
      for (int32_t& u : reader.inputs) u = at_hand(u);
      for (auto& [of, u] : reader.earlier) u = at_hand(u);
      item(order_[p]) = std::move(reader);
    }
    order_.insert(order_.begin() + plan.at, added.begin(), added.end());
  }

  // The expressions of a node's outputs, of which only `output` is wanted.
  Expr emit_again(Builder& builder, const Item& again, const std::vector<Expr>& map) const {
    const Node& whole = node(again);
    std::vector<Expr> inputs;
    for (size_t i = 0; i < again.inputs.size(); ++i)
      inputs.push_back(again.inputs[i] < 0 ? unread(builder, graph_.type(whole.inputs[i]))
                                           : map[static_cast<size_t>(again.inputs[i])]);
    const Shortcut way = shortcut(whole, again.output);
    const auto shorter = [&](const OpContext& context, const std::vector<Expr>& operands) {
      std::vector<Expr> outputs(static_cast<size_t>(way.node->num_outputs));
      for (const auto& [of, own] : way.earlier)
        outputs[static_cast<size_t>(of)] = map[static_cast<size_t>(again.earlier.at(own))];
      return way.node->op->rematerialize->fn(context, operands, outputs);
    };
    if (whole.op_name() != "fused" && way.node != nullptr) return shorter(graph_.context(whole), inputs);
    if (whole.op_name() != "fused" || !recipe(whole, again.output).loop)
      return builder.emit(whole.op_name(), inputs, whole.attrs)[static_cast<size_t>(again.output)];
    const Graph& body = *whole.attrs.get<GraphRef>("body");
    std::map<int32_t, Expr> given;  // by value of the body
    for (const auto& [own, v] : again.earlier)
      given[body.outputs()[static_cast<size_t>(own)].value.id] = map[static_cast<size_t>(v)];
    std::vector<Expr> values = builder.inline_values(body, inputs, given);
    if (way.node != nullptr && uses(again, way)) {
      std::vector<Expr> operands;
      for (Value v : way.node->inputs) operands.push_back(values[static_cast<size_t>(v.id)]);
      given[way.node->output().id] = shorter(body.context(*way.node), operands);
      values = builder.inline_values(body, inputs, given);
    }
    return values[static_cast<size_t>(body.outputs()[static_cast<size_t>(again.output)].value.id)];
  }

  static bool uses(const Item& again, const Shortcut& way) {
    return std::all_of(way.earlier.begin(), way.earlier.end(),
                       [&](const auto& e) { return again.earlier.contains(e.second); });
  }

  // Emits the first computation of a node. A fused one leaves out what nobody reads any more, as kernels expect.
  Status emit_first(Builder& builder, const Item& first, const std::vector<bool>& read, std::vector<Expr>& map) const {
    const Node& n = node(first);
    std::vector<Expr> inputs;
    for (int32_t v : first.inputs) inputs.push_back(map[static_cast<size_t>(v)]);
    std::vector<size_t> outputs;
    for (size_t i = 0; i < static_cast<size_t>(n.num_outputs); ++i)
      if (read[static_cast<size_t>(first.first) + i]) outputs.push_back(i);
    const auto all = static_cast<size_t>(n.num_outputs);
    if (n.op_name() != "fused" || outputs.size() == all || outputs.empty()) {
      const std::vector<Expr> results = builder.emit(n.op_name(), std::move(inputs), n.attrs);
      for (size_t i = 0; i < results.size(); ++i) map[static_cast<size_t>(first.first) + i] = results[i];
      return builder.status();
    }
    std::vector<size_t> kept;
    DS_ASSIGN(Graph body, part_of(*n.attrs.get<GraphRef>("body"), outputs, kept));
    std::vector<Expr> arguments;
    for (size_t i : kept) arguments.push_back(inputs[i]);
    const std::vector<Expr> results =
        builder.emit("fused", std::move(arguments), {{"body", std::make_shared<const Graph>(std::move(body))}});
    for (size_t i = 0; i < results.size(); ++i) map[static_cast<size_t>(first.first) + outputs[i]] = results[i];
    return builder.status();
  }

  // By value, whether anybody reads it.
  std::vector<bool> read_values() const {
    std::vector<bool> read(made_.size());
    for (const Output& output : graph_.outputs()) read[static_cast<size_t>(output.value.id)] = true;
    for (const Update& update : graph_.updates()) read[static_cast<size_t>(update.value.id)] = true;
    for (size_t p = order_.size(); p-- > 0;) {  // backwards: what only dead items read is not read
      const Item& reader = item(order_[p]);
      const int32_t count = reader.output < 0 ? node(reader).num_outputs : 1;
      bool any = false;
      for (int32_t i = 0; i < count; ++i) any = any || read[static_cast<size_t>(reader.first + i)];
      if (!any) continue;
      for (int32_t v : reader.inputs)
        if (v >= 0) read[static_cast<size_t>(v)] = true;
      for (const auto& [of, v] : reader.earlier) read[static_cast<size_t>(v)] = true;
    }
    return read;
  }

  Result<Graph> build() const {
    Builder builder(graph_.registry());
    const std::vector<bool> read = read_values();
    std::vector<Expr> map(made_.size());
    for (const Input& input : graph_.inputs())
      map[static_cast<size_t>(input.value.id)] = builder.input(input.name, graph_.type(input.value), input.kind);
    for (int32_t i : order_) {
      const Item& next = item(i);
      const Node& n = node(next);
      bool any = false;
      for (int32_t k = 0; k < (next.output < 0 ? n.num_outputs : 1); ++k)
        any = any || read[static_cast<size_t>(next.first + k)];
      if (!any) continue;
      builder.set_scope(n.scope);
      if (next.output >= 0 && !is_view(next)) {
        map[static_cast<size_t>(next.first)] = emit_again(builder, next, map);
      } else {
        DS_TRY(emit_first(builder, next, read, map));
      }
      DS_TRY(builder.status());
    }
    for (const Output& output : graph_.outputs())
      builder.output(output.name, map[static_cast<size_t>(output.value.id)]);
    for (const Update& update : graph_.updates())
      builder.update(map[static_cast<size_t>(graph_.inputs()[static_cast<size_t>(update.input)].value.id)],
                     map[static_cast<size_t>(update.value.id)]);
    return builder.finish();
  }

  const Graph& graph_;
  const std::function<double(const Graph&, const Node&)>& cost_;
  std::vector<Item> items_;
  std::vector<int32_t> order_;  // of items
  std::vector<Made> made_;      // by value
  std::vector<std::vector<int32_t>> reads_;
  std::vector<int32_t> made_at_;
  int64_t peak_ = 0;
  int32_t peak_at_ = 0;
};

}  // namespace

Result<Recomputed> recompute(const Graph& graph, int64_t limit,
                             const std::function<double(const Graph&, const Node&)>& cost) {
  return Recomputation(graph, cost).run(limit);
}

}  // namespace deepseek::passes
