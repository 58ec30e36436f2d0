#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "backends/cpu/cpu_backend.h"
#include "base/memory.h"
#include "base/strings.h"
#include "base/threads.h"
#include "io/atomic_file.h"
#include "io/event_file.h"
#include "ops/registry.h"
#include "train/precision.h"

namespace deepseek::train {

using graph::Tensor;
using graph::TensorType;

namespace {

constexpr int64_t kEvaluationBatch = 256;
constexpr int64_t kLogEvery = 20;  // updates between TensorBoard points

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Status write_text(const std::filesystem::path& path, const std::string& text) {
  return io::write_file_atomic(path.string(), std::as_bytes(std::span(text.data(), text.size())));
}

// An earlier run in the folder is moved to "<folder>.1", ".2", ...: no run is lost to another.
Status prepare_folder(const std::filesystem::path& folder, bool resume, const Hooks& hooks) {
  std::error_code error;
  if (!resume && std::filesystem::exists(folder / "last.safetensors", error)) {
    std::filesystem::path old;
    for (int i = 1; old.empty() || std::filesystem::exists(old, error); ++i)
      old = folder.string() + "." + std::to_string(i);
    std::filesystem::rename(folder, old, error);
    if (error)
      return make_error(ErrorCode::kIo, "train.output: cannot move the earlier run '{}' to '{}': {}", folder.string(),
                        old.string(), error.message());
    hooks.message(fmt::format("the earlier run in {} is now {}", folder.string(), old.string()));
  }
  std::filesystem::create_directories(folder, error);
  if (error)
    return make_error(ErrorCode::kIo, "train.output: cannot make the folder '{}': {}", folder.string(),
                      error.message());
  return {};
}

std::string values_text(const NamedValues& values) {
  std::string text;
  for (const auto& [name, value] : values) text += fmt::format("  {} {:.4f}", name, value);
  return text;
}

double find(const NamedValues& values, const std::string& name) {
  for (const auto& [key, value] : values)
    if (key == name) return value;
  return std::nan("");
}

NamedValues named(double loss, const std::vector<std::string>& names, const std::vector<double>& values) {
  NamedValues out{{"loss", loss}};
  for (size_t i = 0; i < names.size(); ++i) out.emplace_back(names[i], values[i]);
  return out;
}

}  // namespace

Trainer::Trainer(nn::ModulePtr model, TrainerOptions options, LossFunction loss)
    : model_(std::move(model)),
      options_(std::move(options)),
      custom_loss_(std::move(loss)),
      state_(*model_, static_cast<uint64_t>(options_.train.seed)),
      evaluator_(model_) {}

Result<LossFunction> Trainer::loss_for(const data::Dataset& dataset) {
  if (custom_loss_) return custom_loss_;
  return make_loss(resolve_loss(options_.loss.name, dataset.targets.dtype()), options_.loss.params);
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
  if (structure_.update(*model_)) state_.follow(*model_);
  const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
    const StepOptions step = step_options(options_, loss, precision);
    DS_ASSIGN(const graph::Graph graph, training_graph(*model_, x, y, step, kind, &traces_));
    DS_ASSIGN(const runtime::CompileOptions how, compile_options(options_));
    return runtime::ModuleCache::shared().get(backends::cpu::CpuBackend(), graph, how);
  };
  const std::string types =
      fmt::format("{} {} {} {} ", to_string(x), to_string(y), static_cast<int>(kind), to_string(precision));
  DS_ASSIGN(auto program, programs_.get(types + structure_.key(), compile));
  state_.prepare(program->graph());
  return program;
}

Result<std::string> Trainer::resolve_precision(const LossFunction& loss, const Tensor& x, const Tensor& y) {
  if (precision_) return std::string();
  DS_ASSIGN(PrecisionChoice choice, choose_precision(options_, *model_, state_, loss, x, y));
  precision_ = choice.precision;
  return std::move(choice.reason);
}

Result<std::shared_ptr<const runtime::Program>> Trainer::step_program(const data::Dataset& train) {
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
                             .augment = options_.train.augment,
                             .augmenter = std::move(augmenter)};
}

