#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "backends/cpu/choices.h"
#include "backends/cpu/kernel.h"
#include "backends/cpu/pipeline.h"
#include "base/memory.h"
#include "graph/builder.h"
#include "graph/text.h"
#include "ops/registry.h"
#include "passes/bind_inputs.h"
#include "passes/recompute.h"
#include "passes/rewrite.h"
#include "passes/schedule.h"
#include "runtime/cost.h"
#include "runtime/memory_plan.h"
#include "runtime/shared_constants.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

// Where a value's bytes live during a run.
struct Place {
  enum Kind { kNone, kInput, kOutput, kConstant, kArena } kind = kNone;
  size_t index = 0;  // input, output or constant number; arena: byte offset
};

struct Step {
  std::unique_ptr<Kernel> kernel;
  int32_t node = 0;
  std::vector<Value> in, out;
  size_t scratch = 0, prepared = 0;  // arena offsets
  Tensor own;                        // of a program that is no body: what is prepared, of constants
  bool once = false;                 // runs in prepare(), as it reads nothing but fixed values
};

// The operands of one run, and a step's arguments among them.
class Operands {
 public:
  Operands(const std::vector<Place>& places, const std::vector<Tensor>& constants, std::span<void* const> inputs,
           std::span<void* const> outputs, void* arena)
      : places_(places), constants_(constants), inputs_(inputs), outputs_(outputs), arena_(static_cast<char*>(arena)) {}

  void* address(Value v) const {
    if (!v.defined()) return nullptr;
    const Place& place = places_[v.id];
    switch (place.kind) {
      case Place::kInput: return inputs_[place.index];
      case Place::kOutput: return outputs_.empty() ? nullptr : outputs_[place.index];  // none while preparing
      case Place::kConstant: return constants_[place.index].data();
      case Place::kArena: return arena_ + place.index;
      case Place::kNone: return nullptr;
    }
    return nullptr;
  }
  // Valid until the next call.
  KernelArgs of(const Step& step) {
    in_.clear();
    out_.clear();
    for (Value v : step.in) in_.push_back(address(v));
    for (Value v : step.out) out_.push_back(address(v));
    return {in_, out_, arena_ + step.scratch, step.own.defined() ? step.own.data() : arena_ + step.prepared};
  }

 private:
  const std::vector<Place>& places_;
  const std::vector<Tensor>& constants_;
  std::span<void*const> inputs_, outputs_;
  char* arena_;
  std::vector<const void*> in_;
  std::vector<void*> out_;
};

class CpuProgram : public runtime::Program, public Body {
 public:
  const Graph& graph() const override { return graph_; }
  size_t arena_bytes() const override { return arena_bytes_; }
  size_t memory_bytes() const override;
  std::vector<std::string> notes() const override { return notes_; }
  std::vector<runtime::NodeReport> report() const override { return report_; }
  Result<std::vector<Tensor>> run(std::span<const Tensor> inputs, runtime::Profile* profile) const override;
  Status execute(std::span<void* const> inputs, std::span<void* const> outputs, void* arena) const override {
    return execute(inputs, outputs, arena, nullptr);
  }
  Status prepare(std::span<void* const> inputs, void* arena) const override;
  // `fixed` is for bodies: which inputs stay the same from prepare() on.
  Status build(const Graph& graph, const runtime::CompileOptions& options, const std::vector<bool>* fixed = nullptr);

 private:
  Status execute(std::span<void* const> inputs, std::span<void* const> outputs, void* arena,
                 runtime::Profile* profile) const;
  void find_fixed(const std::vector<bool>& inputs);
  Status precompute(const runtime::CompileOptions& options);
  Status choose_kernels(const runtime::CompileOptions& options);
  Status prepare_constants();
  void plan(const runtime::CompileOptions& options);
  Status choose_and_plan(const runtime::CompileOptions& options, const std::vector<bool>* fixed);
  Status shrink(const runtime::CompileOptions& options);
  Status noted(Status status, const Step& step) const;

  struct Copy {  // after the steps: a state or output that could not be produced in its place
    Value from;
    bool to_output;
    size_t index;
  };

  Graph graph_;
  std::vector<Step> steps_;
  std::vector<Place> places_;  // by value id
  bool is_body_ = false;       // prepare() is called before runs
  std::vector<bool> fixed_;    // by value id: constants, and in a body what is the same from prepare() on
  std::vector<Tensor> constants_;
  std::vector<Copy> copies_;
  std::vector<runtime::NodeReport> report_;
  std::vector<std::string> notes_;
  size_t arena_bytes_ = 0;
  mutable std::mutex mutex_;
  mutable std::vector<Tensor> arenas_;  // idle ones
  // The latest outputs: where nobody else holds one any more, the next run writes it again, since fresh memory costs
  // more than many a kernel.
  mutable std::vector<Tensor> outputs_;
};

