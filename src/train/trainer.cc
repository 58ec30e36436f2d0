#include "train/trainer.h"

#include <algorithm>

#include "base/strings.h"
#include "base/threads.h"
#include "ops/registry.h"
#include "train/precision.h"
#include "train/step_options.h"

namespace deepseek::train {

using graph::Tensor;
using graph::TensorType;

Trainer::Trainer(nn::ModulePtr model, TrainerOptions options, LossFunction loss)
    : model_(std::move(model)), options_(std::move(options)), custom_loss_(std::move(loss)), evaluator_(model_) {}

Result<runtime::BackendPtr> Trainer::backend() {
  if (backend_ == nullptr) {
    Result<runtime::BackendPtr> opened = runtime::open_backend(options_.device);
    if (!opened.ok()) return std::move(opened).status().note("in device");
    backend_ = *opened;
    DS_ASSIGN(const size_t most, options_.memory.budget(backend_->memory_bytes()));
    backend_->set_memory_limit(most);  // of all programs of the process together
  }
  return backend_;
}

Result<StateStore*> Trainer::state() {
  DS_ASSIGN(const runtime::BackendPtr device, backend());
  if (!state_) state_.emplace(*model_, static_cast<uint64_t>(options_.train.seed), device);
  return &*state_;
}

Result<data::Dataset> Trainer::with_ignored(const data::Dataset& dataset) const {
  data::Dataset result = dataset;
  if (custom_loss_ || !dataset.targets.defined() || dataset.targets.dtype() != DType::kI64) return result;
  const auto& params = options_.loss.params;
  const std::optional<int64_t> ignored = ignored_label(resolve_loss(options_.loss.name, DType::kI64), params);
  if (dataset.ignored && ignored && *dataset.ignored != *ignored && params.contains("ignore_index"))
    return invalid("loss.ignore_index is {}, the data's is {}; give one of them", *ignored, *dataset.ignored);
  if (!dataset.ignored) result.ignored = ignored;
  return result;
}

Result<LossFunction> Trainer::loss_for(const data::Dataset& dataset) const {
  if (custom_loss_) return custom_loss_;
  const std::string name = resolve_loss(options_.loss.name, dataset.targets.dtype());
  std::map<std::string, std::string> params = options_.loss.params;
  if (dataset.ignored && ignored_label(name, {})) params.emplace("ignore_index", std::to_string(*dataset.ignored));
  return make_loss(name, params);
}

Task Trainer::task_for(const data::Dataset& dataset) const {
  if (custom_loss_) return dataset.is_classification() ? Task::kMulticlass : Task::kRegression;
  return task_of(resolve_loss(options_.loss.name, dataset.targets.dtype()));
}

std::vector<std::string> Trainer::metrics_for(const data::Dataset& dataset) const {
  return options_.train.metrics.empty() ? Metrics::defaults(task_for(dataset)) : options_.train.metrics;
}

std::string Trainer::monitor_for(const data::Dataset& dataset) const {
  return options_.train.monitor == "auto" ? metrics_for(dataset)[0] : options_.train.monitor;
}

Result<std::shared_ptr<const runtime::Program>> Trainer::program(const TensorType& x, const TensorType& y,
                                                                 const LossFunction& loss, StepKind kind) {
  const DType precision = precision_.value_or(precision_of(options_.train));
  DS_ASSIGN(const runtime::BackendPtr device, backend());
  DS_ASSIGN(StateStore * state, this->state());
  if (structure_.update(*model_)) state->follow(*model_);
  const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
    StepOptions step = step_options(options_, loss, precision);
    step.observe = observe_;
    DS_ASSIGN(const graph::Graph graph, training_graph(*model_, x, y, step, kind, &traces_));
    DS_ASSIGN(runtime::CompileOptions how, compile_options(options_, *device));
    how.observe = observe_;
    return runtime::ModuleCache::shared().get(*device, graph, how);
  };
  const std::string types =
      fmt::format("{} {} {} {} ", to_string(x), to_string(y), static_cast<int>(kind), to_string(precision));
  DS_ASSIGN(auto program, programs_.get(types + structure_.key(), compile));
  DS_TRY(state->prepare(program->graph()));
  return program;
}

Result<std::string> Trainer::resolve_precision(const LossFunction& loss, const Tensor& x, const Tensor& y) {
  if (precision_) return std::string();
  DS_ASSIGN(StateStore * state, this->state());
  DS_ASSIGN(PrecisionChoice choice, choose_precision(options_, backend_, *model_, *state, loss, x, y));
  precision_ = choice.precision;
  return std::move(choice.reason);
}

