#include "train/precision.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "train/step_options.h"

namespace deepseek::train {

using graph::Tensor;

namespace {

constexpr int kRuns = 4;             // after a first one, which fills caches
constexpr double kWorthwhile = 0.9;  // less gain than this does not pay for the rounding

// The best time of a few steps. All states are copies, so nothing is learned.
Result<double> step_seconds(const TrainerOptions& options, const runtime::Backend& backend, nn::Module& model,
                            StateStore& state, const LossFunction& loss, const data::BatchType& type,
                            const data::Batch& batch, DType precision) {
  DS_ASSIGN(const graph::Graph graph, training_graph(model, type, step_options(options, loss, precision)));
  DS_ASSIGN(const runtime::CompileOptions how, compile_options(options, backend));
  DS_ASSIGN(const auto program, backend.compile(graph, how));
  DS_ASSIGN(StateStore copy, state.clone());
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kRuns; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    data::Batch data = batch;
    data[kLearningRate] = Tensor::scalar(DType::kF32, 0);
    data[kStepNumber] = Tensor::scalar(DType::kF32, i + 1);
    DS_TRY(copy.run(program, data).status());
    if (i > 0) best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

Result<PrecisionChoice> choose_precision(const TrainerOptions& options, const runtime::BackendPtr& backend,
                                         nn::Module& model, StateStore& state, const LossFunction& loss,
                                         const data::BatchType& type, const data::Batch& batch) {
  if (options.train.precision != "auto") return PrecisionChoice{precision_of(options.train), ""};
  if (!backend->has_fast(DType::kBF16)) {
    std::string properties;
    for (const auto& [name, value] : backend->properties()) properties += fmt::format(", {} {}", name, value);
    return PrecisionChoice{DType::kF32, fmt::format("precision float32: the device ({}{}) has no bf16 instructions",
                                                    backend->name(), properties)};
  }
  DS_ASSIGN(const double wide, step_seconds(options, *backend, model, state, loss, type, batch, DType::kF32));
  DS_ASSIGN(const double low, step_seconds(options, *backend, model, state, loss, type, batch, DType::kBF16));
  const bool faster = low < kWorthwhile * wide;
  return PrecisionChoice{faster ? DType::kBF16 : DType::kF32,
                         fmt::format("precision {}: a step takes {:.1f} ms in bfloat16, {:.1f} ms in float32",
                                     faster ? "bfloat16" : "float32", 1e3 * low, 1e3 * wide)};
}

}  // namespace deepseek::train
