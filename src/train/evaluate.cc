#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "data/loader.h"

namespace deepseek::train {

using graph::Tensor;

double Evaluation::value(const std::string& name) const {
  if (name == kLoss) return loss;
  for (const auto* part : {&terms, &metrics})
    for (const auto& [known, v] : *part)
      if (known == name) return v;
  return std::numeric_limits<double>::quiet_NaN();
}

std::map<std::string, Tensor> named_outputs(const graph::Graph& program, const std::vector<Tensor>& out) {
  std::map<std::string, Tensor> named;
  for (const auto& [name, index] : outputs_after(program, kOutputs)) named.emplace(name, out[index]);
  return named;
}

struct Evaluator::Pass {
  Evaluator& self;
  const runtime::Backend& backend;
  const LossFunction* loss;
  StateStore& state;
  Weights weights;
  std::map<std::string, runtime::ModuleCache::Entry> frozen = {};  // by the batch's types

  Result<runtime::ModuleCache::Entry> program(const data::BatchType& batch) {
    if (self.structure_.update(*self.model_)) state.follow(*self.model_);
    const std::string types = fmt::format("{} {} ", loss != nullptr, data::to_string(batch));
    if (weights == Weights::kFrozen) {
      runtime::ModuleCache::Entry& known = frozen[types];
      if (known != nullptr) return known;
      DS_ASSIGN(const graph::Graph graph, evaluation_graph(*self.model_, batch, loss, &self.traces_));
      DS_TRY(state.prepare(graph));
      runtime::CompileOptions how;
      for (const graph::Input& input : graph.inputs())
        if (input.kind == graph::InputKind::kState && input.name != nn::kRandomCounter)
          how.constants.emplace(input.name, state.tensors().at(input.name));
      DS_ASSIGN(runtime::ModuleCache::Got got, runtime::ModuleCache::shared().get(backend, graph, how));
      self.programs_.put("frozen " + types, std::move(got.slot));  // the last one of these types
      return known = std::move(got.program);
    }
    const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
      DS_ASSIGN(const graph::Graph graph, evaluation_graph(*self.model_, batch, loss, &self.traces_));
      return runtime::ModuleCache::shared().get(backend, graph, {});
    };
    DS_ASSIGN(runtime::ModuleCache::Entry found, self.programs_.get(types + self.structure_.key(), compile));
    DS_TRY(state.prepare(found->graph()));
    return found;
  }
  Result<std::vector<Tensor>> run(const runtime::ModuleCache::Entry& program, const data::Batch& batch) {
    return state.run(program, batch, weights == Weights::kAveraged);
  }
};

Result<Evaluation> Evaluator::evaluate(const runtime::Backend& backend, const data::DatasetPtr& dataset,
                                       int64_t batch_size, const LossFunction& loss, const MakeMetrics& make_metrics,
                                       StateStore& state, Weights weights) {
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(dataset, {.batch_size = batch_size}));
  data::BatchStream batches(loader, 0);
  Evaluation result;
  std::optional<MetricSet> metrics;
  Pass pass{*this, backend, &loss, state, weights};
  int64_t counted = 0;
  while (true) {
    DS_ASSIGN(const std::optional<data::Batch> batch, batches.next());
    if (!batch) break;
    DS_ASSIGN(const data::BatchType type, dataset->type_of(*batch));
    DS_ASSIGN(const auto program, pass.program(type));
    const graph::Graph& graph = program->graph();
    const auto terms = outputs_after(graph, kLossTerms);
    if (!metrics) {
      DS_ASSIGN(metrics, make_metrics(graph, type));
      for (const auto& [name, index] : terms) result.terms.emplace_back(kLossTerms + name, 0);
    }
    DS_ASSIGN(const std::vector<Tensor> out, pass.run(program, *batch));
    // A mean over no target is none.
    if (const int64_t n = dataset->counted(*batch); n > 0) {
      result.loss += out[static_cast<size_t>(graph.find_output(kLoss))].at(0) * static_cast<double>(n);
      for (size_t i = 0; i < terms.size(); ++i)
        result.terms[i].second += out[terms[i].second].at(0) * static_cast<double>(n);
      counted += n;
    }
    DS_TRY(metrics->add(named_outputs(graph, out), *batch));
  }
  result.loss /= static_cast<double>(counted);
  for (auto& [name, value] : result.terms) value /= static_cast<double>(counted);
  const std::vector<double> values = metrics->values();
  for (size_t i = 0; i < values.size(); ++i) result.metrics.emplace_back(metrics->names()[i], values[i]);
  result.confusions = metrics->confusions();
  return result;
}

Result<data::Batch> Evaluator::predict(const runtime::Backend& backend, const data::Batch& inputs, int64_t batch_size,
                                       StateStore& state) {
  int64_t n = -1;
  for (const auto& [name, input] : inputs) {
    if (input.dims().empty()) return invalid("predict: expected inputs [N, ...], got a scalar for '{}'", name);
    if (n >= 0 && input.dims()[0] != n)
      return invalid("predict: '{}' has {} samples, '{}' has {}", name, input.dims()[0], inputs.begin()->first, n);
    n = input.dims()[0];
  }
  if (n <= 0) return invalid("predict: no inputs were given");
  data::Batch all;
  Pass pass{*this, backend, nullptr, state, Weights::kFrozen};
  for (int64_t begin = 0; begin < n; begin += batch_size) {
    const int64_t end = std::min(begin + batch_size, n);
    data::Batch batch;
    data::BatchType type;
    for (const auto& [name, input] : inputs) {
      batch[name] = input.rows(begin, end);
      type.push_back({name, batch[name].type(), data::Role::kInput});
    }
    DS_ASSIGN(const auto program, pass.program(type));
    DS_ASSIGN(const std::vector<Tensor> out, pass.run(program, batch));
    for (const auto& [name, y] : named_outputs(program->graph(), out)) {
      if (y.dims().empty() || y.dims()[0] != end - begin)
        return invalid("predict: expected one prediction per input ({}), the model gives {} for '{}'", end - begin,
                       to_string(y.type()), name);
      Tensor& to = all[name];
      if (!to.defined()) {
        graph::Dims dims = y.dims();
        dims[0] = n;
        to = Tensor(y.dtype(), dims);
      }
      std::memcpy(to.as<char>() + y.num_bytes() / static_cast<size_t>(end - begin) * static_cast<size_t>(begin),
                  y.data(), y.num_bytes());
    }
  }
  return all;
}

}  // namespace deepseek::train
