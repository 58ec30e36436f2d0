#include "train/step.h"

#include <cstring>

#include "ops/dsl.h"
#include "ops/registry.h"
#include "passes/autodiff.h"

namespace deepseek::train {

using namespace graph;

namespace {

// Forward pass and loss with outputs "loss" and "prediction".
Result<Graph> forward_graph(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                            bool training) {
  Builder builder(ops::registry());
  Expr input = builder.input("x", x);
  Expr target = y ? builder.input("y", *y) : Expr();
  nn::Trace trace(builder, model, training);
  Expr prediction = model(trace, input);
  if (y) {
    Scope scope(builder, "loss");
    const Expr value = loss(prediction, target);
    DS_TRY(builder.status());
    if (value.rank() != 0 || !is_float(value.dtype()))
      return invalid("the loss must be a float scalar, got {}; reduce it with mean or sum", to_string(value.type()));
    builder.output("loss", value);
  }
  DS_TRY(builder.status());
  builder.output("prediction", prediction);
  trace.finish();
  return builder.finish();
}

// Clipping, the optimiser's rule and the moving average for each parameter.
Status write_update(Builder& builder, const Graph& backward, const std::vector<std::string>& parameters,
                    const std::vector<Expr>& inputs, std::vector<Expr> grads, const StepOptions& options) {
  Expr rate = builder.input("learning_rate", {DType::kF32, {}});
  Expr step = builder.input("step", {DType::kF32, {}});
  builder.set_scope("clip");
  if (options.clip_value > 0)
    for (Expr& g : grads)
      g = ops::maximum(ops::minimum(g, ops::constant_like(g, options.clip_value)),
                       ops::constant_like(g, -options.clip_value));
  Expr squares = builder.scalar(DType::kF32, 0);
  for (Expr g : grads) squares = squares + ops::sum(g * g);
  Expr norm = ops::sqrt(squares);
  if (options.clip_norm > 0) {
    // min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_.
    Expr scale = ops::minimum(ops::constant_like(norm, 1), options.clip_norm / (norm + 1e-6));
    for (Expr& g : grads) g = g * scale;
  }
  builder.output("gradient_norm", norm);
  Expr decay;
  if (options.ema_decay > 0)
    decay = ops::minimum(ops::constant_like(step, options.ema_decay), (step + 1.0) / (step + 10.0));
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i];
    builder.set_scope("optimizer/" + name);
    Expr parameter = inputs[backward.find_input(name)];
    std::map<std::string, Expr> moments;
    UpdateContext context{parameter,
                          grads[i],
                          rate,
                          step,
                          [&](const std::string& moment) {
                            Expr& m = moments[moment];
                            if (!m.defined()) m = builder.state("optimizer/" + name + "/" + moment, parameter.type());
                            return m;
                          },
                          [&](const std::string& moment, Expr value) { builder.update(moments.at(moment), value); }};
    DS_ASSIGN(Expr next, update(options.optimizer, context));
    builder.update(parameter, next);
    if (options.ema_decay > 0) {
      Expr average = builder.state("ema/" + name, parameter.type());
      builder.update(average, next + (average - next) * decay);
    }
  }
  return {};
}

}  // namespace

Result<Graph> evaluation_graph(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss) {
  return forward_graph(model, x, y, loss, false);
}

Result<Graph> training_graph(nn::Module& model, const TensorType& x, const TensorType& y, const StepOptions& options,
                             StepKind kind) {
  DS_ASSIGN(const Graph forward, forward_graph(model, x, &y, options.loss, true));
  std::vector<std::string> parameters;
  for (const nn::State& s : model.named_state())
    if (s.trainable && forward.find_input(s.name) >= 0) parameters.push_back(s.name);
  DS_ASSIGN(const Graph backward, passes::autodiff(forward, "loss", parameters, ops::registry()));

  Builder builder(ops::registry());
  std::vector<Expr> inputs;
  for (const Input& input : backward.inputs())
    inputs.push_back(builder.input(input.name, backward.type(input.value), input.kind));
  const std::vector<Expr> values = builder.inline_values(backward, inputs);
  const auto result = [&](const std::string& name) {
    return values[backward.outputs()[backward.find_output(name)].value.id];
  };
  std::vector<Expr> grads;
  for (const std::string& name : parameters) grads.push_back(result("grad:" + name));

  if (kind != StepKind::kUpdate) {
    builder.set_scope("accumulate");
    Expr weight = builder.input("weight", {DType::kF32, {}});
    for (size_t i = 0; i < parameters.size(); ++i) {
      Expr sum = builder.state("accumulated/" + parameters[i], grads[i].type());
      grads[i] = sum + grads[i] * ops::cast(weight, grads[i].dtype());
      builder.update(sum, kind == StepKind::kAccumulate ? grads[i] : ops::zeros_like(sum));
    }
  }
  if (kind != StepKind::kAccumulate) DS_TRY(write_update(builder, backward, parameters, inputs, grads, options));
  builder.set_scope("");
  for (const Update& u : backward.updates()) builder.update(inputs[u.input], values[u.value.id]);
  builder.output("loss", result("loss"));
  builder.output("prediction", result("prediction"));
  return builder.finish();
}

StateStore::StateStore(const nn::Module& model, uint64_t seed) : seed_(seed) {
  for (const nn::State& s : model.named_state()) tensors_[s.name] = s.value;
}

void StateStore::prepare(const Graph& graph) {
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kState || tensors_.contains(input.name)) continue;
    const auto source = input.name.starts_with("ema/") ? tensors_.find(input.name.substr(4)) : tensors_.end();
    Tensor t = source != tensors_.end() ? source->second.clone()
                                        : Tensor::zeros(graph.type(input.value).dtype, graph.type(input.value).dims);
    if (input.name == "random") t.as<int64_t>()[0] = static_cast<int64_t>(seed_);
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
    const auto& from = input.kind == InputKind::kState ? tensors_ : data;
    auto it = from.find(input.name);
    if (averaged && input.kind == InputKind::kState)
      if (auto average = tensors_.find("ema/" + input.name); average != tensors_.end()) it = average;
    if (it == from.end()) return invalid("input '{}' was not given", input.name);
    inputs.push_back(it->second);
  }
  return program.run(inputs, profile);
}

}  // namespace deepseek::train
