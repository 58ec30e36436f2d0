// From a graph to a program: passes, what constants alone decide, kernels, places, and the memory limit.
#include <algorithm>
#include <limits>
#include <map>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/pipeline.h"
#include "backends/cpu/program.h"
#include "backends/cpu/target.h"
#include "base/memory.h"
#include "graph/cloner.h"
#include "passes/bind_inputs.h"
#include "passes/fuse_elementwise.h"
#include "passes/recompute.h"
#include "passes/rewrite.h"
#include "passes/schedule.h"
#include "runtime/cost.h"
#include "runtime/shared_constants.h"

namespace deepseek::backends::cpu {

using namespace graph;

// The value of v if it is a constant, or a view of one.
std::optional<Tensor> constant_value(const Graph& graph, Value v) {
  const TensorType& type = graph.type(v);
  const Node* node = graph.producer(v);
  while (node != nullptr && is_view(*node)) node = graph.producer(node->inputs[0]);
  if (node == nullptr || node->op_name() != "constant") return std::nullopt;
  const auto& value = node->attrs.get<Tensor>("value");
  return Tensor(type, value.data(), value.owner());
}

// What depends on constants alone is computed here, by the kernels that would have computed it in every run: weights
// are put in a kernel's layout once. What would make more bytes of fewer stays.
Result<Graph> CpuProgram::precompute(const Graph& graph, const runtime::CompileOptions& options) {
  std::vector<bool> known(static_cast<size_t>(graph.num_values())), computed(known.size());
  for (const Node& node : graph.nodes()) {
    const auto bytes = [&](Value v) { return static_cast<int64_t>(graph.type(v).num_bytes()); };
    const bool constant = node.op_name() == "constant";
    bool all = constant || (!node.inputs.empty() && !node.op->traits.random);
    int64_t read = 0, written = 0;
    for (Value v : node.inputs) {
      all = all && known[v.id];
      read += bytes(v);
    }
    for (int32_t i = 0; i < node.num_outputs; ++i) written += bytes(node.output(i));
    if (!all || (!constant && written > read)) continue;
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      known[node.output(i).id] = true;
      computed[node.output(i).id] = !constant && !is_view(node);
    }
  }
  // The results are those that somebody else reads; a view's reader reads its source.
  std::vector<bool> wanted(known.size());
  bool any = false;
  const auto want = [&](Value v) {
    const Node* node = graph.producer(v);
    while (known[v.id] && node != nullptr && is_view(*node)) node = graph.producer(v = node->inputs[0]);
    if (computed[v.id]) any = wanted[v.id] = true;
  };
  for (const Node& node : graph.nodes())
    for (Value v : node.inputs)
      if (!known[node.output().id]) want(v);
  for (const Output& output : graph.outputs()) want(output.value);
  for (const Update& update : graph.updates()) want(update.value);
  if (!any) return graph;
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  for (const Node& node : graph.nodes())
    if (known[node.output().id]) cloner.copy(node);
  std::map<int32_t, size_t> place;  // by value id, which output of the program
  for (int32_t v = 0; v < graph.num_values(); ++v)
    if (wanted[v]) {
      builder.output(std::to_string(place.size()), cloner[Value{v}]);
      place.emplace(v, place.size());
    }
  CpuProgram once;
  DS_ASSIGN(once.graph_, builder.finish());
  once.find_fixed({});
  DS_TRY(once.choose_kernels(options));
  DS_TRY(once.prepare_constants());
  once.plan(options);
  DS_ASSIGN(const std::vector<Tensor> results, once.run({}));
  return passes::rewrite(graph,
                         [&](Builder& b, const Graph&, const Node& node,
                             const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
                           bool replaced = false;
                           for (int32_t i = 0; i < node.num_outputs; ++i)
                             replaced = replaced || place.contains(node.output(i).id);
                           if (!replaced) return std::nullopt;
                           std::vector<Expr> values = b.emit(node.op_name(), inputs, node.attrs);
                           for (int32_t i = 0; i < node.num_outputs; ++i)
                             if (const auto at = place.find(node.output(i).id); at != place.end())
                               values[static_cast<size_t>(i)] =
                                   b.constant(runtime::share_constant(results[at->second]));
                           return values;
                         });
}

