#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <utility>

#include "backends/cpu/kernel.h"
#include "base/strings.h"
#include "graph/builder.h"
#include "ops/registry.h"
#include "passes/block_channels.h"
#include "passes/cse.h"
#include "passes/decompose.h"
#include "passes/fold_constants.h"
#include "passes/fuse_around.h"
#include "passes/fuse_elementwise.h"
#include "passes/fuse_horizontal.h"
#include "passes/simplify.h"
#include "runtime/memory_plan.h"

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
  size_t scratch = 0;  // arena offset
};

class CpuProgram : public runtime::Program, public Body {
 public:
  const Graph& graph() const override { return graph_; }
  size_t arena_bytes() const override { return arena_bytes_; }
  std::vector<runtime::NodeReport> report() const override { return report_; }
  Result<std::vector<Tensor>> run(std::span<const Tensor> inputs, runtime::Profile* profile) const override;
  Status execute(std::span<void* const> inputs, std::span<void* const> outputs, void* arena) const override {
    return execute(inputs, outputs, arena, nullptr);
  }
  Status build(const Graph& graph, const runtime::CompileOptions& options);

 private:
  Status execute(std::span<void* const> inputs, std::span<void* const> outputs, void* arena,
                 runtime::Profile* profile) const;
  Status choose_kernels(const runtime::CompileOptions& options);
  void plan();

  struct Copy {  // after the steps: a state or output that could not be produced in its place
    Value from;
    bool to_output;
    size_t index;
  };

  Graph graph_;
  std::vector<Step> steps_;
  std::vector<Place> places_;  // by value id
  std::vector<Tensor> constants_;
  std::vector<Copy> copies_;
  std::vector<runtime::NodeReport> report_;
  size_t arena_bytes_ = 0;
  mutable std::mutex mutex_;
  mutable std::vector<Tensor> arenas_;  // idle ones
};

bool is_view(const Node& node) { return node.op->traits.view; }

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
    for (const Implementation& implementation : implementations(node.op_name())) {
      const auto& off = options.disabled_implementations;
      if (std::find(off.begin(), off.end(), implementation.name) != off.end()) {
        report.refusals.push_back(std::string(implementation.name) + ": disabled by option");
        continue;
      }
      KernelOrRefusal kernel = implementation.make(info);
      if (kernel.ok()) {
        step.kernel = std::move(*kernel);
        report.implementation = implementation.name;
        if (const std::string detail = step.kernel->detail(); !detail.empty())
          report.implementation += " (" + detail + ")";
        break;
      }
      if (kernel.status().code() != ErrorCode::kUnsupported) return std::move(kernel).status();
      report.refusals.push_back(std::string(implementation.name) + ": " + kernel.status().message());
    }
    if (!step.kernel) {
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
  return {};
}

