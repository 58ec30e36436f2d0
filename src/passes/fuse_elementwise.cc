#include "passes/fuse_elementwise.h"

#include <algorithm>
#include <map>
#include <queue>

#include "graph/builder.h"
#include "passes/decompose.h"

namespace deepseek::passes {

using namespace graph;

namespace {

bool is_sum(const Node& node) { return node.op_name() == "sum" || node.op_name() == "mean"; }

// Decides which nodes run together. A group is named by its last node; its other members are before it.
class Grouping {
 public:
  explicit Grouping(const Graph& graph)
      : graph_(graph),
        users_(static_cast<size_t>(graph.num_values())),
        returned_(users_.size()),
        group_(graph.nodes().size(), -1),
        members_(graph.nodes().size()),
        seen_(graph.nodes().size(), -1) {
    const int32_t count = static_cast<int32_t>(graph.nodes().size());
    for (int32_t n = 0; n < count; ++n)
      for (Value v : node(n).inputs)
        if (users_[v.id].empty() || users_[v.id].back() != n) users_[v.id].push_back(n);
    for (const Output& o : graph.outputs()) returned_[o.value.id] = true;
    for (const Update& u : graph.updates()) returned_[u.value.id] = true;
    for (int32_t n = count; n-- > 0;) {
      if (!fusible(node(n))) continue;
      const int32_t g = is_sum(node(n)) ? -1 : choose(n);
      group_[n] = g >= 0 ? g : n;
      members_[group_[n]].push_back(n);
    }
    for (auto& m : members_) std::reverse(m.begin(), m.end());
  }

  // The nodes that run as node n does, in order; only n where it runs alone; none where it runs with a later one.
  const std::vector<int32_t>& members(int32_t n) const { return members_[n]; }
  int32_t leader(int32_t n) const { return group_[n] >= 0 ? group_[n] : n; }
  // Whether somebody outside of its group reads v.
  bool escapes(Value v, int32_t leader) const {
    return returned_[v.id] ||
           std::any_of(users_[v.id].begin(), users_[v.id].end(), [&](int32_t user) { return group_[user] != leader; });
  }

 private:
  const Node& node(int32_t n) const { return graph_.nodes()[static_cast<size_t>(n)]; }

  bool fusible(const Node& n) const {
    if (is_sum(n)) return graph_.type(n.inputs[0]).dtype == DType::kF32 && graph_.type(n.inputs[0]).num_elements() > 0;
    return n.op->traits.elementwise && !n.op->traits.random && n.num_outputs == 1;
  }

  // The iteration space of a group.
  const Dims& dims(int32_t leader) const {
    const Node& n = node(leader);
    return graph_.type(is_sum(n) ? n.inputs[0] : n.output()).dims;
  }

  // The group that node n joins, or -1.
  int32_t choose(int32_t n) {
    const Value y = node(n).output();
    for (int32_t user : users_[y.id]) {
      const int32_t g = group_[user];
      if (g < 0 || dims(g) != graph_.type(y).dims) continue;
      bool alone = true, legal = true;
      for (int32_t other : users_[y.id]) {
        if (group_[other] == g) continue;
        alone = false;
        legal = legal && !reaches(other, g);
      }
      // A broadcast is not memory, so it can't leave the group.
      if (node(n).op_name() == "broadcast_to" && (!alone || returned_[y.id])) continue;
      if (legal) return g;
    }
    return -1;
  }

  // Whether something flows from node `from` into group g, so that g can't wait for `from` to be fed.
  bool reaches(int32_t from, int32_t g) {
    ++search_;
    std::vector<int32_t> open{from};
    while (!open.empty()) {
      const int32_t n = open.back();
      open.pop_back();
      if (group_[n] == g) return true;
      if (seen_[n] == search_) continue;
      seen_[n] = search_;
      const auto add = [&](int32_t m) {
        for (int32_t i = 0; i < node(m).num_outputs; ++i)
          for (int32_t user : users_[node(m).output(i).id])
            if (seen_[user] != search_) open.push_back(user);
      };
      if (group_[n] < 0) {
        add(n);
      } else {
        for (int32_t m : members_[group_[n]]) {
          seen_[m] = search_;
          add(m);
        }
      }
    }
    return false;
  }

