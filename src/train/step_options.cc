#include "train/step_options.h"

#include <algorithm>

#include "base/memory.h"

namespace deepseek::train {

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

Result<runtime::CompileOptions> compile_options(const TrainerOptions& options, const runtime::Backend& backend) {
  runtime::CompileOptions result;
  result.measure_kernels = options.train.kernels == "measured";
  DS_ASSIGN(result.memory_limit, options.memory.budget(backend.memory_bytes()));
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

}  // namespace deepseek::train
