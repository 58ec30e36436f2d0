#include "train/precision.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "base/memory.h"

namespace deepseek::train {

using graph::Tensor;

namespace {

constexpr int kRuns = 4;             // after a first one, which fills caches
constexpr double kWorthwhile = 0.9;  // less gain than this does not pay for the rounding

// The best time of a few steps. All states are copies, so nothing is learned.
Result<double> step_seconds(const TrainerOptions& options, nn::Module& model, const StateStore& state,
                            const LossFunction& loss, const Tensor& x, const Tensor& y, DType precision) {
  DS_ASSIGN(const graph::Graph graph,
            training_graph(model, x.type(), y.type(), step_options(options, loss, precision)));
  DS_ASSIGN(const runtime::CompileOptions how, compile_options(options));
  DS_ASSIGN(const auto program, backends::cpu::CpuBackend().compile(graph, how));
  StateStore copy = state.clone();
  copy.prepare(program->graph());
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kRuns; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    DS_TRY(copy.run(*program, {{"x", x},
                               {"y", y},
                               {kLearningRate, Tensor::scalar(DType::kF32, 0)},
                               {kStepNumber, Tensor::scalar(DType::kF32, i + 1)}})
               .status());
    if (i > 0) best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

DType precision_of(const TrainOptions& options) {
  if (options.precision == "bfloat16") return DType::kBF16;
  return options.precision == "float16" ? DType::kF16 : DType::kF32;
}

Result<size_t> MemoryOptions::budget(size_t machine) const {
  Result<double> free = parse_share(reserve);
  if (!free.ok()) return std::move(free).status().note("in memory.reserve");
  const auto most = static_cast<size_t>(static_cast<double>(machine) * (1 - *free));
  if (limit == "auto") return most;
  Result<size_t> wanted = parse_bytes(limit);
  if (!wanted.ok()) return std::move(wanted).status().note("in memory.limit");
  return std::min(*wanted, most);
}

Result<runtime::CompileOptions> compile_options(const TrainerOptions& options) {
  runtime::CompileOptions result;
  result.measure_kernels = options.train.kernels == "measured";
  DS_ASSIGN(result.memory_limit, options.memory.budget(backends::cpu::CpuBackend().memory_bytes()));
  return result;
}

StepOptions step_options(const TrainerOptions& options, const LossFunction& loss, DType precision) {
  const RunOptimizerOptions& o = options.optimizer;
  const bool scaled =
      options.train.loss_scaling == "dynamic" || (options.train.loss_scaling == "auto" && precision == DType::kF16);
  return {.loss = loss,
          .optimizer = o,
          .clip_norm = o.clip_norm,
          .clip_value = o.clip_value,
          .ema_decay = options.train.ema_decay,
          .precision = precision,
          .loss_scale_interval = scaled ? options.train.loss_scale_interval : 0};
}

Result<PrecisionChoice> choose_precision(const TrainerOptions& options, nn::Module& model, const StateStore& state,
                                         const LossFunction& loss, const Tensor& x, const Tensor& y) {
  if (options.train.precision != "auto") return PrecisionChoice{precision_of(options.train), ""};
  if (const std::string isa = backends::cpu::isa_name(); isa != "avx512_bf16")
    return PrecisionChoice{DType::kF32, fmt::format("precision float32: the CPU ({}) has no bf16 instructions", isa)};
  DS_ASSIGN(const double wide, step_seconds(options, model, state, loss, x, y, DType::kF32));
  DS_ASSIGN(const double low, step_seconds(options, model, state, loss, x, y, DType::kBF16));
  const bool faster = low < kWorthwhile * wide;
  return PrecisionChoice{faster ? DType::kBF16 : DType::kF32,
                         fmt::format("precision {}: a step takes {:.1f} ms in bfloat16, {:.1f} ms in float32",
                                     faster ? "bfloat16" : "float32", 1e3 * low, 1e3 * wide)};
}

}  // namespace deepseek::train
