// What stands out in a profile, in sentences. Each rule says nothing where what it looks for is not there.
#include <algorithm>
#include <set>

#include "base/strings.h"
#include "explain/profile_report.h"
#include "passes/predicates.h"

namespace deepseek::explain {

using namespace graph;

namespace {

constexpr double kWorthSaying = 0.01;  // of a step
constexpr double kShort = 20e-6;       // seconds; below, a node's time is mostly starting it

// What a reader would call it: conv for blocked_conv_input_grad, batch_norm for a loop around one.
std::string family(const ProfiledNode& node) {
  std::string op = node.report.op;
  if (op == "fused") {
    const size_t begin = node.label.find('[');
    op = begin == std::string::npos ? "" : node.label.substr(begin + 1, node.label.find_first_of(",]") - begin - 1);
    if (op.empty() || op == "sum" || op == "mean") return "element-wise work";
  } else if (node.report.implementation.starts_with("elementwise")) {
    return "element-wise work";
  }
  if (op.starts_with("blocked_")) op = op.substr(8);
  for (const std::string_view end : {"_input_grad", "_weight_grad", "_grad"})
    if (op.ends_with(end)) return op.substr(0, op.size() - end.size());
  return op;
}

std::string name_of(const ProfiledNode& node) {
  return node.report.scope.empty() ? "[" + node.label + "]"
                                   : fmt::format("[{}] at '{}'", node.label, node.report.scope);
}

std::string plural(size_t n, const char* one, const char* many) { return fmt::format("{} {}", n, n == 1 ? one : many); }

// A choice of nodes, their share of the step and the slowest of them.
struct Chosen {
  size_t count = 0;
  double seconds = 0;
  Cost cost;
  double least = 0;
  const ProfiledNode* slowest = nullptr;
};

class Hints {
 public:
  explicit Hints(const StepProfile& profile) : p_(profile) {}

  std::vector<std::string> all() {
    waiting();
    dominant();
    memory();
    roofline();
    reference();
    refused();
    alone();
    short_nodes();
    busy();
    return std::move(out_);
  }

