#include "nn/recurrent.h"

#include <cmath>

#include "ops/dsl.h"

namespace deepseek::nn {

constexpr int64_t kMostLayers = 10'000;  // of a graph that can still be compiled

Recurrent::Recurrent(const char* op, int64_t gates, int64_t states, int64_t input, int64_t hidden,
                     RecurrentOptions options)
    : op_(op), gates_(gates), states_(states), input_(input), hidden_(hidden), options_(options) {
  if (!require(input >= 1 && hidden >= 1 && options.layers >= 1,
               "{}: expected input_size, hidden_size and num_layers >= 1, got {}, {} and {}", op, input, hidden,
               options.layers) ||
      !require(options.dropout >= 0 && options.dropout < 1, "{}: expected dropout in [0, 1), got {}", op,
               options.dropout) ||
      !require_possible(op, {input, hidden}) ||
      !require(options.layers <= kMostLayers, "{}: expected at most {} layers, got {}", op, kMostLayers,
               options.layers))
    return;
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  const int64_t directions = options.bidirectional ? 2 : 1, rows = gates * hidden;
  const auto parameter = [&](const std::string& name, Dims dims) {
    register_parameter(name, std::move(dims), default_initializer().uniform(bound));
  };
  for (int64_t layer = 0; layer < options.layers; ++layer)
    for (int64_t direction = 0; direction < directions; ++direction) {
      const std::string suffix = fmt::format("_l{}{}", layer, direction == 1 ? "_reverse" : "");
      parameter("weight_ih" + suffix, {rows, layer == 0 ? input : hidden * directions});
      parameter("weight_hh" + suffix, {rows, hidden});
      if (!options.bias) continue;
      parameter("bias_ih" + suffix, {rows});
      parameter("bias_hh" + suffix, {rows});
    }
}

std::vector<Expr> Recurrent::run(Trace& trace, Expr x, std::vector<Expr> states, const std::string& suffix,
                                 bool reverse) {
  std::vector<Expr> args = {x};
  args.insert(args.end(), states.begin(), states.end());
  args.push_back(trace.state(*this, "weight_ih" + suffix));
  args.push_back(trace.state(*this, "weight_hh" + suffix));
  const auto bias = [&](const char* name) {
    return options_.bias ? trace.state(*this, name + suffix)
                         : trace.builder().constant(Tensor::zeros(x.dtype(), {gates_ * hidden_}));
  };
  // The LSTM op has one bias, as the two of PyTorch only ever appear as their sum.
  if (states_ == 2)
    args.push_back(options_.bias ? bias("bias_ih") + bias("bias_hh") : bias("bias_ih"));
  else
    args.insert(args.end(), {bias("bias_ih"), bias("bias_hh")});
  return trace.builder().emit(op_, args, {{"reverse", reverse}});
}

std::vector<Expr> Recurrent::forward(Trace& trace, const std::vector<Expr>& inputs) {
  Builder& b = trace.builder();
  const size_t states = static_cast<size_t>(states_);
  Expr x = inputs[0];
  if (x.rank() != 3) {
    b.fail(invalid("{}: expected an input of 3 axes, [{}], got {}", op_,
                   options_.batch_first ? "batch, time, features" : "time, batch, features",
                   graph::to_string(x.type())));
    return std::vector<Expr>(1 + states, Expr(&b, {}));
  }
  if (options_.batch_first) x = ops::transpose(x, {1, 0, 2});
  const int64_t batch = x.dim(1), directions = options_.bidirectional ? 2 : 1, runs = options_.layers * directions;
  for (size_t s = 1; s < inputs.size(); ++s)
    if (inputs[s].defined() && (s > states || inputs[s].dims() != Dims{runs, batch, hidden_})) {
      b.fail(invalid("{}: expected {} initial state(s) {}, got {} of {}", op_, states_,
                     graph::to_string(Dims{runs, batch, hidden_}), inputs.size() - 1,
                     graph::to_string(inputs[s].type())));
      return std::vector<Expr>(1 + states, Expr(&b, {}));
    }
  std::vector<std::vector<Expr>> finals(states);
  for (int64_t layer = 0; layer < options_.layers; ++layer) {
    std::vector<Expr> outputs;
    for (int64_t direction = 0; direction < directions; ++direction) {
      const int64_t index = layer * directions + direction;
      std::vector<Expr> initial;
      for (size_t s = 1; s <= states; ++s)
        initial.push_back(s < inputs.size() && inputs[s].defined()
                              ? ops::reshape(ops::slice(inputs[s], 0, index, index + 1), {batch, hidden_})
                              : b.constant(Tensor::zeros(x.dtype(), {batch, hidden_})));
      const std::vector<Expr> out =
          run(trace, x, initial, fmt::format("_l{}{}", layer, direction == 1 ? "_reverse" : ""), direction == 1);
      outputs.push_back(out[0]);
      for (size_t s = 0; s < states; ++s) finals[s].push_back(ops::reshape(out[s + 1], {1, batch, hidden_}));
    }
    x = outputs.size() == 1 ? outputs[0] : ops::concat(outputs, 2);
    if (layer + 1 < options_.layers && options_.dropout > 0 && trace.training(*this))
      x = b.op("dropout", {x, trace.random_state()}, {{"rate", options_.dropout}, {"stream", trace.next_stream()}});
  }
  std::vector<Expr> results = {options_.batch_first ? ops::transpose(x, {1, 0, 2}) : x};
  for (std::vector<Expr>& parts : finals) results.push_back(parts.size() == 1 ? parts[0] : ops::concat(parts, 0));
  return results;
}

}  // namespace deepseek::nn
