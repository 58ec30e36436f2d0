#include "passes/schedule.h"

#include <algorithm>
#include <set>

#include "graph/cloner.h"
#include "passes/predicates.h"

namespace deepseek::passes {

using namespace graph;

namespace {

// By value: whose bytes it is.
std::vector<int32_t> roots(const Graph& graph) {
  std::vector<int32_t> root(static_cast<size_t>(graph.num_values()));
  for (size_t v = 0; v < root.size(); ++v) root[v] = static_cast<int32_t>(v);
  for (const Node& node : graph.nodes())
    if (is_view(node)) root[node.output().id] = root[node.inputs[0].id];
  return root;
}

// What a node makes so much smaller than what it reads, a sum for instance, may be made at any time.
constexpr int64_t kSmall = 16;

bool makes_little(const Graph& graph, const Node& node) {
  int64_t read = 0, made = 0;
  for (Value v : node.inputs) read += static_cast<int64_t>(graph.type(v).num_bytes());
  for (int32_t i = 0; i < node.num_outputs; ++i) made += static_cast<int64_t>(graph.type(node.output(i)).num_bytes());
  return is_view(node) || made * kSmall <= read;
}

// Nodes that run as soon as they can, by number: what only updates need, and what makes little, so that large values
// need not wait for it. Others keep their place.
std::vector<bool> eager_nodes(const Graph& graph) {
  std::vector<bool> needed(static_cast<size_t>(graph.num_values())), eager(graph.nodes().size());
  for (const Output& output : graph.outputs()) needed[output.value.id] = true;
  for (size_t n = eager.size(); n-- > 0;) {
    const Node& node = graph.nodes()[n];
    bool only_updates = true;
    for (int32_t i = 0; i < node.num_outputs; ++i) only_updates = only_updates && !needed[node.output(i).id];
    eager[n] = only_updates || makes_little(graph, node);
    if (!only_updates)
      for (Value v : node.inputs) needed[v.id] = true;
  }
  return eager;
}

// The new order of the nodes; empty if updates wait for each other.
std::vector<int32_t> order_of(const Graph& graph) {
  const auto count = static_cast<int32_t>(graph.nodes().size());
  const std::vector<int32_t> root = roots(graph);
  const std::vector<bool> eager = eager_nodes(graph);
  std::vector<std::vector<int32_t>> followers(static_cast<size_t>(count)), readers(root.size());
  std::vector<int32_t> waits(static_cast<size_t>(count));
  for (int32_t n = 0; n < count; ++n)
    for (Value v : graph.nodes()[static_cast<size_t>(n)].inputs) {
      std::vector<int32_t>& list = readers[root[v.id]];
      if (list.empty() || list.back() != n) list.push_back(n);
    }
  std::vector<int32_t> producer(root.size(), -1);
  for (int32_t n = 0; n < count; ++n) {
    const Node& node = graph.nodes()[static_cast<size_t>(n)];
    for (int32_t i = 0; i < node.num_outputs; ++i) producer[node.output(i).id] = n;
  }
  const auto wait = [&](int32_t node, int32_t before) {
    followers[static_cast<size_t>(before)].push_back(node);
    ++waits[static_cast<size_t>(node)];
  };
  for (int32_t n = 0; n < count; ++n)
    for (Value v : graph.nodes()[static_cast<size_t>(n)].inputs)
      if (producer[v.id] >= 0) wait(n, producer[v.id]);
  for (const Update& update : graph.updates()) {
    const int32_t writer = producer[root[update.value.id]], state = graph.inputs()[update.input].value.id;
    if (writer < 0 || !eager[static_cast<size_t>(writer)]) continue;
    for (int32_t reader : readers[state])
      if (reader != writer && !is_view(graph.nodes()[static_cast<size_t>(reader)])) wait(writer, reader);
  }
  // Nodes in their order; after each, those that it set free. An eager one takes its turn when it is free.
  std::vector<int32_t> order;
  std::vector<bool> done(static_cast<size_t>(count));
  std::set<int32_t> free;
  const auto emit = [&](int32_t n) {
    order.push_back(n);
    done[static_cast<size_t>(n)] = true;
    for (int32_t f : followers[static_cast<size_t>(n)])
      if (--waits[static_cast<size_t>(f)] == 0 && eager[static_cast<size_t>(f)]) free.insert(f);
  };
  const auto emit_free = [&] {
    while (!free.empty()) {
      const int32_t n = *free.begin();
      free.erase(free.begin());
      emit(n);
    }
  };
  for (int32_t n = 0; n < count; ++n)
    if (eager[static_cast<size_t>(n)] && waits[static_cast<size_t>(n)] == 0) free.insert(n);
  // What needs nothing, a constant for instance, is at hand from the beginning.
  emit_free();
  for (int32_t n = 0; n < count; ++n) {
    if (done[static_cast<size_t>(n)] || eager[static_cast<size_t>(n)]) continue;
    if (waits[static_cast<size_t>(n)] > 0) return {};
    emit(n);
    emit_free();
  }
  if (order.size() < static_cast<size_t>(count)) return {};
  return order;
}

}  // namespace

int64_t peak_bytes(const Graph& graph) {
  const std::vector<int32_t> root = roots(graph);
  std::vector<int32_t> last(root.size(), -1);
  for (size_t n = 0; n < graph.nodes().size(); ++n)
    for (Value v : graph.nodes()[n].inputs) last[root[v.id]] = static_cast<int32_t>(n);
  std::vector<bool> free(root.size());  // no intermediates: constants, and what is produced in a state or output
  for (const Node& node : graph.nodes())
    if (node.op_name() == "constant") free[node.output().id] = true;
  for (const Input& input : graph.inputs()) free[input.value.id] = true;
  for (const Output& output : graph.outputs()) free[root[output.value.id]] = true;
  for (const Update& update : graph.updates()) {
    // In its place only if nobody reads the old state any more; else a copy that lives to the end.
    const int32_t value = root[update.value.id], state = graph.inputs()[update.input].value.id;
    const Node* writer = graph.producer({value});
    const auto made = writer == nullptr ? -1 : static_cast<int32_t>(writer - graph.nodes().data());
    if (last[state] <= made) free[value] = true;
    last[value] = static_cast<int32_t>(graph.nodes().size());
  }
  std::vector<std::vector<int32_t>> dies(graph.nodes().size());
  for (size_t v = 0; v < root.size(); ++v)
    if (last[v] >= 0 && last[v] < static_cast<int32_t>(dies.size()) && !free[v])
      dies[static_cast<size_t>(last[v])].push_back(static_cast<int32_t>(v));
  int64_t alive = 0, peak = 0;
  for (size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    for (int32_t i = 0; i < node.num_outputs; ++i)
      if (const int32_t v = node.output(i).id; !is_view(node) && !free[v] && last[v] >= 0)
        alive += static_cast<int64_t>(graph.type({v}).num_bytes());
    peak = std::max(peak, alive);
    for (int32_t v : dies[n])
      if (graph.producer({v}) != nullptr) alive -= static_cast<int64_t>(graph.type({v}).num_bytes());
  }
  return peak;
}

Result<Graph> schedule(const Graph& graph, const PassContext&) {
  const std::vector<int32_t> order = order_of(graph);
  if (order.empty() || std::is_sorted(order.begin(), order.end())) return graph;
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  for (int32_t n : order) cloner.copy(graph.nodes()[static_cast<size_t>(n)]);
  cloner.results();
  DS_ASSIGN(Graph result, builder.finish());
  // Sums that wait at the peak are little; the rest of the run needs less in any case.
  return peak_bytes(result) <= peak_bytes(graph) + peak_bytes(graph) / 64 ? result : graph;
}

}  // namespace deepseek::passes
