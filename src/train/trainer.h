// Trains a module on data: batches, programs, schedule, validation, checkpoints, early stopping, resume.
// Invariant: what a run computes depends on its options, data and initial weights only (with train.precision auto, also
// on a measurement when it starts, which its checkpoints keep); an interrupted and resumed run equals an uninterrupted
// one bit for bit on the same kind of machine. Test: tests/train/trainer_test.cc
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "explain/profile_report.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/model_export.h"
#include "train/numerics.h"
#include "train/run_options.h"
#include "train/state_store.h"
#include "train/step.h"

namespace deepseek::train {

// After each update.
struct StepReport {
  int64_t step, first, total;         // updates done, where this call began, of all
  int64_t samples;                    // trained on in this call
  std::function<std::string()> text;  // epoch, loss, metrics
};

struct Hooks {
  std::function<void(const std::string&)> message = [](const std::string&) {};               // lines for the user
  std::function<bool(const StepReport&)> progress = [](const StepReport&) { return true; };  // false: save and stop
  // After each epoch, with its monitored value; false: stop, as by progress.
  std::function<Result<bool>(const EpochRecord&, double)> epoch = [](const EpochRecord&, double) { return true; };
};

struct FitResult {
  std::vector<EpochRecord> history;
  bool interrupted = false;
  bool stopped_early = false;
};

class Trainer {
 public:
  // `loss` replaces options.loss where given; metrics then default to those of its targets' types that fit.
  Trainer(nn::ModulePtr model, TrainerOptions options, LossFunction loss = {});

  // What config.yaml says; by default the options.
  void set_config(std::string yaml) { config_ = std::move(yaml); }

  // Sees the passes of steps that are compiled from now on.
  void observe_passes(passes::PassObserver observe) { observe_ = std::move(observe); }

  // Trains until options.train.epochs. In the folder options.train.output (none where empty) it keeps config.yaml,
  // log.txt, history.csv, TensorBoard events, last.safetensors (everything needed to resume) and best.safetensors (the
  // model's tensors by name), and at the end model.dsk, the model whole. `resume` continues from last.safetensors. Without validation data the training values are
  // monitored. At the end the model holds the best epoch's weights.
  // `validation`: nullptr for none.
  Result<FitResult> fit(const data::DatasetPtr& train, const data::DatasetPtr& validation, bool resume,
                        const Hooks& hooks);

  // What options.train.monitor names; where it is auto, for this data.
  Result<std::string> monitor_for(const data::DatasetPtr& dataset);

  // Loss and metrics of the model as it is.
  Result<Evaluation> evaluate(const data::DatasetPtr& dataset);
  // Outputs [N, ...] by name for inputs f32 or i64 [N, ...].
  Result<data::Batch> predict(const data::Batch& inputs);

  // The compiled step for a batch like the first `train` has.
  Result<std::shared_ptr<const runtime::Program>> step_program(const data::DatasetPtr& train);

  // The model as it is, with what the data of fit() say of inputs and classes, as one file for infer::Session and
  // `deepseek predict`. Errors: kInvalidArgument before fit(); those of export_model() and infer::save_model().
  Status save(const std::string& path);

  // Times the step on batches as fit() makes them, one update per batch, on a copy of the state: the model stays as
  // it is.
  Result<explain::StepProfile> profile(const data::DatasetPtr& train, const explain::ProfileOptions& options);

  const nn::ModulePtr& model() const { return model_; }
  const TrainerOptions& options() const { return options_; }

 private:
  struct Fit;
  // Opens the device that the options name.
  Result<runtime::BackendPtr> backend();
  Result<StateStore*> state();
  static constexpr int64_t kEvaluationBatch = 256;
  Result<data::LoaderOptions> loader_options() const;
  // The data set with labels that do not count: its own, else that of the loss.
  Result<data::DatasetPtr> with_ignored(const data::DatasetPtr& dataset) const;
  Result<LossFunction> loss_for(const data::Dataset& dataset) const;
  Status save(const std::string& path, const std::map<std::string, graph::Tensor>& weights) const;
  // What `dataset`'s targets are compared with, of a graph with the model's outputs. With a loss of one's own and metrics
  // that were not asked for, only what can be compared.
  Result<MetricSet> metrics_for(const data::Dataset& dataset, const graph::Graph& graph,
                                const data::BatchType& batch) const;
  Evaluator::MakeMetrics make_metrics(const data::Dataset& dataset) const;
  // The monitored value among these metrics.
  Result<std::string> monitor_among(const std::vector<std::string>& metrics) const;
  // A batch like those of training, and its type.
  Result<data::Batch> first_batch(const data::DatasetPtr& train, data::BatchType& type) const;
  // Sets precision_, unless it is known. Returns what to tell the user.
  Result<std::string> resolve_precision(const LossFunction& loss, const data::BatchType& type,
                                        const data::Batch& batch);
  Result<std::shared_ptr<const runtime::Program>> program(const data::BatchType& batch, const LossFunction& loss,
                                                          StepKind kind);
  // The step's graph as with_counts() makes it, which leaves the state as it is.
  Result<std::shared_ptr<const runtime::Program>> counting_program(const data::BatchType& batch,
                                                                   const LossFunction& loss, StepKind kind,
                                                                   const std::vector<CountedValue>*& values);

  nn::ModulePtr model_;
  TrainerOptions options_;
  LossFunction custom_loss_;
  std::string config_;
  passes::PassObserver observe_;
  runtime::BackendPtr backend_;      // once opened
  std::optional<StateStore> state_;  // on it
  std::optional<DType> precision_;   // of the steps, once resolved
  Evaluator evaluator_;
  runtime::CacheView<> programs_;  // by batch types, kind, precision, and what the model is
  nn::Structure structure_;
  ForwardTraces traces_;
  std::optional<DataSummary> trained_on_;
  std::map<std::string, std::vector<CountedValue>> counted_;  // by the keys of counting programs
};

}  // namespace deepseek::train