Result<std::shared_ptr<const runtime::Program>> Trainer::step_program(const data::Dataset& data) {
  DS_ASSIGN(const data::Dataset train, with_ignored(data));
  DS_TRY(train.validate());
  DS_ASSIGN(const LossFunction loss, loss_for(train));
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  loading.batch_size = std::min(loading.batch_size, train.size());
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, loading));
  Tensor x, y;
  DS_TRY(loader.batch(0, 0, x, y));
  DS_TRY(resolve_precision(loss, x, y).status());
  return program(x.type(), y.type(), loss, StepKind::kUpdate);
}

Result<data::LoaderOptions> Trainer::loader_options() const {
  std::shared_ptr<const data::ImageAugmenter> augmenter;
  if (const AugmentationOptions& a = options_.augmentation; !a.methods.empty()) {
    std::vector<double> probabilities(a.probabilities.empty() ? a.methods.size() : 0, 0.5);
    for (const std::string& text : a.probabilities) {
      const auto number = parse_number(text);
      if (!number) return invalid("augmentation.probabilities: '{}' is no number", text);
      probabilities.push_back(*number);
    }
    Result<data::ImageAugmenter> made = data::ImageAugmenter::create(
        {a.methods, std::move(probabilities), a.alpha, static_cast<uint64_t>(options_.train.seed), a.crop_padding,
         a.cutout_size, a.rotation, a.color, a.randaugment_ops, a.randaugment_magnitude});
    if (!made.ok()) return invalid("augmentation.{}", made.status().message());
    augmenter = std::make_shared<const data::ImageAugmenter>(std::move(made).value());
  }
  return data::LoaderOptions{.batch_size = options_.train.batch_size,
                             .shuffle = true,
                             .seed = static_cast<uint64_t>(options_.train.seed),
                             .drop_last = options_.train.drop_last,
                             .augmenter = std::move(augmenter)};
}

Result<explain::StepProfile> Trainer::profile(const data::Dataset& data, const explain::ProfileOptions& options) {
  if (options_.train.threads > 0) DS_TRY(set_num_threads(options_.train.threads));
  DS_ASSIGN(const data::Dataset train, with_ignored(data));
  DS_ASSIGN(const std::shared_ptr<const runtime::Program> program, step_program(train));
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  loading.batch_size = std::min(loading.batch_size, train.size());
  loading.drop_last = true;  // the program takes whole batches
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, loading));
  DS_ASSIGN(StateStore state, state_->clone());
  std::unique_ptr<data::BatchStream> stream;
  int64_t epoch = 0, done = 0;
  Tensor x, y;
  const auto next = [&]() -> Status {
    while (true) {
      if (!stream) stream = std::make_unique<data::BatchStream>(loader, epoch);
      DS_ASSIGN(const bool more, stream->next(x, y));
      if (more) return {};
      stream.reset();
      ++epoch;
    }
  };
  const auto run = [&](runtime::Profile* profile) -> Status {
    return state
        .run(program,
             {{"x", x},
              {"y", y},
              {kLearningRate, Tensor::scalar(DType::kF32, options_.optimizer.rate())},
              {kStepNumber, Tensor::scalar(DType::kF32, static_cast<double>(++done))}},
             false, profile)
        .status();
  };
  DS_ASSIGN(explain::StepProfile profile, explain::profile_steps(*program, *backend_, {next, run}, options));
  profile.subject = fmt::format("a training step of {} samples", loading.batch_size);
  return profile;
}

Result<Evaluation> Trainer::evaluate(const data::Dataset& data) {
  DS_ASSIGN(const data::Dataset dataset, with_ignored(data));
  DS_TRY(dataset.validate());
  DS_ASSIGN(const LossFunction loss, loss_for(dataset));
  DS_ASSIGN(StateStore * state, this->state());
  DS_TRY(state->upload());  // the model as it is: others may have written to it
  return evaluator_.evaluate(*backend_, dataset, kEvaluationBatch, loss, metrics_for(dataset), task_for(dataset),
                             *state);
}

Result<Tensor> Trainer::predict(const Tensor& inputs) {
  DS_ASSIGN(StateStore * state, this->state());
  DS_TRY(state->upload());
  return evaluator_.predict(*backend_, inputs, kEvaluationBatch, *state);
}

}  // namespace deepseek::train
