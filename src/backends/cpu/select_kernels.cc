// Which implementation runs each node: the first of its op's list that takes it, or the fastest as measured.
#include <algorithm>
#include <limits>

#include "backends/cpu/autotune_cache.h"
#include "backends/cpu/program.h"
#include "graph/cloner.h"
#include "graph/text.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

using Taken = std::vector<std::pair<std::string_view, std::unique_ptr<Kernel>>>;

// Which of the kernels is the fastest, as remembered or else measured now.
size_t fastest(const NodeInfo& info, const Node& node, const Taken& taken, runtime::NodeReport& report) {
  Builder builder(*info.context.op->registry);
  std::vector<Expr> inputs;
  for (size_t i = 0; i < info.context.num_inputs(); ++i)
    inputs.push_back(builder.input((info.is_fixed(i) ? "fixed" : "x") + std::to_string(i), info.context.in(i)));
  std::vector<Expr> outputs = builder.emit(node.op_name(), std::move(inputs), node.attrs);
  for (size_t i = 0; i < outputs.size(); ++i)
    if (info.used[i]) builder.output(std::to_string(i), outputs[i]);
  const Result<Graph> alone = builder.finish();
  if (!alone.ok()) return 0;  // can't be: the node is part of a valid graph
  const std::string text = print(*alone);
  AutotuneCache& cache = AutotuneCache::of_machine();
  const std::string known = cache.find(text);
  for (size_t k = 0; k < taken.size(); ++k)
    if (taken[k].first == known) return k;
  std::vector<const Kernel*> kernels;
  for (const auto& [name, kernel] : taken) kernels.push_back(kernel.get());
  const std::vector<double> seconds = time_kernels(info, kernels);
  const auto best = static_cast<size_t>(std::min_element(seconds.begin(), seconds.end()) - seconds.begin());
  for (size_t k = 0; k < taken.size(); ++k)
    if (k != best)
      report.refusals.push_back(fmt::format("{}: measured {:.3g} ms, {} {:.3g} ms", taken[k].first, seconds[k] * 1e3,
                                            taken[best].first, seconds[best] * 1e3));
  cache.remember(text, std::string(taken[best].first));
  return best;
}

}  // namespace

Status CpuProgram::choose_kernels(const runtime::CompileOptions& options) {
  const std::vector<int32_t> uses = graph_.use_counts();
  for (size_t n = 0; n < graph_.nodes().size(); ++n) {
    const Node& node = graph_.nodes()[n];
    if (is_view(node) || node.op_name() == "constant") continue;
    NodeInfo info{graph_.context(node), {}, {}, &options};
    runtime::NodeReport report{node.scope, node.op_name(), {}, {}, {}, static_cast<int32_t>(n)};
    for (Value v : node.inputs) report.types += to_string(graph_.type(v)) + " ";
    report.types += "->";
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      info.outputs.push_back(graph_.type(node.output(i)));
      info.used.push_back(uses[node.output(i).id] > 0);
      report.types += " " + to_string(info.outputs.back());
    }
    Step step;
    for (Value v : node.inputs) info.fixed.push_back(fixed_[v.id]);
    step.once = is_body_ && fixed_[node.output().id];
    Taken taken;
    for (const Implementation& implementation : implementations(*node.op)) {
      const bool slow = implementation.name == "upcast" || implementation.name == "reference";
      if (!taken.empty() && (slow || !options.measure_kernels)) break;
      if (const Status answer = takes(implementation, info); !answer.ok()) {
        if (answer.code() != ErrorCode::kUnsupported) return answer;
        report.refusals.push_back(std::string(implementation.name) + ": " + answer.message());
        continue;
      }
      KernelOrError kernel = implementation.make(info);
      if (!kernel.ok())
        return make_error(kernel.status().code(), "[{}] node '{}' by {}: {}", node.op_name(), node.scope,
                          implementation.name, kernel.status().message());
      taken.emplace_back(implementation.name, std::move(*kernel));
    }
    if (!taken.empty()) {
      const size_t chosen = taken.size() > 1 ? fastest(info, node, taken, report) : 0;
      step.kernel = std::move(taken[chosen].second);
      report.implementation = taken[chosen].first;
      if (const std::string detail = step.kernel->detail(); !detail.empty())
        report.implementation += " (" + detail + ")";
    } else {
      std::string reasons;
      for (const std::string& r : report.refusals) reasons += "\n  " + r;
      return make_error(ErrorCode::kUnsupported, "[{}] node '{}': no CPU implementation takes {}:{}", node.op_name(),
                        node.scope, report.types, reasons);
    }
    step.node = static_cast<int32_t>(n);
    step.in = node.inputs;
    for (int32_t i = 0; i < node.num_outputs; ++i) step.out.push_back(node.output(i));
    steps_.push_back(std::move(step));
    report_.push_back(std::move(report));
  }
  if (options.measure_kernels)
    if (const Status kept = AutotuneCache::of_machine().save(); !kept.ok() && !report_.empty())
      report_.back().refusals.push_back(kept.message());
  return {};
}

}  // namespace deepseek::backends::cpu
