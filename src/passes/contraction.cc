#include "passes/contraction.h"

#include <algorithm>
#include <map>
#include <queue>

#include "graph/cloner.h"

namespace deepseek::passes {

using namespace graph;

Contraction::Contraction(const Graph& graph)
    : graph_(graph),
      users_(static_cast<size_t>(graph.num_values())),
      returned_(users_.size()),
      group_(graph.nodes().size()),
      members_(group_.size()),
      seen_(group_.size()) {
  for (size_t n = 0; n < group_.size(); ++n) {
    group_[n] = static_cast<int32_t>(n);
    members_[n] = {group_[n]};
    for (Value v : graph.nodes()[n].inputs)
      if (auto& users = users_[static_cast<size_t>(v.id)]; users.empty() || users.back() != group_[n])
        users.push_back(group_[n]);
  }
  for (const Output& o : graph.outputs()) returned_[static_cast<size_t>(o.value.id)] = true;
  for (const Update& u : graph.updates()) returned_[static_cast<size_t>(u.value.id)] = true;
}

bool Contraction::escapes(Value v, int32_t group) const {
  return returned_[static_cast<size_t>(v.id)] ||
         std::any_of(users(v).begin(), users(v).end(), [&](int32_t user) { return this->group(user) != group; });
}

bool Contraction::may_join(int32_t a, int32_t b) {
  ++search_;
  std::vector<int32_t> open;  // groups that something flows into, from a and not by b
  const auto follow = [&](int32_t g) {
    for (int32_t m : members(g))
      for (int32_t i = 0; i < node(m).num_outputs; ++i)
        for (int32_t user : users(node(m).output(i))) {
          const int32_t next = group(user);
          if (next == g || (g == a && next == b) || seen_[static_cast<size_t>(next)] == search_) continue;
          seen_[static_cast<size_t>(next)] = search_;
          open.push_back(next);
        }
  };
  follow(a);
  while (!open.empty()) {
    const int32_t g = open.back();
    open.pop_back();
    if (g == b) return false;
    follow(g);
  }
  return true;
}

void Contraction::join(int32_t a, int32_t b) {
  auto &from = members_[static_cast<size_t>(a)], &to = members_[static_cast<size_t>(b)];
  for (int32_t m : from) group_[static_cast<size_t>(m)] = b;
  to.insert(to.end(), from.begin(), from.end());
  std::sort(to.begin(), to.end());
  from.clear();
}

std::vector<int32_t> Contraction::order() const {
  const int32_t count = static_cast<int32_t>(group_.size());
  std::vector<std::vector<int32_t>> after(group_.size());
  std::vector<int32_t> waiting(group_.size());
  for (int32_t n = 0; n < count; ++n)
    for (Value v : node(n).inputs)
      if (const Node* producer = graph_.producer(v); producer != nullptr) {
        const int32_t a = group(static_cast<int32_t>(producer - graph_.nodes().data())), b = group(n);
        if (a == b) continue;
        after[static_cast<size_t>(a)].push_back(b);
        ++waiting[static_cast<size_t>(b)];
      }
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> ready;
  for (int32_t n = 0; n < count; ++n)
    if (group(n) == n && waiting[static_cast<size_t>(n)] == 0) ready.push(n);
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

Result<Contraction::Body> Contraction::make_body(const std::vector<int32_t>& nodes) const {
  Body result;
  Builder body(graph_.registry());
  std::map<int32_t, Expr> inside;
  const auto operand = [&](Value v) {
    if (auto it = inside.find(v.id); it != inside.end()) return it->second;
    const Node* producer = graph_.producer(v);
    if (producer != nullptr && producer->op_name() == "constant" && graph_.type(v).num_elements() == 1)
      return inside[v.id] = body.constant(producer->attrs.get<Tensor>("value"));
    result.arguments.push_back(v);
    return inside[v.id] = body.input(std::to_string(result.arguments.size() - 1), graph_.type(v));
  };
  for (const int32_t n : nodes) {
    std::vector<Expr> inputs;
    for (Value v : node(n).inputs) inputs.push_back(operand(v));
    const std::vector<Expr> outputs = node(n).op_name() == "fused"
                                          ? body.inline_graph(*node(n).attrs.get<GraphRef>("body"), inputs)
                                          : body.emit(node(n).op_name(), std::move(inputs), node(n).attrs);
    DS_TRY(body.status());
    for (size_t i = 0; i < outputs.size(); ++i) inside[node(n).output(static_cast<int32_t>(i)).id] = outputs[i];
  }
  const auto within = [&](int32_t user) { return std::find(nodes.begin(), nodes.end(), user) != nodes.end(); };
  for (const int32_t n : nodes)
    for (int32_t i = 0; i < node(n).num_outputs; ++i) {
      const Value v = node(n).output(i);
      if (!returned_[static_cast<size_t>(v.id)] && std::all_of(users(v).begin(), users(v).end(), within)) continue;
      result.results.push_back(v);
      body.output(std::to_string(result.results.size() - 1), inside[v.id]);
    }
  DS_ASSIGN(result.graph, body.finish());
  return result;
}

Result<Graph> Contraction::body(const std::vector<int32_t>& nodes) const {
  DS_ASSIGN(Body result, make_body(nodes));
  return result.graph;
}

Result<Graph> Contraction::build() const {
  if (std::all_of(members_.begin(), members_.end(), [](const auto& m) { return m.size() < 2; })) return graph_;
  Builder builder(graph_.registry());
  Cloner cloner(builder, graph_);
  cloner.inputs();
  for (const int32_t g : order()) {
    const Node& leader = node(g);
    const auto scope = scope_of_.find(g);
    if (members(g).size() == 1) {
      cloner.copy(leader);
      continue;
    }
    DS_ASSIGN(Body body, make_body(members(g)));
    builder.set_scope(scope != scope_of_.end() ? node(scope->second).scope : leader.scope);
    const std::vector<Expr> out = builder.emit("fused", cloner.at(body.arguments),
                                               {{"body", std::make_shared<const Graph>(std::move(body.graph))}});
    for (size_t i = 0; i < body.results.size(); ++i) cloner[body.results[i]] = out[i];
  }
  cloner.results();
  return builder.finish();
}

}  // namespace deepseek::passes