// By value: constants, and in a body what depends on fixed inputs and constants alone, unless it is an output, whose
// place may change.
void CpuProgram::find_fixed(const std::vector<bool>& inputs) {
  fixed_.assign(static_cast<size_t>(graph_.num_values()), false);
  for (size_t i = 0; i < inputs.size(); ++i) fixed_[graph_.inputs()[i].value.id] = inputs[i];
  std::vector<bool> returned(fixed_.size());
  for (const Output& output : graph_.outputs()) returned[output.value.id] = true;
  for (size_t n = graph_.nodes().size(); n-- > 0;)
    if (const Node& node = graph_.nodes()[n]; is_view(node) && returned[node.output().id])
      returned[node.inputs[0].id] = true;
  for (const Node& node : graph_.nodes()) {
    bool all = is_body_ || is_view(node) || node.op_name() == "constant";
    for (Value v : node.inputs) all = all && fixed_[v.id];
    for (int32_t i = 0; i < node.num_outputs; ++i) all = all && !returned[node.output(i).id];
    for (int32_t i = 0; i < node.num_outputs; ++i) fixed_[node.output(i).id] = all;
  }
}

// Of a program that is no body: what kernels make of constants is made here, once, and constants that only this reads
// are forgotten.
Status CpuProgram::prepare_constants() {
  for (Step& step : steps_) {
    if (step.kernel->prepared_bytes() == 0) continue;
    step.own = Tensor::zeros(DType::kU8, {static_cast<int64_t>(step.kernel->prepared_bytes())});
    std::vector<const void*> in;
    for (Value v : step.in) {
      const std::optional<Tensor> value = constant_value(graph_, v);
      in.push_back(value ? value->data() : nullptr);
    }
    const std::vector<void*> out(step.out.size());
    const Tensor scratch(DType::kU8, {static_cast<int64_t>(step.kernel->scratch_bytes())});
    DS_TRY(noted(step.kernel->prepare({in, out, scratch.data(), step.own.data()}), step));
    step.own = runtime::share_constant(std::move(step.own));
    for (size_t i = 0; i < step.in.size(); ++i)
      if (!step.kernel->reads(static_cast<int>(i))) step.in[i] = Value();
  }
  return {};
}

namespace {

// What a node costs in bytes of memory traffic, its arithmetic included.
double cost_of(const Graph& graph, const Node& node, std::span<const int32_t> uses) {
  constexpr double kFlopsPerByte = 12;  // of CPUs; only comparisons of nodes depend on it
  const Result<Cost> cost = runtime::node_cost(graph, node, uses);
  return cost.ok() ? cost->bytes + cost->flops / kFlopsPerByte : 0;
}

}  // namespace

Status CpuProgram::build(const Graph& graph, const runtime::CompileOptions& options, const std::vector<bool>* fixed) {
  DS_TRY(check_passes(options));
  const CpuTarget target(options);
  const passes::PassDriver driver(target, {options.disabled_passes, options.observe});
  const auto bind = [&](const Graph& g, const passes::PassContext&) {
    return passes::bind_inputs(g, options.constants);
  };
  DS_ASSIGN(graph_, driver.run(kBindInputs, graph, bind, false));
  DS_ASSIGN(graph_, driver.run(pipeline(), graph_));
  is_body_ = fixed != nullptr;
  if (!is_body_) {
    const auto compute = [&](const Graph& g, const passes::PassContext&) { return precompute(g, options); };
    DS_ASSIGN(graph_, driver.run(kPrecompute, graph_, compute));
  }
  DS_TRY(choose_and_plan(options, fixed));
  if (options.memory_limit > 0 && memory_bytes() > options.memory_limit) DS_TRY(shrink(options, driver));
  if (!is_body_) {
    arena_pool().add_user(arena_bytes_);
    pooled_ = true;
  }
  return {};
}

