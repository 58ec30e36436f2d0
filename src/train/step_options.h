// From a run's options to those of its step and of its compilation. Test: tests/train/precision_test.cc,
// tests/python/test_memory_limit.py
#pragma once

#include "runtime/backend.h"
#include "train/run_options.h"
#include "train/step.h"

namespace deepseek::train {

// Of the option train.precision; kF32 for "auto".
DType precision_of(const TrainOptions& options);
// How the run's programs are compiled for the device, within the run's budget of its memory.
Result<runtime::CompileOptions> compile_options(const TrainerOptions& options, const runtime::Backend& backend);
// The options of a step in that precision.
StepOptions step_options(const TrainerOptions& options, const LossFunction& loss, DType precision);

}  // namespace deepseek::train
