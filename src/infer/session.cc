#include "infer/session.h"

#include <algorithm>

#include "base/guard.h"
#include "base/strings.h"
#include "graph/cloner.h"
#include "runtime/shared_constants.h"

namespace deepseek::infer {

using namespace graph;
using runtime::ModuleCache;

namespace {

std::vector<std::string> names_of(const std::vector<Port>& ports) {
  std::vector<std::string> names;
  for (const Port& port : ports) names.push_back(port.name);
  return names;
}

// A graph of the chosen outputs alone.
Result<Graph> with_outputs(const Graph& graph, const std::vector<bool>& chosen) {
  if (std::find(chosen.begin(), chosen.end(), false) == chosen.end()) return graph;
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  cloner.nodes();
  for (size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i]) builder.output(graph.outputs()[i].name, cloner.at(graph.outputs()[i].value));
  return builder.finish();
}

// Whether the tensor is what the port takes, the batch size aside.
Status check_type(const Port& port, const Tensor& tensor) {
  const auto wrong = [&](const std::string& what) {
    return invalid("input '{}': expected {}, got {}{}", port.name, to_string(port), to_string(tensor.type()), what);
  };
  if (!tensor.defined()) return invalid("input '{}' has no data, expected {}", port.name, to_string(port));
  if (tensor.dtype() != port.dtype) return wrong(fmt::format("; convert it to {}", to_string(port.dtype)));
  if (tensor.type().rank() != static_cast<int64_t>(port.dims.size()))
    return wrong(fmt::format(": {} axes instead of {}", tensor.type().rank(), port.dims.size()));
  if (tensor.type().channel_block != 1) return wrong(": its layout is not row-major");
  for (size_t k = 0; k < port.dims.size(); ++k)
    if (port.dims[k] >= 0 && tensor.dims()[k] != port.dims[k])
      return wrong(fmt::format(": axis {} is {} instead of {}", k, tensor.dims()[k], port.dims[k]));
  return {};
}

}  // namespace

std::string Session::Wanted::key() const {
  std::string key = std::to_string(size) + ' ';
  for (const bool is : outputs) key += is ? '1' : '0';
  return key;
}

Session::Session(ModelFile model, runtime::BackendPtr backend, const SessionOptions& options)
    : model_(std::move(model)),
      backend_(std::move(backend)),
      measure_kernels_(options.measure_kernels),
      multiples_(size_multiples(model_)),
      programs_(options.max_programs) {
  for (const Port& port : model_.signature.inputs)
    port_of_.emplace(input_name(model_.graphs.front(), port.name), port.name);
  // Programs keep what they read of the weights; this way it is these bytes and no copy.
  for (auto& named : model_.weights) named.second = runtime::share_constant(std::move(named.second));
}

Result<std::shared_ptr<Session>> Session::open(const std::string& path, const SessionOptions& options) {
  DS_ASSIGN(ModelFile model, load_model(path));
  Result<std::shared_ptr<Session>> session = open(std::move(model), options);
  if (!session.ok()) return std::move(session).status().note(fmt::format("while opening '{}'", path));
  return session;
}

Result<std::shared_ptr<Session>> Session::open(ModelFile model, const SessionOptions& options) {
  return guarded("opening a model", [&]() -> Result<std::shared_ptr<Session>> {
    if (options.max_programs < 1) return invalid("max_programs: expected at least 1, got 0");
    DS_TRY(check_model(model));
    DS_ASSIGN(runtime::BackendPtr backend, runtime::open_backend(options.device));
    const std::shared_ptr<Session> session(new Session(std::move(model), std::move(backend), options));
    for (const int64_t size : options.warm_up)
      if (Status s = session->warm_up(size); !s.ok())
        return std::move(s).note(fmt::format("while warming up with a batch of {}", size));
    return session;
  });
}

Status Session::warm_up(int64_t size) {
  DS_ASSIGN(const Graph graph, graph_for(model_, size));
  std::map<std::string, Tensor> inputs;
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kData) continue;
    const TensorType& type = graph.type(input.value);
    inputs.emplace(port_of_.at(input.name), Tensor::zeros(type.dtype, type.dims));
  }
  const auto fixed = [&](const auto& named) { return named.second.dims().empty() || named.second.dims()[0] != size; };
  if (model_.graphs.size() == 1 && std::any_of(inputs.begin(), inputs.end(), fixed))
    return invalid("the model takes inputs of its own sizes alone: {}", [&] {
      std::vector<std::string> ports;
      for (const Port& port : model_.signature.inputs)
        ports.push_back(fmt::format("'{}' {}", port.name, to_string(port)));
      return join(ports, ", ");
    }());
  Result<std::map<std::string, Tensor>> results = run(inputs);
  return results.ok() ? Status() : std::move(results).status();
}

