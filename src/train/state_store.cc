#include "train/state_store.h"

#include <cstring>

#include "nn/module.h"
#include "train/loss_scale.h"

namespace deepseek::train {

using namespace graph;

StateStore::StateStore(const nn::Module& model, uint64_t seed, runtime::BackendPtr backend)
    : backend_(std::move(backend)), seed_(seed) {
  follow(model);
}

void StateStore::follow(const nn::Module& model) {
  std::map<std::string, Tensor> now;
  for (const nn::State& s : model.named_state()) now.emplace(s.name, s.value);
  const auto forget = [&](const std::string& name) {
    const auto of = [&](const auto& t) {
      return t.first == name || t.first == "ema/" + name || t.first == "accumulated/" + name ||
             t.first.starts_with("optimizer/" + name + "/");
    };
    std::erase_if(tensors_, of);
    bindings_.clear();  // before the places that they point to
    std::erase_if(places_, of);
  };
  for (const std::string& name : of_model_)
    if (const auto it = now.find(name); it == now.end() || it->second != tensors_[name]) forget(name);
  of_model_.clear();
  for (auto& [name, value] : now) {
    tensors_[name] = value;
    of_model_.insert(name);
  }
}

Status StateStore::place(const std::string& name) {
  DS_ASSIGN(runtime::Buffer buffer, backend_->upload(tensors_.at(name)));
  std::shared_ptr<runtime::StateBuffer>& at = places_[name];
  if (at == nullptr) at = std::make_shared<runtime::StateBuffer>();
  at->value = std::move(buffer);
  return {};
}

Status StateStore::prepare(const Graph& graph) {
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kState || places_.contains(input.name)) continue;
    if (!tensors_.contains(input.name)) {
      const bool average = input.name.starts_with("ema/") && tensors_.contains(input.name.substr(4));
      if (average) DS_TRY(download());
      Tensor t = average ? tensors_.at(input.name.substr(4)).clone()
                         : Tensor::zeros(graph.type(input.value).dtype, graph.type(input.value).dims);
      if (input.name == kLossScale) t.as<float>()[0] = static_cast<float>(kInitialLossScale);
      if (input.name == nn::kRandomCounter) t.as<int64_t>()[0] = static_cast<int64_t>(seed_);
      tensors_[input.name] = t;
    }
    DS_TRY(place(input.name));
  }
  return {};
}

Status StateStore::download() {
  if (backend_->host_memory()) return {};
  for (const auto& [name, at] : places_) {
    DS_ASSIGN(const Tensor value, backend_->download(at->value));
    std::memcpy(tensors_.at(name).data(), value.data(), value.num_bytes());
  }
  return {};
}

Result<double> StateStore::scalar(const std::string& name) const {
  const auto at = places_.find(name);
  if (at == places_.end()) return 0.0;
  DS_ASSIGN(const Tensor value, backend_->download(at->second->value));
  return value.at(0);
}

Status StateStore::upload() {
  if (backend_->host_memory()) return {};
  for (const auto& [name, at] : places_) DS_TRY(place(name));
  return {};
}

Result<StateStore> StateStore::clone() {
  DS_TRY(download());
  StateStore copy = *this;
  copy.places_.clear();
  copy.bindings_.clear();
  for (auto& [name, tensor] : copy.tensors_) tensor = tensor.clone();
  return copy;
}

std::map<std::string, Tensor> StateStore::persistent() const {
  std::map<std::string, Tensor> out;
  for (const auto& [name, value] : tensors_)
    if (!name.starts_with("accumulated/")) out.emplace(name, value);
  return out;
}

Status StateStore::load(const std::map<std::string, Tensor>& values) {
  std::string problems;
  for (const auto& [name, value] : values) {
    auto it = tensors_.find(name);
    if (it == tensors_.end())
      problems += fmt::format("\n  '{}' is not a tensor of this run", name);
    else if (it->second.type() != value.type())
      problems +=
          fmt::format("\n  '{}': expected {}, got {}", name, to_string(it->second.type()), to_string(value.type()));
  }
  for (const auto& [name, value] : persistent())
    if (!values.contains(name)) problems += fmt::format("\n  '{}' is missing", name);
  if (!problems.empty()) return invalid("the checkpoint does not fit the model and optimizer:{}", problems);
  for (const auto& [name, value] : values) std::memcpy(tensors_[name].data(), value.data(), value.num_bytes());
  return upload();
}

Status StateStore::put(const std::string& name, const Tensor& value) {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    tensors_.emplace(name, value.clone());
    return {};
  }
  if (it->second.type() != value.type())
    return invalid("'{}': expected {}, got {}", name, to_string(it->second.type()), to_string(value.type()));
  std::memcpy(it->second.data(), value.data(), value.num_bytes());
  return places_.contains(name) ? place(name) : Status();
}

Result<const StateStore::Binding*> StateStore::bind(const std::shared_ptr<const runtime::Program>& program,
                                                    bool averaged) {
  for (const Binding& known : bindings_)
    if (known.averaged == averaged && known.program.lock() == program) return &known;
  std::erase_if(bindings_, [](const Binding& known) { return known.program.expired(); });
  DS_TRY(prepare(program->graph()));
  Binding binding{program, averaged, {}, {}};
  for (const Input& input : program->graph().inputs()) {
    if (input.kind == InputKind::kData) {
      binding.data.push_back(nn::data_name(input.name));
      continue;
    }
    std::string name = input.name;
    if (averaged && tensors_.contains("ema/" + name)) name = "ema/" + name;
    if (!places_.contains(name)) DS_TRY(place(name));
    binding.state.push_back(places_.at(name).get());
  }
  bindings_.push_back(std::move(binding));
  return &bindings_.back();
}

Result<std::vector<Tensor>> StateStore::run(const std::shared_ptr<const runtime::Program>& program,
                                            const std::map<std::string, Tensor>& data, bool averaged,
                                            runtime::Profile* profile) {
  DS_ASSIGN(const Binding* binding, bind(program, averaged));
  std::vector<runtime::Buffer> inputs;
  inputs.reserve(binding->data.size());
  for (const std::string& name : binding->data) {
    const auto value = data.find(name);
    if (value == data.end()) return invalid("input '{}' was not given", name);
    DS_ASSIGN(runtime::Buffer buffer, backend_->upload(value->second));
    inputs.push_back(std::move(buffer));
  }
  DS_ASSIGN(const std::vector<runtime::Buffer> results, program->execute(inputs, binding->state, profile));
  std::vector<Tensor> outputs;
  outputs.reserve(results.size());
  for (const runtime::Buffer& result : results) {
    DS_ASSIGN(Tensor value, backend_->download(result));
    outputs.push_back(std::move(value));
  }
  return outputs;
}

}  // namespace deepseek::train
