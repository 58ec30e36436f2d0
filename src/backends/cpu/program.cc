#include "backends/cpu/program.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "backends/cpu/cpu_backend.h"
#include "base/guard.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

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

}  // namespace

CpuProgram::~CpuProgram() {
  if (pooled_) arena_pool().remove_user(arena_bytes_);
}

// Whether nobody else holds its bytes. The copy counts up and down, so that what another thread did with them before it
// let go happens before what is done now; reading the count alone doesn't ensure that.
static bool sole_holder(const Tensor& tensor) { return std::shared_ptr<void>(tensor.owner()).use_count() == 2; }

const runtime::Backend& CpuProgram::backend() const { return *cpu_backend(); }

Result<std::vector<runtime::Buffer>> CpuProgram::execute(std::span<const runtime::Buffer> data,
                                                         std::span<runtime::StateBuffer* const> state,
                                                         runtime::Profile* profile) const {
  DS_TRY(runtime::check_operands(graph_, backend(), data, state));
  return guarded("running a program", [&] { return execute_checked(data, state, profile); });
}

Result<std::vector<runtime::Buffer>> CpuProgram::execute_checked(std::span<const runtime::Buffer> data,
                                                                 std::span<runtime::StateBuffer* const> state,
                                                                 runtime::Profile* profile) const {
  (void)num_threads();  // what another thread has set holds for this one's oneDNN, too
  DS_ASSIGN(const runtime::ArenaPool::Arena arena, arena_pool().take(arena_bytes_));
  std::vector<Tensor> outputs;
  {
    std::lock_guard lock(mutex_);
    std::swap(outputs, outputs_);
  }
  outputs.resize(graph_.outputs().size());
  for (size_t i = 0; i < outputs.size(); ++i)
    if (!outputs[i].defined() || !sole_holder(outputs[i])) {
      outputs[i] = Tensor();  // before the new one: this may have been the last holder
      outputs[i] = Tensor(graph_.type(graph_.outputs()[i].value));
    }
  std::vector<void*> in, out;
  in.reserve(graph_.inputs().size());
  size_t d = 0, s = 0;
  for (const Input& input : graph_.inputs())
    in.push_back(input.kind == InputKind::kState ? state[s++]->value.data() : data[d++].data());
  for (const Tensor& t : outputs) out.push_back(t.data());
  const Status status = run_steps(in, out, arena.data(), profile);
  for (const runtime::Buffer& buffer : data)
    if (buffer.donated()) buffer.take();
  DS_TRY(status);
  std::vector<runtime::Buffer> results;
  results.reserve(outputs.size());
  for (const Tensor& t : outputs) results.emplace_back(t.type(), cpu_backend(), t.owner(), t.data());
  {
    std::lock_guard lock(mutex_);
    outputs_ = std::move(outputs);
  }
  return results;
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

Status CpuProgram::run_steps(std::span<void* const> inputs, std::span<void* const> outputs, void* arena,
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

}  // namespace deepseek::backends::cpu
