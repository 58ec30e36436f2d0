#include "train/forward.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/strings.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::train {

using namespace graph;
using data::BatchEntry;
using data::BatchType;
using data::Role;

namespace {

// Two bad names are as bad as none.
Status check_names(const std::vector<std::string>& names, const char* what) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.empty() || name.find('/') != std::string::npos)
      return invalid("the {} '{}' needs a name of at least one character, without '/'", what, name);
    if (!seen.insert(name).second) return invalid("two {}s are called '{}'", what, name);
  }
  return {};
}

Result<ModelOutputs> call_model(nn::Trace& trace, nn::Module& model, const BatchType& batch,
                                const BatchValues& values) {
  DS_ASSIGN(const std::vector<int64_t> order, input_order(model, batch));
  std::vector<Expr> inputs;
  for (const int64_t i : order) inputs.push_back(i < 0 ? Expr() : values.at(batch[static_cast<size_t>(i)].name));
  ModelOutputs outputs;
  outputs.values = model.call(trace, inputs);
  DS_TRY(trace.builder().status());
  outputs.names = model.output_names();
  outputs.named = !outputs.names.empty();
  if (outputs.values.empty()) return invalid("the model gives no output");
  if (outputs.named && outputs.names.size() != outputs.values.size())
    return invalid("the model names {} outputs and gives {}", outputs.names.size(), outputs.values.size());
  if (!outputs.named)
    for (size_t i = 0; i < outputs.values.size(); ++i)
      outputs.names.push_back(outputs.values.size() == 1 ? "output" : "output" + std::to_string(i));
  DS_TRY(check_names(outputs.names, "output"));
  return outputs;
}

Status write_loss(Builder& builder, const LossFunction& loss, const ModelOutputs& outputs, const BatchValues& values) {
  Scope scope(builder, "loss");
  const std::vector<LossTerm> terms = loss(outputs, values);
  DS_TRY(builder.status());
  if (terms.empty()) return invalid("the loss has no terms");
  std::vector<std::string> names;
  Expr total;
  for (const LossTerm& term : terms) {
    const std::string which = terms.size() == 1 ? "the loss" : "the loss's term '" + term.name + "'";
    if (term.value.rank() != 0 || !is_float(term.value.dtype()))
      return invalid("{} must be a float scalar, got {}; reduce it with mean or sum", which,
                     to_string(term.value.type()));
    const Expr weighted = term.weight == 1 ? term.value : term.value * term.weight;
    total = total.defined() ? total + weighted : weighted;
    names.push_back(term.name);
  }
  if (terms.size() > 1) DS_TRY(check_names(names, "term of the loss"));
  builder.output(kLoss, total);
  if (terms.size() > 1)
    for (const LossTerm& term : terms) builder.output(kLossTerms + term.name, term.value);
  return {};
}

Result<Graph> forward_graph(nn::Module& model, const BatchType& batch, const LossFunction* loss, bool training) {
  Builder builder(ops::registry());
  BatchValues values;
  for (const BatchEntry& e : batch) values[e.name] = builder.input(nn::input_name(model, e.name), e.type);
  nn::Trace trace(builder, model, training);
  DS_ASSIGN(const ModelOutputs outputs, call_model(trace, model, batch, values));
  if (loss != nullptr) DS_TRY(write_loss(builder, *loss, outputs, values));
  DS_TRY(builder.status());
  for (size_t i = 0; i < outputs.values.size(); ++i) builder.output(kOutputs + outputs.names[i], outputs.values[i]);
  trace.finish();
  return builder.finish();
}

}  // namespace

std::vector<std::pair<std::string, size_t>> outputs_after(const Graph& graph, std::string_view prefix) {
  std::vector<std::pair<std::string, size_t>> out;
  for (size_t i = 0; i < graph.outputs().size(); ++i)
    if (const std::string& name = graph.outputs()[i].name; name.starts_with(prefix))
      out.emplace_back(name.substr(prefix.size()), i);
  return out;
}

Result<std::vector<int64_t>> input_order(const nn::Module& model, const BatchType& batch) {
  std::vector<int64_t> given, order;
  std::vector<std::string> names;
  for (size_t i = 0; i < batch.size(); ++i)
    if (batch[i].role == Role::kInput) {
      given.push_back(static_cast<int64_t>(i));
      names.push_back(batch[i].name);
    }
  if (given.empty()) return invalid("the batch has no input for the model");
  const std::vector<nn::InputName> wanted = model.input_names();
  const auto required = static_cast<size_t>(
      std::count_if(wanted.begin(), wanted.end(), [](const nn::InputName& n) { return n.required; }));
  if (wanted.empty() || (given.size() == 1 && required == 1 && wanted[0].required)) return given;
  std::vector<std::string> known;
  for (const nn::InputName& w : wanted) {
    known.push_back(w.name);
    const auto at = std::find(names.begin(), names.end(), w.name);
    order.push_back(at == names.end() ? -1 : given[static_cast<size_t>(at - names.begin())]);
  }
  for (const std::string& name : names)
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      const std::string near = nearest(name, known);
      return invalid("the model has no input '{}'; {}", name,
                     near.empty() ? "it takes: " + join(known, ", ") : "did you mean '" + near + "'?");
    }
  for (size_t i = 0; i < wanted.size(); ++i)
    if (wanted[i].required && order[i] < 0)
      return invalid("the model's input '{}' is missing in the batch, which has: {}", wanted[i].name,
                     join(names, ", "));
  return order;
}

Result<Graph> ForwardTraces::get(nn::Module& model, const BatchType& batch, const LossFunction* loss, bool training) {
  if (structure_.update(model))
    for (auto& [key, traces] : traces_) traces.clear();
  std::string key = fmt::format("{} {}", training, loss != nullptr);
  std::vector<TensorType> types;
  for (const BatchEntry& e : batch) {
    key += fmt::format("{}{}", e.role == Role::kInput ? " <" : " >", e.name);
    types.push_back(e.type);
  }
  return traces_[key].get(types, [&] { return forward_graph(model, batch, loss, training); });
}

int64_t ForwardTraces::count() const {
  int64_t count = 0;
  for (const auto& [key, traces] : traces_) count += traces.count();
  return count;
}

Result<Graph> evaluation_graph(nn::Module& model, const BatchType& batch, const LossFunction* loss,
                               ForwardTraces* traces) {
  return traces != nullptr ? traces->get(model, batch, loss, false) : forward_graph(model, batch, loss, false);
}

}  // namespace deepseek::train
