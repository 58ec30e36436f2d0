#include "runtime/backend.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/strings.h"

namespace deepseek::runtime {

using graph::Input;
using graph::InputKind;
using graph::Tensor;

namespace {

struct Registered {
  BackendEntry entry;
  std::optional<Result<BackendPtr>> opened;
};

struct Registry {
  std::mutex mutex;
  std::vector<std::unique_ptr<Registered>> all;
};

Registry& backends() {
  static Registry* const registry = new Registry;  // outlives programs that die late
  return *registry;
}

}  // namespace

Status register_backend(BackendEntry entry) {
  Registry& registry = backends();
  const std::lock_guard lock(registry.mutex);
  for (const auto& known : registry.all)
    if (known->entry.name == entry.name) return internal_error("backend '{}' is registered twice", entry.name);
  registry.all.push_back(std::make_unique<Registered>(Registered{std::move(entry), std::nullopt}));
  return {};
}

Result<BackendPtr> open_backend(std::string_view name) {
  Registry& registry = backends();
  const std::lock_guard lock(registry.mutex);
  std::vector<std::string> names;
  for (const auto& known : registry.all) {
    if (known->entry.name == name) {
      if (!known->opened) known->opened = known->entry.open();
      if (!known->opened->ok())
        return Status(known->opened->status()).note(fmt::format("while opening the device '{}'", name));
      return *known->opened;
    }
    names.push_back(known->entry.name);
  }
  if (names.empty()) return internal_error("device '{}': this program registers no backends", name);
  const std::string near = nearest(name, names);
  return invalid("there is no device '{}'; there are: {}{}", name, join(names, ", "),
                 near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

std::vector<BackendEntry> registered_backends() {
  Registry& registry = backends();
  const std::lock_guard lock(registry.mutex);
  std::vector<BackendEntry> list;
  for (const auto& known : registry.all) list.push_back(known->entry);
  return list;
}

Result<std::vector<Tensor>> run_on_host(const Program& program, std::span<const Tensor> inputs, Profile* profile) {
  const Backend& backend = program.backend();
  const std::span<const Input> wanted = program.graph().inputs();
  if (inputs.size() != wanted.size())
    return invalid("program: expected {} inputs, got {}", wanted.size(), inputs.size());
  std::vector<Buffer> data;
  std::vector<StateBuffer> state;
  std::vector<size_t> state_of;
  state.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) return invalid("program: input '{}' was not given", wanted[i].name);
    DS_ASSIGN(Buffer buffer, backend.upload(inputs[i]));
    if (wanted[i].kind == InputKind::kState) {
      state.push_back({std::move(buffer)});
      state_of.push_back(i);
    } else {
      data.push_back(std::move(buffer));
    }
  }
  std::vector<StateBuffer*> slots;
  for (StateBuffer& s : state) slots.push_back(&s);
  DS_ASSIGN(const std::vector<Buffer> results, program.execute(data, slots, profile));
  if (!backend.host_memory())
    for (size_t s = 0; s < state.size(); ++s) {
      DS_ASSIGN(const Tensor value, backend.download(state[s].value));
      std::memcpy(inputs[state_of[s]].data(), value.data(), value.num_bytes());
    }
  std::vector<Tensor> outputs;
  for (const Buffer& result : results) {
    DS_ASSIGN(Tensor value, backend.download(result));
    outputs.push_back(std::move(value));
  }
  return outputs;
}

Result<std::vector<Tensor>> Program::run(std::span<const Tensor> inputs, Profile* profile) const {
  return run_on_host(*this, inputs, profile);
}

Status check_operands(const graph::Graph& graph, const Backend& backend, std::span<const Buffer> data,
                      std::span<StateBuffer* const> state) {
  size_t num_data = 0, num_state = 0;
  for (const Input& input : graph.inputs()) ++(input.kind == InputKind::kState ? num_state : num_data);
  if (data.size() != num_data || state.size() != num_state)
    return invalid("program: expected {} data inputs and {} of state, got {} and {}", num_data, num_state, data.size(),
                   state.size());
  size_t d = 0, s = 0;
  bool donates = false;
  for (const Input& input : graph.inputs()) {
    const Buffer& buffer = input.kind == InputKind::kState ? state[s++]->value : data[d++];
    if (!buffer.defined()) return invalid("program: input '{}' was not given", input.name);
    if (!buffer.available())
      return invalid("program: input '{}' was donated to an earlier run; upload it again", input.name);
    if (buffer.backend() != &backend)
      return invalid("program: input '{}' is a buffer of another device than '{}'; upload it there", input.name,
                     backend.name());
    if (buffer.type() != graph.type(input.value))
      return invalid("program: input '{}': expected {}, got {}", input.name, to_string(graph.type(input.value)),
                     to_string(buffer.type()));
    donates = donates || buffer.donated();
  }
  if (!donates) return {};
  for (size_t i = 0; i < data.size(); ++i)
    if (data[i].donated()) {
      const auto same = [&](const Buffer& other) { return other.owner() == data[i].owner(); };
      const auto uses = std::count_if(data.begin(), data.end(), same) +
                        std::count_if(state.begin(), state.end(), [&](StateBuffer* t) { return same(t->value); });
      if (uses > 1) return invalid("program: data input {} is donated, but another input has the same bytes", i);
    }
  return {};
}

}  // namespace deepseek::runtime