Result<runtime::StepProfile> Trainer::profile(const data::Dataset& train, const runtime::ProfileOptions& options) {
  if (options_.train.threads > 0) set_num_threads(static_cast<int>(options_.train.threads));
  DS_ASSIGN(const std::shared_ptr<const runtime::Program> program, step_program(train));
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  loading.batch_size = std::min(loading.batch_size, train.size());
  loading.drop_last = true;  // the program takes whole batches
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, loading));
  const StateStore state = state_.clone();
  const runtime::Program& step = *program;
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
        .run(step,
             {{"x", x},
              {"y", y},
              {"learning_rate", Tensor::scalar(DType::kF32, options_.optimizer.learning_rate)},
              {"step", Tensor::scalar(DType::kF32, static_cast<double>(++done))}},
             false, profile)
        .status();
  };
  DS_ASSIGN(runtime::StepProfile profile,
            runtime::profile_steps(step, backends::cpu::CpuBackend(), ops::registry(), {next, run}, options));
  profile.subject = fmt::format("a training step of {} samples", loading.batch_size);
  return profile;
}

Result<Evaluation> Trainer::evaluate(const data::Dataset& dataset) {
  DS_TRY(dataset.validate());
  DS_ASSIGN(const LossFunction loss, loss_for(dataset));
  return evaluator_.evaluate(dataset, kEvaluationBatch, loss, metrics_for(dataset), task_for(dataset), state_);
}

Result<Tensor> Trainer::predict(const Tensor& inputs) { return evaluator_.predict(inputs, kEvaluationBatch, state_); }

// One call of fit(): what its steps share.
struct Trainer::Fit {
  Trainer& self;
  const data::Dataset& train;
  const data::Dataset& validation;
  const Hooks& hooks;
  LossFunction loss;
  std::string monitor;
  std::vector<std::string> metric_names;
  std::filesystem::path folder;  // empty: nothing is written
  std::optional<Metrics> metrics;
  std::optional<io::EventFile> events;
  std::map<std::string, Tensor> best;  // the model's tensors at the best epoch
  Progress progress;
  int64_t batches = 0, updates_per_epoch = 0, total = 0, first = 0, samples = 0;
  double epoch_start = 0;
  double monitored = 0;              // of the last epoch
  double stepping = 0, waiting = 0;  // seconds of this epoch's updates so far, and of these without a batch

  const TrainOptions& options() const { return self.options_.train; }

  void say(const std::string& text) {
    hooks.message(text);
    if (!folder.empty()) std::ofstream(folder / "log.txt", std::ios::app) << text << "\n";
  }

  Status save() {
    if (folder.empty()) return {};
    progress.metrics = metrics->state();
    Progress now = progress;
    now.epoch_seconds += seconds_now() - epoch_start;
    return save_checkpoint((folder / "last.safetensors").string(), self.state_.persistent(), now);
  }

  Status start(bool resume);
  Status compile_first();
  Status keep_best();
  Status update(data::BatchStream& stream, int64_t window_begin);
  Status end_epoch();
  std::string text() const;
};

Status Trainer::Fit::compile_first() {
  const int64_t window = std::min(options().accumulate, batches);
  std::vector<int64_t> indices(static_cast<size_t>(std::min(options().batch_size, train.size())), 0);
  Tensor x, y;
  DS_TRY(train.read(indices, x, y));
  DS_ASSIGN(const std::string reason, self.resolve_precision(loss, x, y));
  if (!reason.empty()) say(reason);
  progress.precision = to_string(*self.precision_);
  // State must have all its tensors before a checkpoint is loaded into it.
  const StepKind kind = window == 1 ? StepKind::kUpdate : StepKind::kLast;
  DS_ASSIGN(const auto program, self.program(x.type(), y.type(), loss, kind));
  const size_t prediction = static_cast<size_t>(program->graph().find_output("prediction"));
  const TensorType& out = program->graph().type(program->graph().outputs()[prediction].value);
  if (train.is_classification() && out.rank() >= 2 && !self.custom_loss_ && out.dims[1] < train.num_classes())
    return invalid("the data has {} classes, the model predicts {} ({}); widen its last layer", train.num_classes(),
                   out.dims[1], to_string(out));
  say(fmt::format("{} parameters, {} training samples, {} updates; a step takes {} of memory",
                  self.model_->num_parameters(), train.size(), total, format_bytes(program->memory_bytes())));
  for (const std::string& note : program->notes()) say(note);
  return {};
}

