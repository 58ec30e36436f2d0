#include "train/step.h"

#include <cstring>

#include "ops/dsl.h"
#include "ops/registry.h"
#include "passes/autodiff.h"
#include "passes/mixed_precision.h"

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

// `graph` with the further output "scaled_loss", the loss times the state "loss_scale/scale".
Result<Graph> with_scaled_loss(const Graph& graph) {
  Builder builder(ops::registry());
  std::vector<Expr> inputs;
  for (const Input& input : graph.inputs())
    inputs.push_back(builder.input(input.name, graph.type(input.value), input.kind));
  Expr scale = builder.state("loss_scale/scale", {DType::kF32, {}});
  const std::vector<Expr> values = builder.inline_values(graph, inputs);
  for (const Output& output : graph.outputs()) builder.output(output.name, values[output.value.id]);
  for (const Update& u : graph.updates()) builder.update(inputs[u.input], values[u.value.id]);
  builder.set_scope("loss_scale");
  builder.output("scaled_loss",
                 ops::cast(values[graph.outputs()[graph.find_output("loss")].value.id], DType::kF32) * scale);
  return builder.finish();
}

// bool[]: whether all elements of all tensors are finite. x * 0 is 0 where x is, else NaN, which a sum keeps.
Expr all_finite(Builder& builder, const std::vector<Expr>& tensors) {
  Expr probe = builder.scalar(DType::kF32, 0);
  for (Expr t : tensors) probe = probe + ops::cast(ops::sum(t * 0.0), DType::kF32);
  return ops::equal(probe, builder.scalar(DType::kF32, 0));
}

// Dynamic loss scaling inside a step; undefined where it is off.
struct LossScale {
  Expr scale, skipped;  // states
  Expr good;            // bool[]: all gradients are finite
};

// The states' next values, and the output "skipped".
void write_loss_scale(Builder& builder, const LossScale& s, int64_t interval) {
  const auto& [scale, skipped, good] = s;
  const auto number = [&](double v) { return builder.scalar(DType::kF32, v); };
  builder.set_scope("loss_scale");
  Expr count = builder.state("loss_scale/good", {DType::kF32, {}});
  Expr next = count + 1.0;
  Expr full = ops::greater_equal(next, number(static_cast<double>(interval)));
  Expr grown = ops::select(full, ops::minimum(scale * 2.0, number(kMostLossScale)), scale);
  builder.update(scale, ops::select(good, grown, ops::maximum(scale * 0.5, number(kLeastLossScale))));
  builder.update(count, ops::select(good, ops::select(full, number(0), next), number(0)));
  Expr missed = ops::select(good, number(0), number(1));
  builder.update(skipped, skipped + missed);
  builder.output("skipped", missed);
}

// The state's next value; where the gradients are not finite it stays.
void write_state(Builder& builder, Expr state, Expr value, const LossScale& loss_scale) {
  builder.update(state, loss_scale.good.defined() ? ops::select(loss_scale.good, value, state) : value);
}

// Clipping, the optimiser's rule and the moving average for each parameter.
Status write_update(Builder& builder, const Graph& backward, const std::vector<std::string>& parameters,
                    const std::vector<Expr>& inputs, std::vector<Expr> grads, const StepOptions& options,
                    const LossScale& loss_scale) {
  const auto write = [&](Expr state, Expr value) { write_state(builder, state, value, loss_scale); };
  Expr rate = builder.input("learning_rate", {DType::kF32, {}});
  Expr step = builder.input("step", {DType::kF32, {}});
  // Bias corrections count the updates that were made.
  if (loss_scale.good.defined()) step = step - loss_scale.skipped;
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
                          [&](const std::string& moment, Expr value) { write(moments.at(moment), value); }};
    DS_ASSIGN(Expr next, update(options.optimizer, context));
    write(parameter, next);
    if (options.ema_decay > 0) {
      Expr average = builder.state("ema/" + name, parameter.type());
      write(average, next + (average - next) * decay);
    }
  }
  return {};
}

}  // namespace

Result<Graph> ForwardTraces::get(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                                 bool training) {
  if (structure_.update(model))
    for (auto& pair : traces_)
      for (Traces& t : pair) t.clear();
  std::vector<TensorType> types{x};
  if (y != nullptr) types.push_back(*y);
  return traces_[training][y != nullptr].get(types, ops::registry(),
                                             [&] { return forward_graph(model, x, y, loss, training); });
}

int64_t ForwardTraces::count() const {
  int64_t count = 0;
  for (const auto& pair : traces_)
    for (const Traces& t : pair) count += t.count();
  return count;
}

