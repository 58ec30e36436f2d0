#include "train/step.h"

#include "graph/cloner.h"
#include "ops/dsl.h"
#include "ops/registry.h"
#include "passes/autodiff.h"
#include "passes/mixed_precision.h"
#include "train/clip.h"
#include "train/loss_scale.h"

namespace deepseek::train {

using namespace graph;

namespace {

// Clipping, the optimiser's rule and the moving average for each parameter.
Status write_update(Builder& builder, const Graph& backward, const std::vector<std::string>& parameters,
                    const std::vector<Expr>& inputs, std::vector<Expr> grads, const StepOptions& options,
                    const LossScale& loss_scale) {
  const auto write = [&](Expr state, Expr value) { write_state(builder, state, value, loss_scale); };
  Expr rate = builder.input(kLearningRate, {DType::kF32, {}});
  Expr step = builder.input(kStepNumber, {DType::kF32, {}});
  // Bias corrections count the updates that were made.
  if (loss_scale.good.defined()) step = step - loss_scale.skipped;
  builder.output("gradient_norm", clip_gradients(builder, grads, options.clip_value, options.clip_norm));
  Expr fresh;
  if (options.ema_decay > 0)  // 1 - min(ema_decay, (1 + step) / (10 + step)), to all digits
    fresh = ops::maximum(ops::constant_like(step, 1 - options.ema_decay), 9.0 / (step + 10.0));
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
      write(average, average + (next - average) * fresh);
    }
  }
  return {};
}

}  // namespace

Result<Graph> training_graph(nn::Module& model, const data::BatchType& batch, const StepOptions& options, StepKind kind,
                             ForwardTraces* traces) {
  ForwardTraces own;
  DS_ASSIGN(Graph forward, (traces != nullptr ? *traces : own).get(model, batch, &options.loss, true));
  std::vector<std::string> parameters;
  for (const nn::State& s : model.named_state())
    if (s.trainable && forward.find_input(s.name) >= 0) parameters.push_back(s.name);
  const passes::PassDriver driver(passes::plain_target(), {{}, options.observe});
  if (options.precision != DType::kF32) {
    const auto lower = [&](const Graph& g, const passes::PassContext&) {
      return passes::mixed_precision(g, options.precision);
    };
    DS_ASSIGN(forward, driver.run("mixed_precision", forward, lower));
  }
  const bool scaled = options.loss_scale_interval > 0;
  if (scaled) {
    const auto scale = [](const Graph& g, const passes::PassContext&) { return with_scaled_loss(g); };
    DS_ASSIGN(forward, driver.run("scale_loss", forward, scale, false));
  }
  const auto differentiate = [&](const Graph& g, const passes::PassContext&) {
    return passes::autodiff(g, scaled ? kScaledLoss : kLoss, parameters);
  };
  DS_ASSIGN(const Graph backward, driver.run("autodiff", forward, differentiate, false));

  Builder builder(ops::registry());
  Cloner cloner(builder, backward);
  cloner.inputs();
  cloner.nodes();
  std::vector<Expr> inputs;
  for (const Input& input : backward.inputs()) inputs.push_back(cloner.at(input.value));
  const auto result = [&](const std::string& name) {
    return cloner.at(backward.outputs()[backward.find_output(name)].value);
  };
  std::vector<Expr> grads;
  for (const std::string& name : parameters) grads.push_back(result("grad:" + name));
  LossScale loss_scale;
  if (scaled) {
    builder.set_scope("loss_scale");
    loss_scale.scale = inputs[backward.find_input(kLossScale)];
    Expr factor = 1.0 / loss_scale.scale;  // both are powers of two: nothing is rounded
    for (Expr& g : grads) g = g * ops::cast(factor, g.dtype());
  }

  if (kind != StepKind::kUpdate) {
    builder.set_scope("accumulate");
    Expr weight = builder.input(kWeight, {DType::kF32, {}}), none = builder.scalar(DType::kF32, 0), share;
    if (kind == StepKind::kLast) share = 1.0 / builder.input(kTotalWeight, {DType::kF32, {}});
    for (size_t i = 0; i < parameters.size(); ++i) {
      const DType dtype = grads[i].dtype();
      Expr sum = builder.state("accumulated/" + parameters[i], grads[i].type());
      // The mean over no target is NaN, and so are its gradients.
      grads[i] = sum + ops::select(ops::greater(weight, none), grads[i] * ops::cast(weight, dtype),
                                   ops::constant_like(grads[i], 0));
      builder.update(sum, kind == StepKind::kAccumulate ? grads[i] : ops::zeros_like(sum));
      if (share.defined()) grads[i] = grads[i] * ops::cast(share, dtype);
    }
  }
  if (scaled) {  // what is not finite in one batch stays so in the sum
    builder.set_scope("loss_scale");
    loss_scale.good = all_finite(builder, grads);
  }
  if (kind != StepKind::kAccumulate) {
    if (scaled) {
      loss_scale.skipped = builder.state(kSkippedUpdates, {DType::kF32, {}});
      write_loss_scale(builder, loss_scale, options.loss_scale_interval);
    }
    DS_TRY(write_update(builder, backward, parameters, inputs, grads, options, loss_scale));
  }
  builder.set_scope("");
  for (const Update& u : backward.updates()) {
    const Input& state = backward.inputs()[u.input];
    if (state.name == nn::kRandomCounter)
      builder.update(inputs[u.input], cloner.at(u.value));
    else
      write_state(builder, inputs[u.input], cloner.at(u.value), loss_scale);
  }
  for (const Output& output : forward.outputs())
    if (output.name != kScaledLoss) builder.output(output.name, result(output.name));
  return builder.finish();
}

}  // namespace deepseek::train
