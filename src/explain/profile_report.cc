#include "explain/profile_report.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/strings.h"

namespace deepseek::explain {

using namespace graph;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

enum class Phase { kForward, kBackward, kUpdate };

struct Place {
  Phase phase;
  std::string layer;  // whole path
};

bool under(const std::string& scope, std::string_view top) {
  return scope.starts_with(top) && (scope.size() == top.size() || scope[top.size()] == '/');
}

// Scopes as train/step.h and passes/autodiff.h give them.
Place place_of(const std::string& scope) {
  for (const char* top : {"optimizer", "clip", "accumulate", "copies"})
    if (under(scope, top)) return {Phase::kUpdate, top};
  if (under(scope, "backward")) return {Phase::kBackward, scope.size() > 9 ? scope.substr(9) : ""};
  return {Phase::kForward, scope};
}

std::string cut(const std::string& path, int64_t depth) {
  size_t end = 0;
  for (int64_t i = 0; i < depth && end != std::string::npos; ++i) end = path.find('/', i == 0 ? 0 : end + 1);
  return path.substr(0, end);
}

template <class Key>
std::vector<ProfileGroup> group(const StepProfile& profile, Key key) {
  std::map<std::string, ProfileGroup> groups;
  for (const ProfiledNode& node : profile.nodes) {
    const Place place = place_of(node.report.scope);
    const std::string name = key(node, place);
    ProfileGroup& g = groups[name];
    g.name = name;
    (place.phase == Phase::kForward    ? g.forward
     : place.phase == Phase::kBackward ? g.backward
                                       : g.update) += node.seconds;
    ++g.nodes;
    g.cost.flops += node.cost.flops;
    g.cost.bytes += node.cost.bytes;
  }
  std::vector<ProfileGroup> list;
  for (auto& [name, g] : groups) list.push_back(std::move(g));
  std::stable_sort(list.begin(), list.end(),
                   [](const ProfileGroup& a, const ProfileGroup& b) { return a.seconds() > b.seconds(); });
  return list;
}

std::string label_of(const Node& node) {
  std::vector<std::string> held;
  if (node.op_name() == "fused")
    for (const Node& part : node.attrs.get<GraphRef>("body")->nodes())
      if (!part.op->traits.elementwise && part.op_name() != "constant" &&
          std::find(held.begin(), held.end(), part.op_name()) == held.end())
        held.push_back(part.op_name());
  return held.empty() ? node.op_name() : fmt::format("{}[{}]", node.op_name(), join(held, ", "));
}

}  // namespace

Cost StepProfile::cost() const {
  Cost sum;
  for (const ProfiledNode& node : nodes) {
    sum.flops += node.cost.flops;
    sum.bytes += node.cost.bytes;
  }
  return sum;
}

Result<StepProfile> profile_steps(const Program& program, const Backend& backend, const StepSource& source,
                                  const ProfileOptions& options) {
  if (options.warmup < 1) return invalid("warmup: expected at least 1 step, got {}", options.warmup);
  if (options.steps < 1) return invalid("steps: expected at least 1, got {}", options.steps);
  StepProfile out;
  out.steps = options.steps;
  const Graph& graph = program.graph();
  const std::vector<int32_t> uses = graph.use_counts();
  for (NodeReport& report : program.report()) {
    ProfiledNode& node = out.nodes.emplace_back();
    const Node& from = graph.nodes()[report.node];
    DS_ASSIGN(node.cost, node_cost(graph, from, uses));
    node.label = label_of(from);
    node.alone = why_alone(graph, from);
    node.report = std::move(report);
  }
  std::vector<std::vector<double>> seconds(out.nodes.size() + 1);
  std::vector<double> steps, waits;
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    const double begin = now();
    DS_TRY(source.next());
    const double ready = now();
    Profile profile;
    const bool counts = i >= options.warmup;
    DS_TRY(source.run(counts ? &profile : nullptr));
    if (!counts) continue;
    waits.push_back(ready - begin);
    steps.push_back(now() - ready);
    if (profile.runs != 1 || profile.seconds.size() != out.nodes.size())
      return internal_error("profile: expected one run of {} nodes, got {} of {}", out.nodes.size(), profile.runs,
                            profile.seconds.size());
    for (size_t n = 0; n < out.nodes.size(); ++n) seconds[n].push_back(profile.seconds[n]);
    seconds.back().push_back(profile.copies);
    out.last = std::move(profile);
  }
  out.seconds = median(std::move(steps));
  out.waiting = median(std::move(waits));
  ProfiledNode& copies = out.nodes.emplace_back();
  copies.label = copies.report.op = "copy of states and outputs";
  copies.report.implementation = "memcpy";
  copies.report.scope = "copies";
  for (size_t n = 0; n < out.nodes.size(); ++n) out.nodes[n].seconds = median(std::move(seconds[n]));
  out.peak = backend.measure_peak();
  return out;
}

