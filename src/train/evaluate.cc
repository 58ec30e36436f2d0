#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "data/loader.h"

namespace deepseek::train {

using graph::Tensor;

double Evaluation::value(const std::string& name) const {
  if (name == "loss") return loss;
  for (const auto& [metric, v] : metrics)
    if (metric == name) return v;
  return std::numeric_limits<double>::quiet_NaN();
}

Result<runtime::ModuleCache::Entry> Evaluator::program(const runtime::Backend& backend, const graph::TensorType& x,
                                                       const graph::TensorType* y, const LossFunction& loss,
                                                       StateStore& state) {
  if (structure_.update(*model_)) state.follow(*model_);
  const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
    DS_ASSIGN(const graph::Graph graph, evaluation_graph(*model_, x, y, loss, &traces_));
    return runtime::ModuleCache::shared().get(backend, graph, {});
  };
  const std::string types = to_string(x) + (y != nullptr ? " -> " + to_string(*y) : std::string());
  DS_ASSIGN(runtime::ModuleCache::Entry program, programs_.get(types + structure_.key(), compile));
  DS_TRY(state.prepare(program->graph()));
  return program;
}

Result<Evaluation> Evaluator::evaluate(const runtime::Backend& backend, const data::Dataset& dataset,
                                       int64_t batch_size, const LossFunction& loss,
                                       const std::vector<std::string>& metrics, Task task, StateStore& state,
                                       bool averaged) {
  DS_ASSIGN(Metrics totals, Metrics::create(metrics, task, dataset.ignored));
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(dataset, {.batch_size = batch_size}));
  data::BatchStream batches(loader, 0);
  Evaluation result;
  int64_t counted = 0;
  Tensor x, y;
  while (true) {
    DS_ASSIGN(const bool more, batches.next(x, y));
    if (!more) break;
    DS_ASSIGN(const auto program, this->program(backend, x.type(), &y.type(), loss, state));
    DS_ASSIGN(const std::vector<Tensor> out, state.run(program, {{"x", x}, {"y", y}}, averaged));
    // A mean over no target is none.
    if (const int64_t n = dataset.counted(y); n > 0) {
      result.loss += out[static_cast<size_t>(program->graph().find_output("loss"))].at(0) * static_cast<double>(n);
      counted += n;
    }
    DS_TRY(totals.add(out[static_cast<size_t>(program->graph().find_output("prediction"))], y));
  }
  result.loss /= static_cast<double>(counted);
  const std::vector<double> values = totals.values();
  for (size_t i = 0; i < values.size(); ++i) result.metrics.emplace_back(totals.names()[i], values[i]);
  result.classes = totals.classes();
  result.confusion = totals.confusion();
  return result;
}

Result<Tensor> Evaluator::predict(const runtime::Backend& backend, const Tensor& inputs, int64_t batch_size,
                                  StateStore& state) {
  if (inputs.dims().empty()) return invalid("predict: expected inputs [N, ...], got a scalar");
  const int64_t n = inputs.dims()[0];
  if (n == 0) return invalid("predict: no inputs were given");
  Tensor all;
  for (int64_t begin = 0; begin < n; begin += batch_size) {
    const Tensor x = inputs.rows(begin, std::min(begin + batch_size, n));
    DS_ASSIGN(const auto program, this->program(backend, x.type(), nullptr, {}, state));
    DS_ASSIGN(const std::vector<Tensor> out, state.run(program, {{"x", x}}));
    const Tensor& y = out[0];
    if (y.dims().empty() || y.dims()[0] != x.dims()[0])
      return invalid("predict: expected one prediction per input ({}), the model gives {}", x.dims()[0],
                     to_string(y.type()));
    if (!all.defined()) {
      graph::Dims dims = y.dims();
      dims[0] = n;
      all = Tensor(y.dtype(), dims);
    }
    std::memcpy(all.as<char>() + y.num_bytes() / static_cast<size_t>(y.dims()[0]) * static_cast<size_t>(begin),
                y.data(), y.num_bytes());
  }
  return all;
}

}  // namespace deepseek::train
