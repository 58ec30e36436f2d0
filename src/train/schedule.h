// Learning rate schedules: a factor on the peak rate, a pure function of the step, so that a resumed run continues
// exactly. Test: tests/train/trainer_test.cc
#pragma once

#include <string>

#include "base/options.h"

namespace deepseek::train {

struct ScheduleOptions {
  std::string name = "cosine";
  double warmup = 0.0;  // share of all steps with a linear rise from 0
  int64_t step_epochs = 30;
  double gamma = 0.1;
  double final_factor = 0.0;
  int64_t patience = 2;
  void describe(OptionTable& t) {
    t.field("name", name,
            {.doc = "shape after the warm-up", .choices = {"constant", "step", "cosine", "one_cycle", "plateau"}});
    t.field("warmup", warmup, {.doc = "share of all steps that rise linearly from 0", .min = 0, .max = 1});
    t.field("step_epochs", step_epochs, {.doc = "step: epochs between drops", .min = 1});
    t.field("gamma", gamma, {.doc = "step, plateau: factor of a drop", .min = 0, .max = 1});
    t.field("final_factor", final_factor,
            {.doc = "cosine, one_cycle: factor at the end; plateau: least factor", .min = 0, .max = 1});
    t.field("patience", patience, {.doc = "plateau: epochs without a better monitored value before a drop", .min = 0});
  }
};

// Factor of step `step` (from 0) of `total`, with `steps_per_epoch` in an epoch. one_cycle rises over the first 30 %
// from 1/25 by a cosine and falls by a cosine to final_factor, which the last step has (Smith and Topin, 2017, with
// the steps of torch.optim.lr_scheduler.OneCycleLR); it ignores warmup. plateau is 1 here: its drops depend on what
// validation finds, see Plateau.
double schedule_factor(const ScheduleOptions& options, int64_t step, int64_t total, int64_t steps_per_epoch);

// Drops by `gamma` once `patience` epochs have not been better, as torch.optim.lr_scheduler.ReduceLROnPlateau does.
// Under other schedules nothing drops: factor stays 1.
struct Plateau {
  double factor = 1;
  int64_t bad_epochs = 0;
  void epoch(const ScheduleOptions& options, bool better);
};

}  // namespace deepseek::train
