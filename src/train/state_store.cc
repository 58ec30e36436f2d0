#include "train/state_store.h"

#include <cstring>

#include "nn/module.h"
#include "train/loss_scale.h"

namespace deepseek::train {

using namespace graph;

StateStore::StateStore(const nn::Module& model, uint64_t seed) : seed_(seed) {
  for (const nn::State& s : model.named_state()) tensors_[s.name] = s.value;
}

void StateStore::prepare(const Graph& graph) {
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kState || tensors_.contains(input.name)) continue;
    const auto source = input.name.starts_with("ema/") ? tensors_.find(input.name.substr(4)) : tensors_.end();
    Tensor t = source != tensors_.end() ? source->second.clone()
                                        : Tensor::zeros(graph.type(input.value).dtype, graph.type(input.value).dims);
    if (input.name == kLossScale) t.as<float>()[0] = static_cast<float>(kInitialLossScale);
    if (input.name == nn::kRandomCounter) t.as<int64_t>()[0] = static_cast<int64_t>(seed_);
    tensors_[input.name] = t;
  }
}

StateStore StateStore::clone() const {
  StateStore copy = *this;
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
  return {};
}

Result<std::vector<Tensor>> StateStore::run(const runtime::Program& program, const std::map<std::string, Tensor>& data,
                                            bool averaged, runtime::Profile* profile) const {
  std::vector<Tensor> inputs;
  for (const Input& input : program.graph().inputs()) {
    const bool state = input.kind == InputKind::kState;
    const auto& from = state ? tensors_ : data;
    auto it = from.find(state ? input.name : nn::data_name(input.name));
    if (averaged && state)
      if (auto average = tensors_.find("ema/" + input.name); average != tensors_.end()) it = average;
    if (it == from.end()) return invalid("input '{}' was not given", input.name);
    inputs.push_back(it->second);
  }
  return program.run(inputs, profile);
}

}  // namespace deepseek::train
