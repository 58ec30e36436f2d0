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

Result<data::DatasetPtr> Trainer::with_ignored(const data::DatasetPtr& dataset) const {
  if (custom_loss_) return dataset;
  const auto& params = options_.loss.params;
  std::vector<data::Field> fields = dataset->fields();
  for (data::Field& f : fields) {
    if (!f.is_classes()) continue;
    const std::optional<int64_t> ignored = ignored_label(resolve_loss(options_.loss.name, DType::kI64), params);
    if (f.ignored && ignored && *f.ignored != *ignored && params.contains("ignore_index"))
      return invalid("loss.ignore_index is {}, the data's is {}; give one of them", *ignored, *f.ignored);
    if (!f.ignored) f.ignored = ignored;
  }
  return data::DatasetView::with_fields(dataset, std::move(fields));
}

Result<LossFunction> Trainer::loss_for(const data::Dataset& dataset) const {
  if (custom_loss_) return custom_loss_;
  std::vector<data::Field> targets;
  for (const data::Field* f : dataset.targets()) targets.push_back(*f);
  return loss_of_targets(options_.loss.name, options_.loss.params, targets);
}

Result<MetricSet> Trainer::metrics_for(const data::Dataset& dataset, const graph::Graph& graph,
                                       const data::BatchType& batch) const {
  std::map<std::string, TensorType> outputs, targets;
  std::vector<std::string> output_names;
  for (const auto& [name, index] : outputs_after(graph, kOutputs)) {
    outputs[name] = graph.type(graph.outputs()[index].value);
    output_names.push_back(name);
  }
  for (const data::BatchEntry& e : batch)
    if (e.role == data::Role::kTarget) targets[e.name] = e.type;
  std::vector<Comparison> comparisons;
  for (const data::Field* f : dataset.targets()) {
    const Task task = custom_loss_ ? (f->is_classes() ? Task::kMulticlass : Task::kRegression)
                                   : task_of(resolve_loss(options_.loss.name, f->sample.dtype));
    const std::vector<std::string> own =
        targets.size() == 1 ? output_names : std::vector<std::string>{outputs.contains(f->name) ? f->name : ""};
    const Result<std::vector<Pairing>> pair = pair_targets(own, {f->name});
    if (!pair.ok() || !outputs.contains((*pair)[0].output)) continue;
    const Comparison c{(*pair)[0].output, f->name, task, f->ignored};
    if (custom_loss_ && options_.train.metrics.empty() && !c.fits(outputs.at(c.output), targets.at(c.target))) continue;
    comparisons.push_back(c);
  }
  return MetricSet::create(options_.train.metrics, comparisons);
}

Evaluator::MakeMetrics Trainer::make_metrics(const data::Dataset& dataset) const {
  return [this, &dataset](const graph::Graph& graph, const data::BatchType& batch) {
    return metrics_for(dataset, graph, batch);
  };
}

Result<std::string> Trainer::monitor_among(const std::vector<std::string>& metrics) const {
  const std::string& monitor = options_.train.monitor;
  if (monitor == "auto") return metrics.empty() ? std::string(kLoss) : metrics[0];
  if (monitor != kLoss && std::find(metrics.begin(), metrics.end(), monitor) == metrics.end())
    return invalid("train.monitor: '{}' is neither loss nor one of train.metrics ({})", monitor, join(metrics, ", "));
  return monitor;
}

Result<data::Batch> Trainer::first_batch(const data::DatasetPtr& train, data::BatchType& type) const {
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  loading.batch_size = std::min(loading.batch_size, train->size());
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, loading));
  DS_ASSIGN(data::Batch batch, loader.batch(0, 0));
  DS_ASSIGN(type, train->type_of(batch));
  return batch;
}

Result<std::string> Trainer::monitor_for(const data::DatasetPtr& data) {
  DS_ASSIGN(const data::DatasetPtr train, with_ignored(data));
  DS_ASSIGN(const LossFunction loss, loss_for(*train));
  data::BatchType type;
  DS_TRY(first_batch(train, type).status());
  DS_ASSIGN(const graph::Graph forward, traces_.get(*model_, type, &loss, true));
  DS_ASSIGN(const MetricSet metrics, metrics_for(*train, forward, type));
  return monitor_among(metrics.names());
}

Result<std::shared_ptr<const runtime::Program>> Trainer::program(const data::BatchType& batch, const LossFunction& loss,
                                                                 StepKind kind) {
  const DType precision = precision_.value_or(precision_of(options_.train));
  DS_ASSIGN(const runtime::BackendPtr device, backend());
  DS_ASSIGN(StateStore * state, this->state());
  if (structure_.update(*model_)) state->follow(*model_);
  const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
    StepOptions step = step_options(options_, loss, precision);
    step.observe = observe_;
    DS_ASSIGN(const graph::Graph graph, training_graph(*model_, batch, step, kind, &traces_));
    DS_ASSIGN(runtime::CompileOptions how, compile_options(options_, *device));
    how.observe = observe_;
    return runtime::ModuleCache::shared().get(*device, graph, how);
  };
  const std::string types =
      fmt::format("{} {} {} ", data::to_string(batch), static_cast<int>(kind), to_string(precision));
  DS_ASSIGN(auto program, programs_.get(types + structure_.key(), compile));
  DS_TRY(state->prepare(program->graph()));
  return program;
}

