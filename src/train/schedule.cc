#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace deepseek::train {

namespace {

// From a to b along half a cosine, t in [0, 1].
double cosine(double a, double b, double t) {
  return b + (a - b) * 0.5 * (1 + std::cos(std::numbers::pi * std::clamp(t, 0.0, 1.0)));
}

}  // namespace

double schedule_factor(const ScheduleOptions& o, int64_t step, int64_t total, int64_t steps_per_epoch) {
  const double position = static_cast<double>(step), length = static_cast<double>(std::max<int64_t>(total, 1));
  if (o.name == "one_cycle") {
    const double peak = 0.3 * length - 1;  // below 0 for up to three steps, which only fall
    return position < peak ? cosine(1.0 / 25, 1, position / peak)
                           : cosine(1, o.final_factor, (position - peak) / (length - 1 - peak));
  }
  const double warm = std::floor(o.warmup * length);
  if (position < warm) return (position + 1) / warm;
  if (o.name == "step")
    return std::pow(o.gamma, static_cast<double>(step / std::max<int64_t>(steps_per_epoch, 1) / o.step_epochs));
  if (o.name == "cosine") return cosine(1, o.final_factor, (position - warm) / std::max(1.0, length - warm));
  return 1;
}

void Plateau::epoch(const ScheduleOptions& options, bool better) {
  if (options.name != "plateau") return;
  bad_epochs = better ? 0 : bad_epochs + 1;
  if (bad_epochs <= options.patience) return;
  factor = std::max(factor * options.gamma, options.final_factor);
  bad_epochs = 0;
}

}  // namespace deepseek::train
