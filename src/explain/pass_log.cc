#include "explain/pass_log.h"

#include <algorithm>
#include <map>

#include "base/strings.h"
#include "graph/text.h"

namespace deepseek::explain {

using graph::Graph;

namespace {

std::vector<std::string> lines_of(const Graph& graph) {
  const std::string text = graph::print(graph);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// "%12 = add(%3, %4)" as "% = add(%, %)".
std::string without_numbers(const std::string& line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    out += line[i];
    if (line[i] != '%') continue;
    while (i + 1 < line.size() && line[i + 1] >= '0' && line[i + 1] <= '9') ++i;
  }
  return out;
}

// Which lines of a and b belong together, as pairs of indices in order (Myers, "An O(ND) Difference Algorithm and Its
// Variations", 1986). `a` and `b` are numbers of equal lines.
std::vector<std::pair<size_t, size_t>> common(const std::vector<int>& a, const std::vector<int>& b) {
  const auto n = static_cast<int64_t>(a.size()), m = static_cast<int64_t>(b.size()), most = n + m;
  std::vector<int64_t> furthest(static_cast<size_t>(2 * most + 2));
  std::vector<std::vector<int64_t>> trace;  // by edits: the part of `furthest` that they can reach
  const auto at = [&](int64_t k) -> int64_t& { return furthest[static_cast<size_t>(k + most)]; };
  int64_t edits = 0;
  for (bool done = false; edits <= most && !done; ++edits) {
    std::vector<int64_t> before;
    for (int64_t k = -edits - 1; k <= edits + 1; ++k) before.push_back(k >= -most && k <= most + 1 ? at(k) : 0);
    trace.push_back(std::move(before));
    for (int64_t k = -edits; k <= edits && !done; k += 2) {
      int64_t x = k == -edits || (k != edits && at(k - 1) < at(k + 1)) ? at(k + 1) : at(k - 1) + 1;
      while (x < n && x - k < m && a[static_cast<size_t>(x)] == b[static_cast<size_t>(x - k)]) ++x;
      at(k) = x;
      done = x >= n && x - k >= m;
    }
  }
  std::vector<std::pair<size_t, size_t>> pairs;
  int64_t x = n, y = m;
  for (int64_t d = edits - 1; d >= 0; --d) {
    const std::vector<int64_t>& row = trace[static_cast<size_t>(d)];
    const auto was = [&](int64_t k) { return row[static_cast<size_t>(k + d + 1)]; };
    const int64_t k = x - y;
    const int64_t from = k == -d || (k != d && was(k - 1) < was(k + 1)) ? k + 1 : k - 1;
    const int64_t old_x = d == 0 ? 0 : was(from), old_y = d == 0 ? 0 : old_x - from;
    while (x > old_x && y > old_y) pairs.emplace_back(static_cast<size_t>(--x), static_cast<size_t>(--y));
    x = old_x;
    y = old_y;
  }
  std::reverse(pairs.begin(), pairs.end());
  return pairs;
}

}  // namespace

passes::PassObserver PassLog::observer() {
  return [this](const passes::PassRecord& record) {
    entries_.push_back({std::string(record.pass), record.before, record.after, record.seconds});
  };
}

std::string graph_diff(const Graph& before, const Graph& after, int64_t context) {
  const std::vector<std::string> a = lines_of(before), b = lines_of(after);
  std::map<std::string, int> numbers;
  const auto number = [&](const std::vector<std::string>& lines) {
    std::vector<int> out;
    for (const std::string& line : lines)
      out.push_back(numbers.emplace(without_numbers(line), static_cast<int>(numbers.size())).first->second);
    return out;
  };
  const std::vector<int> x = number(a), y = number(b);
  struct Line {
    char mark;
    const std::string* text;
  };
  std::vector<Line> all;
  size_t i = 0, k = 0;
  std::vector<std::pair<size_t, size_t>> pairs = common(x, y);
  pairs.emplace_back(a.size(), b.size());
  for (const auto& [p, q] : pairs) {
    while (i < p) all.push_back({'-', &a[i++]});
    while (k < q) all.push_back({'+', &b[k++]});
    if (p == a.size()) break;
    all.push_back({' ', &b[k++]});
    ++i;
  }
  std::string text;
  bool gap = false;
  const auto count = static_cast<int64_t>(all.size());
  for (int64_t l = 0; l < count; ++l) {
    bool near = false;
    for (int64_t o = std::max<int64_t>(l - context, 0); o <= std::min(l + context, count - 1); ++o)
      near = near || all[static_cast<size_t>(o)].mark != ' ';
    const Line& line = all[static_cast<size_t>(l)];
    if (near) {
      text += fmt::format("{} {}\n", line.mark, *line.text);
    } else if (!gap) {
      text += "  ...\n";
    }
    gap = !near;
  }
  return text;
}

Result<std::string> pass_log_text(const PassLog& log, const PassLogOptions& options) {
  std::vector<std::string> names;
  for (const PassLog::Entry& entry : log.entries())
    if (std::find(names.begin(), names.end(), entry.pass) == names.end()) names.push_back(entry.pass);
  if (!options.pass.empty() && std::find(names.begin(), names.end(), options.pass) == names.end()) {
    const std::string near = nearest(options.pass, names);
    return invalid("there is no pass '{}' that ran; there are: {}{}", options.pass, join(names, ", "),
                   near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
  std::string text;
  for (const PassLog::Entry& entry : log.entries()) {
    if (!options.graphs || (!options.pass.empty() && entry.pass != options.pass)) continue;
    if (!entry.changed()) {
      text += fmt::format("== {} (unchanged)\n", entry.pass);
      continue;
    }
    text += fmt::format("== {}: {} nodes -> {}\n", entry.pass, entry.before.nodes().size(), entry.after.nodes().size());
    text += options.diff ? graph_diff(entry.before, entry.after) : graph::print(entry.after);
  }
  if (options.time) {
    double all = 0;
    for (const PassLog::Entry& entry : log.entries()) all += entry.seconds;
    text += fmt::format("{:<24} {:>9}\n", "pass", "ms");
    for (const PassLog::Entry& entry : log.entries())
      if (options.pass.empty() || entry.pass == options.pass)
        text += fmt::format("{:<24} {:>9.3f}\n", entry.pass, 1e3 * entry.seconds);
    if (options.pass.empty()) text += fmt::format("{:<24} {:>9.3f}\n", "all", 1e3 * all);
  }
  return text;
}

}  // namespace deepseek::explain