 private:
  template <class Which>
  Chosen choose(Which which) const {
    Chosen c;
    for (const ProfiledNode& node : p_.nodes) {
      if (!which(node)) continue;
      ++c.count;
      c.seconds += node.seconds;
      c.cost.flops += node.cost.flops;
      c.cost.bytes += node.cost.bytes;
      c.least += std::min(node.seconds, least_seconds(node.cost, p_.peak));
      if (c.slowest == nullptr || node.seconds > c.slowest->seconds) c.slowest = &node;
    }
    return c;
  }
  double share(double seconds) const { return p_.seconds > 0 ? seconds / p_.seconds : 0; }
  std::string percent(double seconds) const { return fmt::format("{:.0f} %", 100 * share(seconds)); }
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) {
    out_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  void waiting() {
    const double all = p_.waiting + p_.seconds;
    if (all <= 0 || p_.waiting / all < 0.05) return;
    say("{:.0f} % of the time goes into waiting for the next batch: making one takes longer than a step",
        100 * p_.waiting / all);
  }

  void dominant() {
    std::map<std::string, double> seconds;
    for (const ProfiledNode& node : p_.nodes) seconds[family(node)] += node.seconds;
    if (seconds.empty()) return;
    const auto top = std::max_element(seconds.begin(), seconds.end(),
                                      [](const auto& a, const auto& b) { return a.second < b.second; });
    if (share(top->second) < 0.25) return;
    const Chosen c = choose([&](const ProfiledNode& n) { return family(n) == top->first; });
    if (memory_bound(c.cost, p_.peak))
      say("{} takes {} of the step, at {:.0f} % of the peak bandwidth", top->first, percent(c.seconds),
          100 * c.cost.bytes / c.seconds / p_.peak.bytes);
    else
      say("{} takes {} of the step, at {:.0f} % of the peak FLOP/s", top->first, percent(c.seconds),
          100 * c.cost.flops / c.seconds / p_.peak.flops);
  }

  void memory() {
    const Chosen c = choose([&](const ProfiledNode& n) { return n.cost.bytes > 0 && memory_bound(n.cost, p_.peak); });
    if (share(c.seconds) < 0.2 || p_.peak.bytes <= 0) return;
    say("{} of the step goes into nodes that memory limits, with fewer FLOPs per byte than the machine's {:.1f}; "
        "together they move data at {:.0f} % of the peak bandwidth",
        percent(c.seconds), p_.peak.flops / p_.peak.bytes, 100 * c.cost.bytes / c.seconds / p_.peak.bytes);
  }

  // Which family is furthest from what the peak allows.
  void roofline() {
    if (p_.peak.flops <= 0 || p_.peak.bytes <= 0) return;
    std::map<std::string, double> lost;
    for (const ProfiledNode& node : p_.nodes)
      lost[family(node)] += std::max(0.0, node.seconds - least_seconds(node.cost, p_.peak));
    if (lost.empty()) return;
    const auto top =
        std::max_element(lost.begin(), lost.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (share(top->second) < 0.05) return;
    const Chosen c = choose([](const ProfiledNode&) { return true; });
    say("with every node at the peak FLOP/s or bandwidth, whichever limits it, a step would take {:.2f} ms; most lies "
        "in {}, "
        "{:.2f} ms above that",
        1e3 * c.least, top->first, 1e3 * top->second);
  }

  void reference() {
    const Chosen c = choose([](const ProfiledNode& n) { return n.report.implementation.starts_with("reference"); });
    if (c.count == 0) return;
    say("{} on reference kernels, which are slow, {} of the step; the slowest is {}: {}",
        plural(c.count, "node runs", "nodes run"), percent(c.seconds), name_of(*c.slowest),
        join(c.slowest->report.refusals, "; "));
  }

  void refused() {
    const Chosen c = choose([](const ProfiledNode& n) {
      // The list of fused is not ordered by speed: its entries take different bodies.
      return !n.report.refusals.empty() && n.report.op != "fused" && !n.report.implementation.starts_with("reference");
    });
    if (share(c.seconds) < kWorthSaying) return;
    say("{} not run on the fastest implementation, {} of the step; the slowest is {}, which runs on {}: {}",
        plural(c.count, "node does", "nodes do"), percent(c.seconds), name_of(*c.slowest),
        c.slowest->report.implementation, join(c.slowest->report.refusals, "; "));
  }

  void alone() {
    const Chosen c = choose([](const ProfiledNode& n) { return !n.alone.empty(); });
    if (share(c.seconds) < kWorthSaying) return;
    say("{} by itself, without fusing with a neighbour, {} of the step; the slowest is {}: {}",
        plural(c.count, "element-wise node runs", "element-wise nodes run each"), percent(c.seconds),
        name_of(*c.slowest), c.slowest->alone);
  }

  void short_nodes() {
    const Chosen c = choose([](const ProfiledNode& n) { return n.seconds < kShort; });
    if (share(c.seconds) < 0.05) return;
    say("{} take less than {:.0f} us each, together {} of the step: larger batches or fewer, larger layers use the "
        "machine better",
        plural(c.count, "node", "nodes"), 1e6 * kShort, percent(c.seconds));
  }

  // Caches beat the peak bandwidth, but nothing beats the FLOPs, unless something disturbed the measurement.
  void busy() {
    const Chosen c = choose(
        [&](const ProfiledNode& n) { return n.seconds > kShort && n.cost.flops > 1.15 * n.seconds * p_.peak.flops; });
    if (c.count == 0 || p_.peak.flops <= 0) return;
    say("{} more FLOP/s than the measured peak: other programs used the machine meanwhile; run it again",
        plural(c.count, "node reaches", "nodes reach"));
  }

  const StepProfile& p_;
  std::vector<std::string> out_;
};

bool elementwise(const Node& node) { return node.op->traits.elementwise && !node.op->traits.random; }
using passes::is_sum;
bool is_loop(const Node& node) { return elementwise(node) || is_sum(node) || node.op_name() == "fused"; }

// What a loop counts over: the largest value of its body; what a sum reads, what an element-wise node writes.
const TensorType& space(const Graph& graph, const Node& node) {
  if (is_sum(node)) return graph.type(node.inputs[0]);
  if (node.op_name() != "fused") return graph.type(node.output());
  const Graph& body = *node.attrs.get<GraphRef>("body");
  const TensorType* largest = &body.type(body.nodes()[0].output());
  for (const Node& part : body.nodes()) {
    const TensorType& type = space(body, part);
    if (type.num_elements() > largest->num_elements()) largest = &type;
  }
  return *largest;
}

}  // namespace

std::vector<std::string> profile_hints(const StepProfile& profile) { return Hints(profile).all(); }

// As passes/fuse_elementwise.h fuses: a node with one of its readers, where both count over the same elements and no
// value leaves the loop and comes back.
std::string why_alone(const Graph& graph, const Node& node) {
  if (!elementwise(node)) return "";
  const TensorType& type = graph.type(node.output());
  const Node *near = nullptr, *other_shape = nullptr;  // readers that are loops
  std::set<std::string> others;
  bool read = false;
  for (const Node& reader : graph.nodes()) {
    if (std::find(reader.inputs.begin(), reader.inputs.end(), node.output()) == reader.inputs.end()) continue;
    read = true;
    if (!is_loop(reader))
      others.insert(reader.op_name());
    else
      (space(graph, reader).dims == type.dims ? near : other_shape) = &reader;
  }
  std::vector<std::string> reasons;
  if (!read)
    reasons.push_back("no node reads its result");
  else if (near != nullptr)
    reasons.push_back(
        fmt::format("fused with its reader {}, a value would leave the loop and come back", near->op_name()));
  else if (other_shape != nullptr)
    reasons.push_back(fmt::format("its reader {} counts over another shape, {} rather than {}", other_shape->op_name(),
                                  to_string(space(graph, *other_shape)), to_string(type)));
  else
    reasons.push_back("its result is read by " + join({others.begin(), others.end()}, ", "));
  for (const Value v : node.inputs) {
    const Node* producer = graph.producer(v);
    if (producer == nullptr || !is_loop(*producer)) continue;
    if (is_sum(*producer) || graph.type(v).dims != type.dims)
      reasons.push_back(fmt::format("its operand comes from {}, which counts over another shape", producer->op_name()));
    else
      reasons.push_back(fmt::format("its operand comes from another loop, {}", producer->op_name()));
  }
  return join(reasons, "; ");
}

}  // namespace deepseek::explain