Status CpuProgram::choose_and_plan(const runtime::CompileOptions& options, const std::vector<bool>* fixed) {
  steps_.clear();
  report_.clear();
  constants_.clear();
  copies_.clear();
  find_fixed(is_body_ ? *fixed : std::vector<bool>());
  DS_TRY(choose_kernels(options));
  if (!is_body_) DS_TRY(prepare_constants());
  plan(options);
  return {};
}

// Computes values again instead of keeping them until the program fits. The pass knows neither scratch memory nor
// results in place, so what it is asked for follows what the plan makes of it.
Status CpuProgram::shrink(const runtime::CompileOptions& options, const passes::PassDriver& driver) {
  constexpr int kRounds = 6;
  const Graph whole = graph_;
  const size_t needed = memory_bytes(), others = needed - arena_bytes_, limit = options.memory_limit;
  const auto too_much = [&](size_t least) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the program needs {} ({} for inputs, state, outputs and constants, {} for intermediate values; "
                      "{} with everything computed again that can be), the limit is {}; use smaller batches, or raise "
                      "the limit",
                      format_bytes(needed), format_bytes(others), format_bytes(needed - others), format_bytes(least),
                      format_bytes(limit));
  };
  if (others >= limit || driver.disabled(kRecompute)) return too_much(needed);
  const std::vector<int32_t> uses = whole.use_counts();
  const auto cost = [&](const Graph& g, const Node& node) { return cost_of(g, node, uses); };
  double all = 0;
  for (const Node& node : whole.nodes()) all += cost(whole, node);
  passes::Recomputed made;
  size_t least = needed;
  const auto attempt = [&](int64_t target) -> Status {
    const auto recompute = [&](const Graph& g, const passes::PassContext&) -> Result<Graph> {
      DS_ASSIGN(made, passes::recompute(g, target, cost));
      return made.graph;
    };
    DS_ASSIGN(graph_, driver.run(kRecompute, whole, recompute));
    DS_ASSIGN(graph_, driver.run(kFuseRecomputed, graph_, passes::fuse_elementwise));
    DS_TRY(choose_and_plan(options, nullptr));
    least = std::min(least, memory_bytes());
    return {};
  };
  const auto goal = static_cast<int64_t>(limit - others);
  const auto arena = [&] { return static_cast<int64_t>(arena_bytes_); };
  int64_t target = passes::peak_bytes(whole) - (arena() - goal), tried = -1;
  int64_t fits = -1, fails = std::numeric_limits<int64_t>::max();
  for (int round = 0; round < kRounds; ++round) {
    target = std::max<int64_t>(target, 0);
    DS_TRY(attempt(tried = target));
    if (arena() <= goal) {
      fits = std::max(fits, target);
      if (goal - arena() <= goal / 32) break;
      target += goal - arena();
      if (target >= fails) target = fits + (fails - fits) / 2;
    } else {
      fails = std::min(fails, target);
      if (made.peak > target) break;  // there is nothing more to compute again
      target -= arena() - goal;
      if (target <= fits) target = fits + (fails - fits) / 2;
    }
  }
  if (fits < 0) return too_much(least);
  if (fits != tried) DS_TRY(attempt(fits));
  notes_.push_back(fmt::format(
      "{} would not fit in the memory limit of {}: {} values are computed again, about {:.0f} "
      "% more work, which leaves {}",
      format_bytes(needed), format_bytes(limit), made.values, 100 * made.cost / all, format_bytes(memory_bytes())));
  return {};
}

Result<std::shared_ptr<const Body>> compile_body(const Graph& graph, runtime::CompileOptions options,
                                                 const std::vector<bool>& fixed) {
  auto program = std::make_shared<CpuProgram>();
  options.constants.clear();  // those are inputs of the graph around it
  options.observe = {};       // a body is part of a node
  options.memory_limit = 0;   // what it needs is scratch memory of a node there
  DS_TRY(program->build(graph, options, &fixed));
  return std::shared_ptr<const Body>(std::move(program));
}

}  // namespace deepseek::backends::cpu