std::vector<ProfileGroup> group_by_scope(const StepProfile& profile, int64_t depth) {
  return group(profile, [depth](const ProfiledNode&, const Place& place) {
    return place.layer.empty() ? std::string("(no layer)") : cut(place.layer, std::max<int64_t>(depth, 1));
  });
}

std::vector<ProfileGroup> group_by_op(const StepProfile& profile) {
  return group(profile, [](const ProfiledNode& node, const Place&) {
    const std::string& implementation = node.report.implementation;
    return node.label + "  " + implementation.substr(0, implementation.find(" ("));
  });
}

bool memory_bound(const Cost& cost, const Peak& peak) { return cost.bytes * peak.flops > cost.flops * peak.bytes; }

double least_seconds(const Cost& cost, const Peak& peak) {
  return std::max(peak.flops > 0 ? cost.flops / peak.flops : 0, peak.bytes > 0 ? cost.bytes / peak.bytes : 0);
}

std::string profile_json(const StepProfile& profile, int64_t depth) {
  using Json = nlohmann::ordered_json;
  const auto groups = [](const std::vector<ProfileGroup>& list) {
    Json out = Json::array();
    for (const ProfileGroup& g : list)
      out.push_back({{"name", g.name},
                     {"ms", 1e3 * g.seconds()},
                     {"forward_ms", 1e3 * g.forward},
                     {"backward_ms", 1e3 * g.backward},
                     {"update_ms", 1e3 * g.update},
                     {"nodes", g.nodes},
                     {"flops", g.cost.flops},
                     {"bytes", g.cost.bytes}});
    return out;
  };
  Json nodes = Json::array();
  for (const ProfiledNode& n : profile.nodes)
    nodes.push_back({{"scope", n.report.scope},
                     {"op", n.report.op},
                     {"label", n.label},
                     {"implementation", n.report.implementation},
                     {"types", n.report.types},
                     {"refusals", n.report.refusals},
                     {"alone", n.alone},
                     {"ms", 1e3 * n.seconds},
                     {"flops", n.cost.flops},
                     {"bytes", n.cost.bytes},
                     {"least_ms", 1e3 * least_seconds(n.cost, profile.peak)}});
  const Cost cost = profile.cost();
  const Json all = {{"subject", profile.subject},
                    {"steps", profile.steps},
                    {"step_ms", 1e3 * profile.seconds},
                    {"waiting_ms", 1e3 * profile.waiting},
                    {"flops", cost.flops},
                    {"bytes", cost.bytes},
                    {"peak",
                     {{"device", profile.peak.device},
                      {"flops_per_second", profile.peak.flops},
                      {"bytes_per_second", profile.peak.bytes}}},
                    {"hints", profile_hints(profile)},
                    {"by_scope", groups(group_by_scope(profile, depth))},
                    {"by_op", groups(group_by_op(profile))},
                    {"nodes", nodes}};
  return dump_json(all, 1, true) + "\n";
}

std::string chrome_trace(const StepProfile& profile) {
  using Json = nlohmann::ordered_json;
  const Profile& last = profile.last;
  Json events = Json::array();
  const auto event = [&](const std::string& name, const std::string& category, double start, double seconds,
                         Json args) {
    events.push_back({{"name", name},
                      {"cat", category},
                      {"ph", "X"},
                      {"ts", 1e6 * start},
                      {"dur", 1e6 * seconds},
                      {"pid", 1},
                      {"tid", 1},
                      {"args", std::move(args)}});
  };
  double end = last.copies;
  if (!last.starts.empty()) end += last.starts.back() + last.seconds.back();
  const Cost cost = profile.cost();
  event("step", "step", 0, end,
        {{"subject", profile.subject}, {"device", profile.peak.device}, {"flops", cost.flops}, {"bytes", cost.bytes}});
  for (size_t i = 0; i < profile.nodes.size(); ++i) {
    const ProfiledNode& n = profile.nodes[i];
    const bool copies = i >= last.starts.size();
    event(n.label, n.report.implementation, copies ? end - last.copies : last.starts[i],
          copies ? last.copies : last.seconds[i],
          {{"scope", n.report.scope}, {"types", n.report.types}, {"flops", n.cost.flops}, {"bytes", n.cost.bytes}});
  }
  return dump_json(Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}, -1, true) + "\n";
}

}  // namespace deepseek::explain