Result<Graph> evaluation_graph(nn::Module& model, const TensorType& x, const TensorType* y, const LossFunction& loss,
                               ForwardTraces* traces) {
  return traces != nullptr ? traces->get(model, x, y, loss, false) : forward_graph(model, x, y, loss, false);
}

Result<Graph> training_graph(nn::Module& model, const TensorType& x, const TensorType& y, const StepOptions& options,
                             StepKind kind, ForwardTraces* traces) {
  DS_ASSIGN(Graph forward, traces != nullptr ? traces->get(model, x, &y, options.loss, true)
                                             : forward_graph(model, x, &y, options.loss, true));
  std::vector<std::string> parameters;
  for (const nn::State& s : model.named_state())
    if (s.trainable && forward.find_input(s.name) >= 0) parameters.push_back(s.name);
  if (options.precision != DType::kF32) {
    DS_ASSIGN(forward, passes::mixed_precision(forward, options.precision, ops::registry()));
  }
  const bool scaled = options.loss_scale_interval > 0;
  if (scaled) {
    DS_ASSIGN(forward, with_scaled_loss(forward));
  }
  DS_ASSIGN(const Graph backward,
            passes::autodiff(forward, scaled ? "scaled_loss" : "loss", parameters, ops::registry()));

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
  LossScale loss_scale;
  if (scaled) {
    builder.set_scope("loss_scale");
    loss_scale.scale = inputs[backward.find_input("loss_scale/scale")];
    Expr factor = 1.0 / loss_scale.scale;  // both are powers of two: nothing is rounded
    for (Expr& g : grads) g = g * ops::cast(factor, g.dtype());
  }

  if (kind != StepKind::kUpdate) {
    builder.set_scope("accumulate");
    Expr weight = builder.input("weight", {DType::kF32, {}});
    for (size_t i = 0; i < parameters.size(); ++i) {
      Expr sum = builder.state("accumulated/" + parameters[i], grads[i].type());
      grads[i] = sum + grads[i] * ops::cast(weight, grads[i].dtype());
      builder.update(sum, kind == StepKind::kAccumulate ? grads[i] : ops::zeros_like(sum));
    }
  }
  if (scaled) {  // what is not finite in one batch stays so in the sum
    builder.set_scope("loss_scale");
    loss_scale.good = all_finite(builder, grads);
  }
  if (kind != StepKind::kAccumulate) {
    if (scaled) {
      loss_scale.skipped = builder.state("loss_scale/skipped", {DType::kF32, {}});
      write_loss_scale(builder, loss_scale, options.loss_scale_interval);
    }
    DS_TRY(write_update(builder, backward, parameters, inputs, grads, options, loss_scale));
  }
  builder.set_scope("");
  for (const Update& u : backward.updates()) {
    const Input& state = backward.inputs()[u.input];
    if (state.name == nn::kRandomCounter)
      builder.update(inputs[u.input], values[u.value.id]);
    else
      write_state(builder, inputs[u.input], values[u.value.id], loss_scale);
  }
  builder.output("loss", result("loss"));
  builder.output("prediction", result("prediction"));
  return builder.finish();
}

StateStore::StateStore(const nn::Module& model, uint64_t seed) : seed_(seed) { follow(model); }

void StateStore::follow(const nn::Module& model) {
  std::map<std::string, Tensor> now;
  for (const nn::State& s : model.named_state()) now.emplace(s.name, s.value);
  const auto forget = [&](const std::string& name) {
    std::erase_if(tensors_, [&](const auto& t) {
      return t.first == name || t.first == "ema/" + name || t.first == "accumulated/" + name ||
             t.first.starts_with("optimizer/" + name + "/");
    });
  };
  for (const std::string& name : of_model_)
    if (const auto it = now.find(name); it == now.end() || it->second != tensors_[name]) forget(name);
  of_model_.clear();
  for (auto& [name, value] : now) {
    tensors_[name] = value;
    of_model_.insert(name);
  }
}

void StateStore::prepare(const Graph& graph) {
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kState || tensors_.contains(input.name)) continue;
    const auto source = input.name.starts_with("ema/") ? tensors_.find(input.name.substr(4)) : tensors_.end();
    Tensor t = source != tensors_.end() ? source->second.clone()
                                        : Tensor::zeros(graph.type(input.value).dtype, graph.type(input.value).dims);
    if (input.name == "loss_scale/scale") t.as<float>()[0] = static_cast<float>(kInitialLossScale);
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

Status StateStore::put(const std::string& name, const Tensor& value) {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    tensors_.emplace(name, value.clone());
    return {};
  }
  if (it->second.type() != value.type())
    return invalid("'{}': expected {}, got {}", name, to_string(it->second.type()), to_string(value.type()));
  std::memcpy(it->second.data(), value.data(), value.num_bytes());
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