bool is_view(const Node& node) { return node.op->traits.view; }

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
Status CpuProgram::precompute(const runtime::CompileOptions& options) {
  std::vector<bool> known(static_cast<size_t>(graph_.num_values())), computed(known.size());
  for (const Node& node : graph_.nodes()) {
    const auto bytes = [&](Value v) { return static_cast<int64_t>(graph_.type(v).num_bytes()); };
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
    const Node* node = graph_.producer(v);
    while (known[v.id] && node != nullptr && is_view(*node)) node = graph_.producer(v = node->inputs[0]);
    if (computed[v.id]) any = wanted[v.id] = true;
  };
  for (const Node& node : graph_.nodes())
    for (Value v : node.inputs)
      if (!known[node.output().id]) want(v);
  for (const Output& output : graph_.outputs()) want(output.value);
  for (const Update& update : graph_.updates()) want(update.value);
  if (!any) return {};
  Builder builder(ops::registry());
  std::vector<Expr> map(known.size());
  for (const Node& node : graph_.nodes()) {
    if (!known[node.output().id]) continue;
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(map[v.id]);
    builder.set_scope(node.scope);
    const std::vector<Expr> results = builder.emit(node.op_name(), std::move(inputs), node.attrs);
    DS_TRY(builder.status());
    for (int32_t i = 0; i < node.num_outputs; ++i) map[node.output(i).id] = results[static_cast<size_t>(i)];
  }
  std::map<int32_t, size_t> place;  // by value id, which output of the program
  for (int32_t v = 0; v < graph_.num_values(); ++v)
    if (wanted[v]) {
      builder.output(std::to_string(place.size()), map[v]);
      place.emplace(v, place.size());
    }
  CpuProgram once;
  DS_ASSIGN(once.graph_, builder.finish());
  once.find_fixed({});
  DS_TRY(once.choose_kernels(options));
  DS_TRY(once.prepare_constants());
  once.plan(options);
  DS_ASSIGN(const std::vector<Tensor> results, once.run({}, nullptr));
  DS_ASSIGN(graph_, passes::rewrite(graph_, ops::registry(),
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
                                    }));
  return {};
}

using Taken = std::vector<std::pair<std::string_view, std::unique_ptr<Kernel>>>;