Result<int64_t> Session::batch_size(const std::map<std::string, Tensor>& inputs) const {
  const std::vector<Port>& ports = model_.signature.inputs;
  for (const auto& given : inputs)
    if (const std::string& name = given.first;
        std::none_of(ports.begin(), ports.end(), [&](const Port& p) { return p.name == name; })) {
      const std::vector<std::string> names = names_of(ports);
      return invalid("the model has no input '{}'; it has: {}{}", name, join(names, ", "), did_you_mean(name, names));
    }
  int64_t size = 0;
  const Port* first = nullptr;  // that told the size
  for (size_t i = 0; i < ports.size(); ++i) {
    const Port& port = ports[i];
    const auto given = inputs.find(port.name);
    if (given == inputs.end()) return invalid("input '{}' is missing, expected {}", port.name, to_string(port));
    DS_TRY(check_type(port, given->second));
    for (size_t k = 0; k < port.dims.size(); ++k) {
      const int64_t multiple = multiples_[i][k], have = given->second.dims()[k];
      if (multiple == 0) continue;
      if (have == 0)
        return invalid("input '{}': the batch is empty, got {}; leave the call out", port.name,
                       to_string(given->second.type()));
      if (have % multiple != 0)
        return invalid("input '{}': axis {} must be {} times the batch size, got {}", port.name, k, multiple, have);
      if (first == nullptr) {
        first = &port;
        size = have / multiple;
      } else if (have / multiple != size) {
        return invalid("input '{}': expected a batch of {} as in input '{}', {}, got one of {}, {}", port.name, size,
                       first->name, to_string(inputs.at(first->name).type()), have / multiple,
                       to_string(given->second.type()));
      }
    }
  }
  return size;
}

Result<std::vector<bool>> Session::choose(std::span<const std::string> outputs) const {
  const std::vector<Port>& ports = model_.signature.outputs;
  std::vector<bool> chosen(ports.size(), outputs.empty());
  for (const std::string& name : outputs) {
    const auto port = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.name == name; });
    if (port == ports.end()) {
      const std::vector<std::string> names = names_of(ports);
      return invalid("the model has no output '{}'; it has: {}{}", name, join(names, ", "), did_you_mean(name, names));
    }
    chosen[static_cast<size_t>(port - ports.begin())] = true;
  }
  return chosen;
}

Result<ModuleCache::Got> Session::compile(const Wanted& wanted) const {
  DS_ASSIGN(Graph graph, graph_for(model_, wanted.size));
  DS_ASSIGN(graph, with_outputs(graph, wanted.outputs));
  runtime::CompileOptions options;
  options.measure_kernels = measure_kernels_;
  options.constants = model_.weights;
  options.memory_limit = backend_->memory_bytes();  // an error rather than the end of the process
  return ModuleCache::shared().get(*backend_, graph, options);
}

Result<Session::Entry> Session::program(const Wanted& wanted) {
  const std::string key = wanted.key();
  std::shared_ptr<Pending> pending;
  {
    std::unique_lock lock(mutex_);
    if (const auto found = programs_.find(key)) return found.program;
    std::shared_ptr<Pending>& place = pending_[key];
    if (place != nullptr) {
      pending = place;
      compiled_.wait(lock, [&] { return pending->result.has_value(); });
      return *pending->result;
    }
    place = pending = std::make_shared<Pending>();
  }
  Result<ModuleCache::Got> got = guarded("compiling a model", [&] { return compile(wanted); });
  const std::lock_guard lock(mutex_);
  pending->result = got.ok() ? Result<Entry>(got->program) : Result<Entry>(got.status());
  pending_.erase(key);
  compiled_.notify_all();
  if (!got.ok()) return got.status();
  ++count_;
  programs_.put(key, std::move(got->slot));
  return std::move(got->program);
}

Result<std::map<std::string, Tensor>> Session::run(const std::map<std::string, Tensor>& inputs,
                                                   std::span<const std::string> outputs) {
  return guarded("running a model", [&]() -> Result<std::map<std::string, Tensor>> {
    Wanted wanted;
    DS_ASSIGN(wanted.size, batch_size(inputs));
    DS_ASSIGN(wanted.outputs, choose(outputs));
    DS_ASSIGN(const Entry program, this->program(wanted));
    std::vector<Tensor> operands;
    for (const Input& input : program->graph().inputs()) operands.push_back(inputs.at(port_of_.at(input.name)));
    DS_ASSIGN(std::vector<Tensor> results, program->run(operands));
    std::map<std::string, Tensor> named;
    for (size_t i = 0; i < results.size(); ++i)
      named.emplace(program->graph().outputs()[i].name, std::move(results[i]));
    return named;
  });
}

const std::vector<std::string>& Session::class_names(const std::string& output) const {
  static const std::vector<std::string> none;
  const auto info = model_.outputs.find(output);
  return info == model_.outputs.end() ? none : info->second.class_names;
}

size_t Session::programs() const {
  const std::lock_guard lock(mutex_);
  return programs_.size();
}

int64_t Session::compiled() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

}  // namespace deepseek::infer