Status Trainer::Fit::start(bool resume) {
  if (!folder.empty()) DS_TRY(prepare_folder(folder, resume, hooks));
  const bool monitors_metric = std::find(metric_names.begin(), metric_names.end(), monitor) != metric_names.end();
  if (monitor != "loss" && !monitors_metric)
    return invalid("train.monitor: '{}' is neither loss nor one of train.metrics ({})", monitor,
                   join(metric_names, ", "));
  DS_ASSIGN(metrics, Metrics::create(metric_names, self.task_for(train)));
  std::map<std::string, Tensor> tensors;
  self.precision_.reset();
  if (resume) {
    DS_TRY(load_checkpoint((folder / "last.safetensors").string(), tensors, progress));
    if (options().precision == "auto") {  // measured when the run began
      DS_ASSIGN(self.precision_, parse_dtype(progress.precision));
    }
  } else {
    self.state_ = StateStore(*self.model_, static_cast<uint64_t>(options().seed));
  }
  DS_TRY(compile_first());
  epoch_start = seconds_now();
  if (resume) {
    DS_TRY(self.state_.load(tensors));
    DS_TRY(metrics->set_state(progress.metrics));
    if (progress.has_best) {
      DS_ASSIGN(io::TensorFile file, io::load_safetensors((folder / "best.safetensors").string()));
      best = std::move(file.tensors);
    }
    say(fmt::format("resumed at update {} of {}", progress.step, total));
  } else if (!folder.empty()) {
    DS_TRY(write_text(folder / "config.yaml",
                      self.config_.empty() ? option_table(self.options_).to_yaml() : self.config_));
    DS_TRY(write_text(folder / "environment.txt",
                      fmt::format("device cpu\nisa {}\nthreads {}\n", backends::cpu::isa_name(), num_threads())));
  }
  if (!folder.empty()) {
    DS_ASSIGN(io::EventFile file, io::EventFile::create(folder.string()));
    events.emplace(std::move(file));
  }
  first = progress.step;
  return {};
}

Status Trainer::Fit::update(data::BatchStream& stream, int64_t window_begin) {
  const double begin = seconds_now();
  const int64_t window_end = std::min(window_begin + options().accumulate, batches);
  const int64_t used = options().drop_last ? batches * options().batch_size : train.size();
  const int64_t window_samples =
      std::min(window_end * options().batch_size, used) - window_begin * options().batch_size;
  const double rate = self.options_.optimizer.learning_rate * progress.plateau.factor *
                      schedule_factor(self.options_.schedule, progress.step, total, updates_per_epoch);
  double window_loss = 0, norm = 0;
  const auto scale = [&] {  // 0 without loss scaling
    const auto state = self.state_.tensors().find("loss_scale/scale");
    return state == self.state_.tensors().end() ? 0 : state->second.at(0);
  };
  const double scale_before = scale();
  bool skipped = false;
  for (int64_t i = window_begin; i < window_end; ++i) {
    Tensor x, y;
    const double asked = seconds_now();
    DS_ASSIGN(const bool more, stream.next(x, y));
    waiting += seconds_now() - asked;
    if (!more) return internal_error("the loader ended before batch {} of {}", i, batches);
    const bool last = i + 1 == window_end;
    const StepKind kind = window_end - window_begin == 1 ? StepKind::kUpdate
                          : last                         ? StepKind::kLast
                                                         : StepKind::kAccumulate;
    DS_ASSIGN(const auto program, self.program(x.type(), y.type(), loss, kind));
    const int64_t n = x.dims()[0];
    DS_ASSIGN(
        const std::vector<Tensor> out,
        self.state_.run(*program, {{"x", x},
                                   {"y", y},
                                   {"weight", Tensor::scalar(DType::kF32, static_cast<double>(n) /
                                                                              static_cast<double>(window_samples))},
                                   {"learning_rate", Tensor::scalar(DType::kF32, rate)},
                                   {"step", Tensor::scalar(DType::kF32, static_cast<double>(progress.step + 1))}}));
    const auto result = [&](const char* name) -> const Tensor& {
      return out[static_cast<size_t>(program->graph().find_output(name))];
    };
    const double value = result("loss").at(0);
    window_loss += value * static_cast<double>(n);
    if (last && program->graph().find_output("skipped") >= 0) skipped = result("skipped").at(0) != 0;
    // An overflow at the least scale is none that scaling could cure.
    if (const bool curable = scale_before > kLeastLossScale && (skipped || !last);
        !std::isfinite(window_loss) ? !curable : skipped && !curable)
      return invalid("{} at update {}; lower optimizer.learning_rate or set optimizer.clip_norm{}",
                     std::isfinite(window_loss) ? "the gradients are not finite"
                                                : fmt::format("the loss is {}", window_loss / static_cast<double>(n)),
                     progress.step, folder.empty() ? "" : " (the last good state is in " + folder.string() + ")");
    if (last) norm = result("gradient_norm").at(0);
    if (std::isfinite(value)) DS_TRY(metrics->add(result("prediction"), y));
  }
  ++progress.step;
  samples += window_samples;
  if (skipped) {
    ++progress.skipped;
    say(fmt::format("update {} skipped: its gradients overflow at loss scale {}; now {}", progress.step, scale_before,
                    scale()));
  }
  if (std::isfinite(window_loss)) {
    progress.loss_sum += window_loss;
    progress.seen += window_samples;
  }
  if (events && progress.step % kLogEvery == 0) {
    if (std::isfinite(window_loss))
      DS_TRY(events->scalar("train/loss", progress.step, window_loss / static_cast<double>(window_samples)));
    DS_TRY(events->scalar("train/learning_rate", progress.step, rate));
    if (!skipped) DS_TRY(events->scalar("train/gradient_norm", progress.step, norm));
    if (scale_before > 0) {
      DS_TRY(events->scalar("train/loss_scale", progress.step, scale()));
      DS_TRY(
          events->scalar("train/skipped_updates", progress.step, self.state_.tensors().at("loss_scale/skipped").at(0)));
    }
  }
  stepping += seconds_now() - begin;
  return {};
}