Result<std::shared_ptr<const runtime::Program>> Trainer::counting_program(const data::BatchType& batch,
                                                                          const LossFunction& loss, StepKind kind,
                                                                          const std::vector<CountedValue>*& values) {
  if (structure_.update(*model_)) state_->follow(*model_);
  const std::string key =
      fmt::format("counting {} {} ", data::to_string(batch), static_cast<int>(kind)) + structure_.key();
  const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
    DS_ASSIGN(const graph::Graph graph,
              training_graph(*model_, batch, step_options(options_, loss, *precision_), kind, &traces_));
    DS_ASSIGN(Counted counted, with_counts(graph));
    counted_[key] = std::move(counted.values);
    return runtime::ModuleCache::shared().get(*backend_, counted.graph, {});
  };
  DS_ASSIGN(auto program, programs_.get(key, compile));
  values = &counted_.at(key);
  return program;
}

Result<std::string> Trainer::resolve_precision(const LossFunction& loss, const data::BatchType& type,
                                               const data::Batch& batch) {
  if (precision_) return std::string();
  DS_ASSIGN(StateStore * state, this->state());
  DS_ASSIGN(PrecisionChoice choice, choose_precision(options_, backend_, *model_, *state, loss, type, batch));
  precision_ = choice.precision;
  return std::move(choice.reason);
}

Result<std::shared_ptr<const runtime::Program>> Trainer::step_program(const data::DatasetPtr& data) {
  DS_ASSIGN(const data::DatasetPtr train, with_ignored(data));
  DS_ASSIGN(const LossFunction loss, loss_for(*train));
  data::BatchType type;
  DS_ASSIGN(const data::Batch batch, first_batch(train, type));
  DS_TRY(resolve_precision(loss, type, batch).status());
  return program(type, loss, StepKind::kUpdate);
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

Result<explain::StepProfile> Trainer::profile(const data::DatasetPtr& data, const explain::ProfileOptions& options) {
  if (options_.train.threads > 0) DS_TRY(set_num_threads(options_.train.threads));
  DS_ASSIGN(const data::DatasetPtr train, with_ignored(data));
  DS_ASSIGN(const std::shared_ptr<const runtime::Program> program, step_program(train));
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  loading.batch_size = std::min(loading.batch_size, train->size());
  loading.drop_last = true;  // the program takes whole batches
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, loading));
  DS_ASSIGN(StateStore state, state_->clone());
  std::unique_ptr<data::BatchStream> stream;
  int64_t epoch = 0, done = 0;
  data::Batch batch;
  const auto next = [&]() -> Status {
    while (true) {
      if (!stream) stream = std::make_unique<data::BatchStream>(loader, epoch);
      DS_ASSIGN(std::optional<data::Batch> more, stream->next());
      if (more) {
        batch = std::move(*more);
        return {};
      }
      stream.reset();
      ++epoch;
    }
  };
  const auto run = [&](runtime::Profile* profile) -> Status {
    batch[kLearningRate] = Tensor::scalar(DType::kF32, options_.optimizer.rate());
    batch[kStepNumber] = Tensor::scalar(DType::kF32, static_cast<double>(++done));
    return state.run(program, batch, false, profile).status();
  };
  DS_ASSIGN(explain::StepProfile profile, explain::profile_steps(*program, *backend_, {next, run}, options));
  profile.subject = fmt::format("a training step of {} samples", loading.batch_size);
  return profile;
}

Result<Evaluation> Trainer::evaluate(const data::DatasetPtr& data) {
  DS_ASSIGN(const data::DatasetPtr dataset, with_ignored(data));
  DS_TRY(dataset->validate());
  DS_ASSIGN(const LossFunction loss, loss_for(*dataset));
  DS_ASSIGN(StateStore * state, this->state());
  DS_TRY(state->upload());  // the model as it is: others may have written to it
  return evaluator_.evaluate(*backend_, dataset, kEvaluationBatch, loss, make_metrics(*dataset), *state,
                             Evaluator::Weights::kFrozen);
}

Status Trainer::save(const std::string& path) {
  DS_ASSIGN(StateStore * state, this->state());
  DS_TRY(state->download());
  return save(path, {});
}

Status Trainer::save(const std::string& path, const std::map<std::string, Tensor>& weights) const {
  if (!trained_on_) return invalid("the model has not been trained by this trainer; call fit() before it is saved");
  std::map<std::string, Task> tasks;
  for (const data::Field& f : trained_on_->fields)
    if (f.role == data::Role::kTarget && !custom_loss_)
      tasks[f.name] = task_of(resolve_loss(options_.loss.name, f.sample.dtype));
  DS_ASSIGN(const infer::ModelFile file,
            export_model(*model_, *trained_on_, weights, tasks,
                         config_.empty() ? std::map<std::string, std::string>()
                                         : std::map<std::string, std::string>{{"config", config_}}));
  return infer::save_model(path, file);
}

Result<data::Batch> Trainer::predict(const data::Batch& inputs) {
  DS_ASSIGN(StateStore * state, this->state());
  DS_TRY(state->upload());
  return evaluator_.predict(*backend_, inputs, kEvaluationBatch, *state);
}

}  // namespace deepseek::train