  const Graph& graph_;
  std::vector<std::vector<int32_t>> users_;
  std::vector<bool> returned_;
  std::vector<int32_t> group_;
  std::vector<std::vector<int32_t>> members_;  // by leader
  std::vector<int32_t> seen_;
  int32_t search_ = 0;
};

// Groups in an order in which each has its inputs, as near to that of their leaders as that allows.
std::vector<int32_t> order(const Graph& graph, const Grouping& grouping) {
  const int32_t count = static_cast<int32_t>(graph.nodes().size());
  std::vector<std::vector<int32_t>> after(static_cast<size_t>(count));
  std::vector<int32_t> waiting(after.size());
  for (int32_t n = 0; n < count; ++n)
    for (Value v : graph.nodes()[static_cast<size_t>(n)].inputs)
      if (const Node* producer = graph.producer(v); producer != nullptr) {
        const int32_t a = grouping.leader(static_cast<int32_t>(producer - graph.nodes().data()));
        const int32_t b = grouping.leader(n);
        if (a == b) continue;
        after[static_cast<size_t>(a)].push_back(b);
        ++waiting[static_cast<size_t>(b)];
      }
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> ready;
  for (int32_t n = 0; n < count; ++n)
    if (grouping.leader(n) == n && waiting[static_cast<size_t>(n)] == 0) ready.push(n);
  std::vector<int32_t> result;
  while (!ready.empty()) {
    const int32_t n = ready.top();
    ready.pop();
    result.push_back(n);
    for (int32_t next : after[static_cast<size_t>(n)])
      if (--waiting[static_cast<size_t>(next)] == 0) ready.push(next);
  }
  return result;
}

}  // namespace

Result<Graph> fuse_elementwise(const Graph& original, const OpRegistry& registry) {
  // Composites open up first, so that their parts fuse with their neighbours.
  DS_ASSIGN(const Graph graph,
            decompose(original, registry, [](const Graph&, const Node& node) { return node.op->traits.elementwise; }));
  const Grouping grouping(graph);
  Builder builder(registry);
  std::vector<Expr> map(static_cast<size_t>(graph.num_values()));
  for (const Input& input : graph.inputs())
    map[input.value.id] = builder.input(input.name, graph.type(input.value), input.kind);
  bool changed = false;
  for (const int32_t n : order(graph, grouping)) {
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    builder.set_scope(node.scope);
    const std::vector<int32_t>& members = grouping.members(n);
    if (members.size() < 2) {
      std::vector<Expr> inputs;
      for (Value v : node.inputs) inputs.push_back(map[v.id]);
      const std::vector<Expr> results = builder.emit(node.op_name(), std::move(inputs), node.attrs);
      for (size_t i = 0; i < results.size(); ++i) map[node.output(static_cast<int32_t>(i)).id] = results[i];
      continue;
    }
    changed = true;
    Builder body(registry);
    std::map<int32_t, Expr> inside;
    std::vector<Expr> args;
    std::vector<Value> results;
    const auto operand = [&](Value v) {
      if (auto it = inside.find(v.id); it != inside.end()) return it->second;
      const Node* producer = graph.producer(v);
      if (producer != nullptr && producer->op_name() == "constant" && graph.type(v).num_elements() == 1)
        return inside[v.id] = body.constant(producer->attrs.get<Tensor>("value"));
      args.push_back(map[v.id]);
      return inside[v.id] = body.input(std::to_string(args.size() - 1), graph.type(v));
    };
    for (const int32_t m : members) {
      const Node& member = graph.nodes()[static_cast<size_t>(m)];
      std::vector<Expr> inputs;
      for (Value v : member.inputs) inputs.push_back(operand(v));
      inside[member.output().id] = body.op(member.op_name(), std::move(inputs), member.attrs);
      if (m == n || grouping.escapes(member.output(), n)) results.push_back(member.output());
    }
    for (size_t i = 0; i < results.size(); ++i) body.output(std::to_string(i), inside[results[i].id]);
    DS_ASSIGN(Graph fused, body.finish());
    const std::vector<Expr> out =
        builder.emit("fused", args, {{"body", std::make_shared<const Graph>(std::move(fused))}});
    for (size_t i = 0; i < results.size(); ++i) map[results[i].id] = out[i];
  }
  if (!changed) return graph;
  for (const Output& output : graph.outputs()) builder.output(output.name, map[output.value.id]);
  for (const Update& update : graph.updates())
    builder.update(map[graph.inputs()[update.input].value.id], map[update.value.id]);
  return builder.finish();
}

}  // namespace deepseek::passes