// Which of the kernels is the fastest, as remembered or else measured now.
size_t fastest(const NodeInfo& info, const Node& node, const Taken& taken, runtime::NodeReport& report) {
  Builder builder(ops::registry());
  std::vector<Expr> inputs;
  for (size_t i = 0; i < info.context.num_inputs(); ++i)
    inputs.push_back(builder.input((info.is_fixed(i) ? "fixed" : "x") + std::to_string(i), info.context.in(i)));
  std::vector<Expr> outputs = builder.emit(node.op_name(), std::move(inputs), node.attrs);
  for (size_t i = 0; i < outputs.size(); ++i)
    if (info.used[i]) builder.output(std::to_string(i), outputs[i]);
  const Result<Graph> alone = builder.finish();
  if (!alone.ok()) return 0;  // can't be: the node is part of a valid graph
  const std::string text = print(*alone);
  Choices& choices = Choices::of_machine();
  const std::string known = choices.find(text);
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
  choices.remember(text, std::string(taken[best].first));
  return best;
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
    for (const Implementation& implementation : implementations(node.op_name())) {
      const bool slow = implementation.name == "widened" || implementation.name == "reference";
      if (!taken.empty() && (slow || !options.measure_kernels)) break;
      const auto& off = options.disabled_implementations;
      if (std::find(off.begin(), off.end(), implementation.name) != off.end()) {
        report.refusals.push_back(std::string(implementation.name) + ": disabled by option");
        continue;
      }
      KernelOrRefusal kernel = implementation.make(info);
      if (kernel.ok()) {
        taken.emplace_back(implementation.name, std::move(*kernel));
        continue;
      }
      if (kernel.status().code() != ErrorCode::kUnsupported) return std::move(kernel).status();
      report.refusals.push_back(std::string(implementation.name) + ": " + kernel.status().message());
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
    if (const Status kept = Choices::of_machine().save(); !kept.ok() && !report_.empty())
      report_.back().refusals.push_back(kept.message());
  return {};
}

// Assigns each value a place. Views share their source's place; an update is produced straight in the state's memory if
// nothing reads the old state afterwards; an element-wise result may overwrite an input that dies there.
void CpuProgram::plan(const runtime::CompileOptions& options) {
  const int32_t num_values = graph_.num_values();
  const int32_t end = static_cast<int32_t>(steps_.size());
  std::vector<int32_t> root(num_values), made(num_values, -1), last(num_values, -1);
  for (int32_t v = 0; v < num_values; ++v) root[v] = v;
  for (const Node& node : graph_.nodes())
    if (is_view(node)) root[node.output().id] = root[node.inputs[0].id];
  for (int32_t s = 0; s < end; ++s) {
    for (Value v : steps_[s].in)
      if (v.defined()) last[root[v.id]] = s;
    for (Value v : steps_[s].out) made[v.id] = s;
  }
  places_.assign(num_values, {});
  for (size_t i = 0; i < graph_.inputs().size(); ++i) places_[graph_.inputs()[i].value.id] = {Place::kInput, i};
  std::vector<bool> pinned(num_values);  // read after the last step
  for (const Output& o : graph_.outputs()) pinned[root[o.value.id]] = true;
  for (const Update& u : graph_.updates()) pinned[root[u.value.id]] = true;
  const auto borrowed = [&](const Tensor& t) {  // of the caller, who may change it later
    return std::any_of(options.constants.begin(), options.constants.end(),
                       [&](const auto& named) { return named.second.data() == t.data(); });
  };
  for (const Node& node : graph_.nodes()) {
    const int32_t v = node.output().id;
    if (node.op_name() != "constant" || (last[v] < 0 && !pinned[v])) continue;
    const auto& value = node.attrs.get<Tensor>("value");
    places_[v] = {Place::kConstant, constants_.size()};
    constants_.push_back(runtime::share_constant(borrowed(value) ? value.clone() : value));
  }

  for (const Update& u : graph_.updates()) {
    const int32_t r = root[u.value.id], state = graph_.inputs()[u.input].value.id;
    if (r == state) continue;
    bool direct = places_[r].kind == Place::kNone && made[r] >= 0 && !pinned[state] && last[state] <= made[r];
    if (direct && last[state] == made[r]) {
      const Step& step = steps_[made[r]];
      for (size_t i = 0; i < step.in.size(); ++i)
        for (size_t o = 0; o < step.out.size(); ++o)
          if (step.in[i].defined() && root[step.in[i].id] == state && step.out[o].id == r)
            direct = direct && step.kernel->in_place(static_cast<int>(o), static_cast<int>(i));
    }
    if (direct)
      places_[r] = {Place::kInput, static_cast<size_t>(u.input)};
    else
      copies_.push_back({u.value, false, static_cast<size_t>(u.input)});
  }
  for (size_t i = 0; i < graph_.outputs().size(); ++i) {
    const int32_t r = root[graph_.outputs()[i].value.id];
    if (places_[r].kind == Place::kNone)
      places_[r] = {Place::kOutput, i};
    else
      copies_.push_back({graph_.outputs()[i].value, true, i});
  }

  // Arena: one block per root value, in-place results join their input's block; scratch lives for its step only, what
  // is prepared always.
  std::vector<runtime::Block> blocks;
  std::vector<int32_t> block_of(num_values, -1), scratch_block(end, -1), prepared_block(end, -1);
  for (int32_t s = 0; s < end; ++s) {
    const Step& step = steps_[s];
    for (size_t o = 0; o < step.out.size(); ++o) {
      const int32_t v = step.out[o].id;
      if (places_[v].kind != Place::kNone || (last[v] < 0 && !pinned[v])) continue;
      const size_t bytes = graph_.type({v}).num_bytes();
      const int32_t until = pinned[v] || step.once ? end : last[v];
      for (size_t i = 0; i < step.in.size() && block_of[v] < 0; ++i) {
        if (!step.in[i].defined()) continue;
        const int32_t in = root[step.in[i].id];
        const int32_t block = block_of[in];
        if (block < 0 || blocks[block].last != s || blocks[block].bytes != bytes || last[in] != s) continue;
        bool legal = step.kernel->in_place(static_cast<int>(o), static_cast<int>(i));
        // The block must not feed another operand that the kernel may not overwrite.
        for (size_t k = 0; k < step.in.size(); ++k)
          if (step.in[k].defined() && block_of[root[step.in[k].id]] == block)
            legal = legal && step.kernel->in_place(static_cast<int>(o), static_cast<int>(k));
        if (!legal) continue;
        blocks[block].last = until;
        block_of[v] = block;
      }
      if (block_of[v] < 0) {
        block_of[v] = static_cast<int32_t>(blocks.size());
        blocks.push_back({bytes, step.once ? 0 : s, until});
      }
    }
    if (const size_t scratch = step.kernel->scratch_bytes(); scratch > 0) {
      scratch_block[s] = static_cast<int32_t>(blocks.size());
      blocks.push_back({scratch, s, s});
    }
    if (const size_t prepared = step.kernel->prepared_bytes(); prepared > 0 && !step.own.defined()) {
      prepared_block[s] = static_cast<int32_t>(blocks.size());
      blocks.push_back({prepared, 0, end});
    }
  }
  arena_bytes_ = runtime::plan_memory(blocks);
  for (int32_t v = 0; v < num_values; ++v)
    if (block_of[v] >= 0) places_[v] = {Place::kArena, blocks[block_of[v]].offset};
  for (int32_t s = 0; s < end; ++s) {
    if (scratch_block[s] >= 0) steps_[s].scratch = blocks[scratch_block[s]].offset;
    if (prepared_block[s] >= 0) steps_[s].prepared = blocks[prepared_block[s]].offset;
  }
  for (const Node& node : graph_.nodes())
    if (is_view(node)) places_[node.output().id] = places_[root[node.output().id]];
}

// What a node costs in bytes of memory traffic, its arithmetic included.
double cost_of(const Graph& graph, const Node& node, std::span<const int32_t> uses) {
  constexpr double kFlopsPerByte = 12;  // of CPUs; only comparisons of nodes depend on it
  const Result<Cost> cost = runtime::node_cost(graph, node, uses, ops::registry());
  return cost.ok() ? cost->bytes + cost->flops / kFlopsPerByte : 0;
}

Status CpuProgram::build(const Graph& graph, const runtime::CompileOptions& options, const std::vector<bool>* fixed) {
  DS_ASSIGN(graph_, passes::bind_inputs(graph, ops::registry(), options.constants));
  DS_ASSIGN(graph_, optimize(graph_, options));
  is_body_ = fixed != nullptr;
  if (!is_body_) DS_TRY(precompute(options));
  DS_TRY(choose_and_plan(options, fixed));
  return options.memory_limit > 0 && memory_bytes() > options.memory_limit ? shrink(options) : Status();
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
Status CpuProgram::shrink(const runtime::CompileOptions& options) {
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
  const auto& off = options.disabled_passes;
  if (others >= limit || std::find(off.begin(), off.end(), kRecompute) != off.end()) return too_much(needed);
  const std::vector<int32_t> uses = whole.use_counts();
  const auto cost = [&](const Graph& g, const Node& node) { return cost_of(g, node, uses); };
  double all = 0;
  for (const Node& node : whole.nodes()) all += cost(whole, node);
  passes::Recomputed made;
  size_t least = needed;
  const auto attempt = [&](int64_t target) -> Status {
    DS_ASSIGN(made, passes::recompute(whole, ops::registry(), target, cost));
    DS_ASSIGN(graph_, fuse_loops(made.graph, options));
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

Result<std::vector<Tensor>> CpuProgram::run(std::span<const Tensor> inputs, runtime::Profile* profile) const {
  if (inputs.size() != graph_.inputs().size())
    return invalid("program: expected {} inputs, got {}", graph_.inputs().size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].type() != graph_.type(graph_.inputs()[i].value))
      return invalid("program: input '{}': expected {}, got {}", graph_.inputs()[i].name,
                     to_string(graph_.type(graph_.inputs()[i].value)), to_string(inputs[i].type()));
  Tensor arena;
  std::vector<Tensor> outputs;
  {
    std::lock_guard lock(mutex_);
    if (!arenas_.empty()) {
      arena = std::move(arenas_.back());
      arenas_.pop_back();
    }
    std::swap(outputs, outputs_);
  }
  if (!arena.defined()) arena = Tensor(DType::kU8, {static_cast<int64_t>(arena_bytes_)});
  outputs.resize(graph_.outputs().size());
  for (size_t i = 0; i < outputs.size(); ++i)
    if (!outputs[i].defined() || outputs[i].owner().use_count() > 1) {
      outputs[i] = Tensor();  // before the new one: this may have been the last holder
      outputs[i] = Tensor(graph_.type(graph_.outputs()[i].value));
    }
  std::vector<void*> in, out;
  for (const Tensor& t : inputs) in.push_back(t.data());
  for (const Tensor& t : outputs) out.push_back(t.data());
  const Status status = execute(in, out, arena.data(), profile);
  {
    std::lock_guard lock(mutex_);
    arenas_.push_back(std::move(arena));
    if (status.ok()) outputs_ = outputs;
  }
  DS_TRY(status);
  return outputs;
}

size_t CpuProgram::memory_bytes() const {
  size_t bytes = arena_bytes_;
  for (const Input& input : graph_.inputs()) bytes += graph_.type(input.value).num_bytes();
  for (const Output& output : graph_.outputs()) bytes += graph_.type(output.value).num_bytes();
  for (const Tensor& constant : constants_) bytes += constant.num_bytes();
  for (const Step& step : steps_) bytes += step.own.defined() ? step.own.num_bytes() : 0;
  return bytes;
}

Status CpuProgram::noted(Status status, const Step& step) const {
  if (status.ok()) return status;
  const Node& node = graph_.nodes()[static_cast<size_t>(step.node)];
  return std::move(status).note(fmt::format("while running [{}] node '{}'", node.op_name(), node.scope));
}

Status CpuProgram::prepare(std::span<void* const> inputs, void* arena) const {
  Operands operands(places_, constants_, inputs, {}, arena);
  for (const Step& step : steps_) {
    if (step.once)
      DS_TRY(noted(step.kernel->run(operands.of(step)), step));
    else if (step.kernel->prepared_bytes() > 0)
      DS_TRY(noted(step.kernel->prepare(operands.of(step)), step));
  }
  return {};
}

Status CpuProgram::execute(std::span<void* const> inputs, std::span<void* const> outputs, void* arena,
                           runtime::Profile* profile) const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  Clock::time_point lap = begin;
  const auto seconds = [&lap] {  // since the last call
    const Clock::time_point before = std::exchange(lap, Clock::now());
    return std::chrono::duration<double>(lap - before).count();
  };
  if (profile != nullptr) {
    profile->seconds.resize(steps_.size());
    profile->starts.resize(steps_.size());
  }
  Operands operands(places_, constants_, inputs, outputs, arena);
  const auto address = [&](Value v) { return operands.address(v); };
  for (size_t s = 0; s < steps_.size(); ++s) {
    const Step& step = steps_[s];
    if (step.once) continue;
    if (profile != nullptr) profile->starts[s] = std::chrono::duration<double>(lap - begin).count();
    DS_TRY(noted(step.kernel->run(operands.of(step)), step));
    if (profile != nullptr) profile->seconds[s] += seconds();
  }
  // Outputs first: one of them may be a state's old value. Then states; one that takes another state's old value is
  // staged, since that other state may be written before it.
  std::vector<std::pair<const Copy*, Tensor>> staged;
  for (const Copy& copy : copies_) {
    const TensorType& type = graph_.type(copy.from);
    if (copy.to_output) {
      std::memcpy(outputs[copy.index], address(copy.from), type.num_bytes());
    } else if (places_[copy.from.id].kind == Place::kInput) {
      staged.emplace_back(&copy, Tensor(type, address(copy.from), nullptr).clone());
    }
  }
  for (const Copy& copy : copies_)
    if (!copy.to_output && places_[copy.from.id].kind != Place::kInput)
      std::memcpy(inputs[copy.index], address(copy.from), graph_.type(copy.from).num_bytes());
  for (const auto& [copy, value] : staged) std::memcpy(inputs[copy->index], value.data(), value.num_bytes());
  if (profile != nullptr) {
    profile->copies += seconds();
    ++profile->runs;
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const runtime::Program>> CpuBackend::compile(const Graph& graph,
                                                                    const runtime::CompileOptions& options) const {
  auto program = std::make_shared<CpuProgram>();
  DS_TRY(program->build(graph, options));
  return std::shared_ptr<const runtime::Program>(std::move(program));
}

Result<std::shared_ptr<const Body>> compile_body(const Graph& graph, runtime::CompileOptions options,
                                                 const std::vector<bool>& fixed) {
  auto program = std::make_shared<CpuProgram>();
  options.constants.clear();  // those are inputs of the graph around it
  options.memory_limit = 0;   // what it needs is scratch memory of a node there
  DS_TRY(program->build(graph, options, &fixed));
  return std::shared_ptr<const Body>(std::move(program));
}

std::string isa_name() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bf16")) return "avx512_bf16";
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
  return "sse2";
}

}  // namespace deepseek::backends::cpu
