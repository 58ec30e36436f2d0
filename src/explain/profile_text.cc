// The report for a terminal.
#include <algorithm>

#include "explain/profile_report.h"

namespace deepseek::explain {

using graph::Cost;

namespace {

constexpr size_t kMostGroups = 25;  // rows of a table; the rest is summed in one
constexpr size_t kWidest = 44;      // columns of a cell

using Row = std::vector<std::string>;

// Three figures, without an exponent.
std::string figures(double x) {
  return x >= 99.95 ? fmt::format("{:.0f}", x) : x >= 9.995 ? fmt::format("{:.1f}", x) : fmt::format("{:.2f}", x);
}

// "7.20 GFLOP", "85.0 MB"
std::string amount(double x, const char* unit) {
  return x >= 1e9 ? figures(x / 1e9) + " G" + unit : figures(x / 1e6) + " M" + unit;
}

std::string milliseconds(double seconds) { return fmt::format("{:.3f}", 1e3 * seconds); }

std::string share(double part, double whole) { return whole > 0 ? fmt::format("{:.1f}", 100 * part / whole) : ""; }

// GFLOP/s and GB/s, each followed by its share of the peak; empty where there is nothing to say.
void add_rates(Row& row, const Cost& cost, double seconds, const Peak& peak) {
  const auto add = [&](double amount, double most) {
    const double rate = seconds > 0 ? amount / seconds : 0;
    row.push_back(rate > 0 ? figures(rate / 1e9) : "");
    row.push_back(rate > 0 && most > 0 ? fmt::format("{:.0f} %", 100 * rate / most) : "");
  };
  add(cost.flops, peak.flops);
  add(cost.bytes, peak.bytes);
}

// `left`: how many of the first columns are aligned left.
std::string table(const std::vector<Row>& rows, size_t left) {
  std::vector<size_t> widths(rows[0].size());
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += i < left ? fmt::format("  {:<{}}", row[i], widths[i]) : fmt::format("  {:>{}}", row[i], widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string shortened(const std::string& text) {
  return text.size() <= kWidest ? text : text.substr(0, kWidest - 3) + "...";
}

// The last group stands for all that are left out.
std::vector<ProfileGroup> first(std::vector<ProfileGroup> groups) {
  if (groups.size() <= kMostGroups) return groups;
  ProfileGroup rest;
  rest.name = fmt::format("({} others)", groups.size() - kMostGroups + 1);
  for (size_t i = kMostGroups - 1; i < groups.size(); ++i) {
    rest.forward += groups[i].forward;
    rest.backward += groups[i].backward;
    rest.update += groups[i].update;
    rest.nodes += groups[i].nodes;
    rest.cost.flops += groups[i].cost.flops;
    rest.cost.bytes += groups[i].cost.bytes;
  }
  groups.resize(kMostGroups - 1);
  groups.push_back(std::move(rest));
  return groups;
}

std::string scopes(const StepProfile& profile, int64_t depth) {
  std::vector<Row> rows{{"layer", "ms", "%", "forward", "backward", "update", "GFLOP/s", "", "GB/s", ""}};
  for (const ProfileGroup& g : first(group_by_scope(profile, depth))) {
    Row& row =
        rows.emplace_back(Row{shortened(g.name), milliseconds(g.seconds()), share(g.seconds(), profile.seconds)});
    for (const double part : {g.forward, g.backward, g.update}) row.push_back(part > 0 ? milliseconds(part) : "");
    add_rates(row, g.cost, g.seconds(), profile.peak);
  }
  return table(rows, 1);
}

std::string ops(const StepProfile& profile) {
  std::vector<Row> rows{{"op  implementation", "nodes", "ms", "%", "MFLOP", "MB", "GFLOP/s", "", "GB/s", ""}};
  for (const ProfileGroup& g : first(group_by_op(profile))) {
    Row& row = rows.emplace_back(Row{shortened(g.name), std::to_string(g.nodes), milliseconds(g.seconds()),
                                     share(g.seconds(), profile.seconds), figures(g.cost.flops / 1e6),
                                     figures(g.cost.bytes / 1e6)});
    add_rates(row, g.cost, g.seconds(), profile.peak);
  }
  return table(rows, 1);
}

std::string nodes(const StepProfile& profile, size_t count) {
  std::vector<const ProfiledNode*> slowest;
  for (const ProfiledNode& node : profile.nodes) slowest.push_back(&node);
  std::stable_sort(slowest.begin(), slowest.end(),
                   [](const ProfiledNode* a, const ProfiledNode* b) { return a->seconds > b->seconds; });
  slowest.resize(std::min(count, slowest.size()));
  std::vector<Row> rows{
      {"layer", "op", "implementation", "ms", "%", "MFLOP", "MB", "GFLOP/s", "", "GB/s", "", "types"}};
  for (const ProfiledNode* n : slowest) {
    Row& row = rows.emplace_back(Row{shortened(n->report.scope), n->label, shortened(n->report.implementation),
                                     milliseconds(n->seconds), share(n->seconds, profile.seconds),
                                     figures(n->cost.flops / 1e6), figures(n->cost.bytes / 1e6)});
    add_rates(row, n->cost, n->seconds, profile.peak);
    row.push_back(n->report.types);
  }
  size_t widest = 0;  // types are of very different lengths, so they begin in one column
  for (Row& row : rows) widest = std::max(widest, row.back().size());
  for (Row& row : rows) row.back().resize(widest, ' ');
  return table(rows, 3);
}

}  // namespace

std::string to_string(const Peak& peak) {
  return fmt::format("{} GFLOP/s, {} GB/s ({})", figures(peak.flops / 1e9), figures(peak.bytes / 1e9), peak.device);
}

std::string profile_text(const StepProfile& profile, int64_t depth, size_t slowest) {
  const Cost cost = profile.cost();
  std::string text = fmt::format("{}{}{} ms per step, the median of {}; {} ms more waiting for its batch\n",
                                 profile.subject, profile.subject.empty() ? "" : ": ", figures(1e3 * profile.seconds),
                                 profile.steps, figures(1e3 * profile.waiting));
  text += fmt::format("peak {}\n", to_string(profile.peak));
  if (profile.seconds > 0 && profile.peak.flops > 0)
    text +=
        fmt::format("a step computes {} and moves {}: {} GFLOP/s, {:.1f} % of the peak\n", amount(cost.flops, "FLOP"),
                    amount(cost.bytes, "B"), figures(cost.flops / profile.seconds / 1e9),
                    100 * cost.flops / profile.seconds / profile.peak.flops);
  text += fmt::format("\nby layer\n{}\nby op and implementation\n{}", scopes(profile, depth), ops(profile));
  if (slowest > 0)
    text += fmt::format("\nthe slowest {} of {} nodes\n{}", std::min(slowest, profile.nodes.size()),
                        profile.nodes.size(), nodes(profile, slowest));
  const std::vector<std::string> hints = profile_hints(profile);
  if (!hints.empty()) text += "\nhints\n";
  for (const std::string& hint : hints) text += "  - " + hint + "\n";
  return text;
}

}  // namespace deepseek::explain