// Assigns each value a place. Views share their source's place; an update is produced straight in the state's memory if
// nothing reads the old state afterwards; an element-wise result may overwrite an input that dies there.
void CpuProgram::plan() {
  const int32_t num_values = graph_.num_values();
  const int32_t end = static_cast<int32_t>(steps_.size());
  std::vector<int32_t> root(num_values), made(num_values, -1), last(num_values, -1);
  for (int32_t v = 0; v < num_values; ++v) root[v] = v;
  for (const Node& node : graph_.nodes())
    if (is_view(node)) root[node.output().id] = root[node.inputs[0].id];
  for (int32_t s = 0; s < end; ++s) {
    for (Value v : steps_[s].in) last[root[v.id]] = s;
    for (Value v : steps_[s].out) made[v.id] = s;
  }
  places_.assign(num_values, {});
  for (size_t i = 0; i < graph_.inputs().size(); ++i) places_[graph_.inputs()[i].value.id] = {Place::kInput, i};
  for (const Node& node : graph_.nodes())
    if (node.op_name() == "constant") {
      places_[node.output().id] = {Place::kConstant, constants_.size()};
      constants_.push_back(node.attrs.get<Tensor>("value"));
    }
  std::vector<bool> pinned(num_values);  // read after the last step
  for (const Output& o : graph_.outputs()) pinned[root[o.value.id]] = true;
  for (const Update& u : graph_.updates()) pinned[root[u.value.id]] = true;

  for (const Update& u : graph_.updates()) {
    const int32_t r = root[u.value.id], state = graph_.inputs()[u.input].value.id;
    if (r == state) continue;
    bool direct = places_[r].kind == Place::kNone && made[r] >= 0 && !pinned[state] && last[state] <= made[r];
    if (direct && last[state] == made[r]) {
      const Step& step = steps_[made[r]];
      for (size_t i = 0; i < step.in.size(); ++i)
        for (size_t o = 0; o < step.out.size(); ++o)
          if (root[step.in[i].id] == state && step.out[o].id == r)
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

  // Arena: one block per root value, in-place results join their input's block; scratch lives for its step only.
  std::vector<runtime::Block> blocks;
  std::vector<int32_t> block_of(num_values, -1), scratch_block(end, -1);
  for (int32_t s = 0; s < end; ++s) {
    const Step& step = steps_[s];
    for (size_t o = 0; o < step.out.size(); ++o) {
      const int32_t v = step.out[o].id;
      if (places_[v].kind != Place::kNone || (last[v] < 0 && !pinned[v])) continue;
      const size_t bytes = graph_.type({v}).num_bytes();
      const int32_t until = pinned[v] ? end : last[v];
      for (size_t i = 0; i < step.in.size() && block_of[v] < 0; ++i) {
        const int32_t in = root[step.in[i].id];
        const int32_t block = block_of[in];
        if (block < 0 || blocks[block].last != s || blocks[block].bytes != bytes || last[in] != s) continue;
        bool legal = step.kernel->in_place(static_cast<int>(o), static_cast<int>(i));
        // The block must not feed another operand that the kernel may not overwrite.
        for (size_t k = 0; k < step.in.size(); ++k)
          if (block_of[root[step.in[k].id]] == block)
            legal = legal && step.kernel->in_place(static_cast<int>(o), static_cast<int>(k));
        if (!legal) continue;
        blocks[block].last = until;
        block_of[v] = block;
      }
      if (block_of[v] < 0) {
        block_of[v] = static_cast<int32_t>(blocks.size());
        blocks.push_back({bytes, s, until});
      }
    }
    if (const size_t scratch = step.kernel->scratch_bytes(); scratch > 0) {
      scratch_block[s] = static_cast<int32_t>(blocks.size());
      blocks.push_back({scratch, s, s});
    }
  }
  arena_bytes_ = runtime::plan_memory(blocks);
  for (int32_t v = 0; v < num_values; ++v)
    if (block_of[v] >= 0) places_[v] = {Place::kArena, blocks[block_of[v]].offset};
  for (int32_t s = 0; s < end; ++s)
    if (scratch_block[s] >= 0) steps_[s].scratch = blocks[scratch_block[s]].offset;
  for (const Node& node : graph_.nodes())
    if (is_view(node)) places_[node.output().id] = places_[root[node.output().id]];
}

bool has_fast_kernel(const Graph& graph, const Node& node, const runtime::CompileOptions& options) {
  NodeInfo info{graph.context(node), {}, {}, &options};
  for (int32_t i = 0; i < node.num_outputs; ++i) {
    info.outputs.push_back(graph.type(node.output(i)));
    info.used.push_back(true);
  }
  for (const Implementation& implementation : implementations(node.op_name()))
    if (implementation.name != "reference" && implementation.make(info).ok()) return true;
  return false;
}

bool takes_body(const Graph& body, const runtime::CompileOptions& options) {
  Builder builder(ops::registry());
  std::vector<Expr> inputs;
  for (const Input& input : body.inputs()) inputs.push_back(builder.input(input.name, body.type(input.value)));
  builder.output("0", builder.op("fused", inputs, {{"body", std::make_shared<const Graph>(body)}}));
  const Result<Graph> alone = builder.finish();
  return alone.ok() && has_fast_kernel(*alone, alone->nodes().back(), options);
}

// After decomposition, in this order; each may be disabled by its name.
struct Pass {
  std::string_view name;
  Result<Graph> (*run)(const Graph&, const runtime::CompileOptions&);
};
constexpr Pass kPasses[] = {
    // First, so that the others meet no copies that are about to go.
    {"simplify",
     [](const Graph& graph, const runtime::CompileOptions&) { return passes::simplify(graph, ops::registry()); }},
    {"fold_constants",
     [](const Graph& graph, const runtime::CompileOptions&) { return passes::fold_constants(graph, ops::registry()); }},
    // Before fusion, which then works on the blocked tensors.
    {"block_channels",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       return passes::block_channels(graph, ops::registry(), [&](const Graph& g, const Node& node) {
         return channel_blocks(NodeInfo{g.context(node), {g.type(node.output())}, {true}, &options});
       });
     }},
    // After blocking, which makes copies. Fusion computes again what is cheaper than memory.
    {"cse", [](const Graph& graph, const runtime::CompileOptions&) { return passes::cse(graph, ops::registry()); }},
    // A given statistic makes the norm two numbers per channel, which go into the loop after a convolution.
    {"open_norms",
     [](const Graph& graph, const runtime::CompileOptions&) {
       return passes::decompose(graph, ops::registry(), [](const Graph&, const Node& node) {
         return node.op_name() == "batch_norm_inference" && node.attrs.integer("channel_block") > 0;
       });
     }},
    {"fuse_elementwise",
     [](const Graph& graph, const runtime::CompileOptions&) {
       return passes::fuse_elementwise(graph, ops::registry());
     }},
    // After it: what joins is a whole loop.
    {"fuse_around",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       const auto takes = [&](const Graph& body) { return takes_body(body, options); };
       return passes::fuse_around(graph, ops::registry(), loops_around, takes);
     }},
    // Last: what joins are loops that nothing else takes in.
    {"fuse_horizontal",
     [](const Graph& graph, const runtime::CompileOptions& options) {
       const auto takes = [&](const Graph& body) { return takes_body(body, options); };
       return passes::fuse_horizontal(graph, ops::registry(), takes);
     }},
};