std::string Trainer::Fit::text() const {
  const int64_t epoch = (progress.step - 1) / updates_per_epoch + 1;
  const double mean = progress.seen == 0 ? 0 : progress.loss_sum / static_cast<double>(progress.seen);
  return fmt::format("epoch {}/{}{}", epoch, options().epochs,
                     values_text(named(mean, metric_names, metrics->values())));
}

Status Trainer::Fit::keep_best() {
  best.clear();
  const auto& tensors = self.state_.tensors();
  for (const nn::State& s : self.model_->named_state()) {
    const auto average = tensors.find("ema/" + s.name);
    best[s.name] = (average == tensors.end() ? s.value : average->second).clone();
  }
  if (folder.empty()) return {};
  return io::save_safetensors((folder / "best.safetensors").string(), {best, {}});
}

Status Trainer::Fit::end_epoch() {
  EpochRecord record;
  record.epoch = progress.step / updates_per_epoch;
  record.learning_rate = self.options_.optimizer.learning_rate * progress.plateau.factor *
                         schedule_factor(self.options_.schedule, progress.step - 1, total, updates_per_epoch);
  record.training = named(progress.loss_sum / static_cast<double>(progress.seen), metric_names, metrics->values());
  if (self.state_.tensors().contains("loss_scale/scale"))
    record.training.emplace_back("skipped_updates", static_cast<double>(progress.skipped));
  if (validation.size() > 0) {
    DS_ASSIGN(const Evaluation e, self.evaluator_.evaluate(validation, kEvaluationBatch, loss, metric_names,
                                                           self.task_for(validation), self.state_, true));
    record.validation = {{"loss", e.loss}};
    record.validation.insert(record.validation.end(), e.metrics.begin(), e.metrics.end());
  }
  record.seconds = progress.epoch_seconds + seconds_now() - epoch_start;
  epoch_start = seconds_now();
  const NamedValues& judged = record.validation.empty() ? record.training : record.validation;
  const double value = monitored = find(judged, monitor);
  const double gain = Metrics::higher_is_better(monitor) ? value - progress.best : progress.best - value;
  const bool better = !progress.has_best || gain > options().min_delta;
  progress.plateau.epoch(self.options_.schedule, better);
  progress.bad_epochs = better ? 0 : progress.bad_epochs + 1;
  progress.loss_sum = progress.epoch_seconds = 0;
  progress.seen = progress.skipped = 0;
  DS_ASSIGN(metrics, Metrics::create(metric_names, self.task_for(train)));
  progress.history.push_back(record);
  if (better && !std::isnan(value)) {
    progress.best = value;
    progress.has_best = true;
    DS_TRY(keep_best());
  }
  progress.stopped_early = options().patience > 0 && progress.bad_epochs >= options().patience;
  const double wait = stepping > 0 ? 100 * waiting / stepping : 0;
  stepping = waiting = 0;
  say(fmt::format("epoch {}/{}  {:.1f} s ({:.1f} % of the steps waiting for data){}{}", record.epoch, options().epochs,
                  record.seconds, wait, values_text(record.training),
                  record.validation.empty() ? "" : "  | validation" + values_text(record.validation)));
  if (progress.stopped_early)
    say(fmt::format("stopped early: {} has not been better than {:.4f} for {} epochs", monitor, progress.best,
                    progress.bad_epochs));
  if (events) {
    DS_TRY(events->scalar("train/data_wait_percent", progress.step, wait));
    for (const auto& [name, v] : record.training)
      if (name != "loss") DS_TRY(events->scalar("train/" + name, progress.step, v));
    for (const auto& [name, v] : record.validation) DS_TRY(events->scalar("validation/" + name, progress.step, v));
    DS_TRY(events->flush());
    DS_TRY(write_text(folder / "history.csv", history_csv(progress.history)));
  }
  return save();
}

