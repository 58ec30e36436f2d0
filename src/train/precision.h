// Which element type a training step computes in. "auto" is f32, but for devices with bf16 instructions on which the very
// step measures at least 10 % faster in bf16. Test: tests/train/precision_test.cc
#pragma once

#include <string>

#include "train/run_options.h"
#include "train/state_store.h"

namespace deepseek::train {

struct PrecisionChoice {
  DType precision = DType::kF32;
  std::string reason;  // of "auto", for the user; else empty
};

// For "auto", trains a few steps in each precision on the batch and a copy of the state. What a run computes then
// depends on the measurement, so it is not the default, and a resumed run keeps what its checkpoint says.
Result<PrecisionChoice> choose_precision(const TrainerOptions& options, const runtime::BackendPtr& backend,
                                         nn::Module& model, StateStore& state, const LossFunction& loss,
                                         const data::BatchType& type, const data::Batch& batch);

}  // namespace deepseek::train