bool named(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A misspelt name would silently measure the wrong thing.
Status check_passes(const std::vector<std::string>& names) {
  std::vector<std::string> known;
  for (const Pass& pass : kPasses) known.emplace_back(pass.name);
  for (const std::string& name : names)
    if (!named(known, name))
      return invalid("disabled_passes: there is no pass '{}'; there are: {}", name, join(known, ", "));
  return {};
}

Status CpuProgram::build(const Graph& graph, const runtime::CompileOptions& options) {
  DS_TRY(check_passes(options.disabled_passes));
  // Composites that no kernel takes whole are taken apart; element-wise ones compile as one loop.
  DS_ASSIGN(graph_, passes::decompose(graph, ops::registry(), [&](const Graph& g, const Node& node) {
              if (node.op->traits.elementwise) return false;
              return !has_fast_kernel(g, node, options);
            }));
  for (const Pass& pass : kPasses) {
    if (named(options.disabled_passes, pass.name)) continue;
    DS_ASSIGN(graph_, pass.run(graph_, options));
  }
  DS_TRY(choose_kernels(options));
  plan();
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
  {
    std::lock_guard lock(mutex_);
    if (!arenas_.empty()) {
      arena = std::move(arenas_.back());
      arenas_.pop_back();
    }
  }
  if (!arena.defined()) arena = Tensor(DType::kU8, {static_cast<int64_t>(arena_bytes_)});
  std::vector<Tensor> outputs;
  for (const Output& output : graph_.outputs()) outputs.emplace_back(graph_.type(output.value));
  std::vector<void*> in, out;
  for (const Tensor& t : inputs) in.push_back(t.data());
  for (const Tensor& t : outputs) out.push_back(t.data());
  const Status status = execute(in, out, arena.data(), profile);
  {
    std::lock_guard lock(mutex_);
    arenas_.push_back(std::move(arena));
  }
  DS_TRY(status);
  return outputs;
}

Status CpuProgram::execute(std::span<void* const> inputs, std::span<void* const> outputs, void* memory,
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
  char* const arena = static_cast<char*>(memory);
  const auto address = [&](Value v) -> void* {
    const Place& place = places_[v.id];
    switch (place.kind) {
      case Place::kInput: return inputs[place.index];
      case Place::kOutput: return outputs[place.index];
      case Place::kConstant: return constants_[place.index].data();
      case Place::kArena: return arena + place.index;
      case Place::kNone: return nullptr;
    }
    return nullptr;
  };
  std::vector<const void*> in;
  std::vector<void*> out;
  for (size_t s = 0; s < steps_.size(); ++s) {
    const Step& step = steps_[s];
    if (profile != nullptr) profile->starts[s] = std::chrono::duration<double>(lap - begin).count();
    in.clear();
    out.clear();
    for (Value v : step.in) in.push_back(address(v));
    for (Value v : step.out) out.push_back(address(v));
    if (Status status = step.kernel->run({in, out, arena + step.scratch}); !status.ok()) {
      const Node& node = graph_.nodes()[step.node];
      return std::move(status).note(fmt::format("while running [{}] node '{}'", node.op_name(), node.scope));
    }
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

Result<std::shared_ptr<const Body>> compile_body(const Graph& graph, const runtime::CompileOptions& options) {
  auto program = std::make_shared<CpuProgram>();
  DS_TRY(program->build(graph, options));
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