Result<FitResult> Trainer::fit(const data::Dataset& train, const data::Dataset& validation, bool resume,
                               const Hooks& hooks) {
  if (options_.train.threads > 0) set_num_threads(static_cast<int>(options_.train.threads));
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, std::move(loading)));
  if (validation.size() > 0) DS_TRY(validation.validate());
  DS_ASSIGN(const LossFunction loss, loss_for(train));
  Fit fit{*this, train, validation, hooks, loss, monitor_for(train), metrics_for(train), options_.train.output};
  if (resume && fit.folder.empty()) return invalid("resume needs train.output, the folder of the run");
  fit.batches = loader.num_batches();
  fit.updates_per_epoch = (fit.batches + options_.train.accumulate - 1) / options_.train.accumulate;
  fit.total = fit.updates_per_epoch * options_.train.epochs;
  DS_TRY(fit.start(resume));
  Progress& progress = fit.progress;
  std::unique_ptr<data::BatchStream> stream;
  FitResult result;
  while (progress.step < fit.total && !progress.stopped_early && !result.interrupted) {
    const int64_t epoch = progress.step / fit.updates_per_epoch;
    const int64_t begin = progress.step % fit.updates_per_epoch * options_.train.accumulate;
    if (begin == 0 || !stream) {
      stream.reset();
      stream = std::make_unique<data::BatchStream>(loader, epoch, begin);
    }
    DS_TRY(fit.update(*stream, begin));
    result.interrupted =
        !hooks.progress({progress.step, fit.first, fit.total, fit.samples, [&fit] { return fit.text(); }});
    if (progress.step % fit.updates_per_epoch == 0) {
      DS_TRY(fit.end_epoch());
      DS_ASSIGN(const bool go_on, hooks.epoch(progress.history.back(), fit.monitored));
      result.interrupted = result.interrupted || !go_on;
    } else if (result.interrupted ||
               (options_.train.save_every > 0 && progress.step % options_.train.save_every == 0)) {
      DS_TRY(fit.save());
    }
  }
  if (fit.events) DS_TRY(fit.events->flush());
  result.interrupted = result.interrupted && progress.step < fit.total && !progress.stopped_early;
  if (result.interrupted)
    fit.say(fit.folder.empty() ? fmt::format("interrupted at update {}", progress.step)
                               : fmt::format("interrupted at update {}, saved to {}; continue with --resume",
                                             progress.step, (fit.folder / "last.safetensors").string()));
  result.history = progress.history;
  result.stopped_early = progress.stopped_early;
  if (!result.interrupted && !fit.best.empty()) {
    DS_TRY(model_->load_state(fit.best));
  }
  return result;
}

}  // namespace deepseek::train
