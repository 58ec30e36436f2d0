// Trainer::fit: the loop over updates and epochs.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/memory.h"
#include "base/strings.h"
#include "base/threads.h"
#include "io/safetensors.h"
#include "train/loss_scale.h"
#include "train/numerics.h"
#include "train/resume.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace deepseek::train {

using graph::Tensor;
using graph::TensorType;

namespace {

constexpr int64_t kLogEvery = 20;  // updates between TensorBoard points
constexpr int64_t kMostUpdates = int64_t{1} << 53;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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

// Of "loss", a term of it or a metric, of one target or another.
bool higher_is_better(const std::string& name) {
  return !name.starts_with(kLoss) && Metrics::higher_is_better(name.substr(name.rfind('/') + 1));
}

}  // namespace

// One call of fit(): what its steps share.
struct Trainer::Fit {
  Trainer& self;
  data::DatasetPtr train, validation;  // validation may be none
  const Hooks& hooks;
  LossFunction loss;
  RunFolder folder;
  std::string monitor = {};
  data::BatchType first_type = {};  // of a batch like those of training
  data::Batch first_batch = {};
  std::optional<graph::Graph> forward = {};  // of such a batch, with the loss
  std::optional<MetricSet> metrics = {};
  std::map<std::string, Tensor> best = {};  // the model's tensors at the best epoch
  Progress progress = {};
  int64_t batches = 0, updates_per_epoch = 0, total = 0, first = 0, samples = 0;
  double epoch_start = 0;
  double monitored = 0;              // of the last epoch
  double stepping = 0, waiting = 0;  // seconds of this epoch's updates so far, and of these without a batch

  const TrainOptions& options() const { return self.options_.train; }
  // Of the update from `step`, counted from 0.
  double rate(int64_t step) const {
    const ScheduleOptions& s = self.options_.schedule;
    const double plateau = s.name == "plateau" ? progress.plateau.factor : 1;
    return self.options_.optimizer.rate() * plateau * schedule_factor(s, step, total, updates_per_epoch);
  }

  void say(const std::string& text) {
    hooks.message(text);
    folder.log(text);
  }

  Status save() {
    if (!folder.kept()) return {};
    DS_TRY(folder.status());
    progress.metrics = metrics->state();
    Progress now = progress;
    now.epoch_seconds += seconds_now() - epoch_start;
    DS_TRY(self.state_->download());
    return save_checkpoint(folder.file("last.safetensors"), self.state_->persistent(), now);
  }

  // Of the running epoch: loss, the loss's terms, metrics.
  NamedValues training() const {
    const double seen = static_cast<double>(progress.seen);
    NamedValues out{{kLoss, progress.loss_sum / seen}};
    for (const auto& [name, sum] : progress.term_sums) out.emplace_back(name, sum / seen);
    const std::vector<double> values = metrics->values();
    for (size_t i = 0; i < values.size(); ++i) out.emplace_back(metrics->names()[i], values[i]);
    return out;
  }
  Status new_epoch() {
    DS_ASSIGN(metrics, self.metrics_for(*train, *forward, first_type));
    progress.term_sums.clear();
    for (const auto& [name, index] : outputs_after(*forward, kLossTerms))
      progress.term_sums.emplace_back(kLossTerms + name, 0);
    progress.loss_sum = progress.epoch_seconds = 0;
    progress.seen = progress.skipped = 0;
    return {};
  }
  Status check_classes() const;
  // An error that says where the batch's loss or gradients stop being finite, if they do; keeps what shows it again.
  Status check_numerics(const data::BatchType& type, StepKind kind, const data::Batch& given, int64_t batch);
  Status check_last_batch() const;
  Status start(bool resume);
  Status read_checkpoint(std::map<std::string, Tensor>& tensors);
  Status compile_first();
  Status keep_best();
  Status update(data::BatchStream& stream, int64_t window_begin);
  Status end_epoch();
  std::string text() const;
};

// A class that the model can't predict.
Status Trainer::Fit::check_classes() const {
  if (self.custom_loss_) return {};
  std::vector<std::string> names, targets;
  for (const auto& [name, index] : outputs_after(*forward, kOutputs)) names.push_back(name);
  for (const data::Field* f : train->targets()) targets.push_back(f->name);
  DS_ASSIGN(const std::vector<Pairing> pairs, pair_targets(names, targets));
  for (const Pairing& pair : pairs) {
    const data::Field& field = *train->find(pair.target);
    const auto index = static_cast<size_t>(forward->find_output(kOutputs + pair.output));
    const TensorType& out = forward->type(forward->outputs()[index].value);
    if (field.is_classes() && out.rank() >= 2 && out.dims[1] < field.num_classes())
      return invalid("the data has {} classes, the model predicts {} ({}); widen its last layer", field.num_classes(),
                     out.dims[1], to_string(out));
  }
  return {};
}

// A smaller one may be too small, for batch norm's statistics of one sample; better told now than at the epoch's end.
Status Trainer::Fit::check_last_batch() const {
  const int64_t size = options().batch_size, rest = train->size() % size;
  if (options().drop_last || rest == 0 || train->size() < size) return {};
  data::BatchType last = first_type;
  for (data::BatchEntry& e : last)
    if (!e.type.dims.empty()) e.type.dims[0] = rest;
  return self.traces_.get(*self.model_, last, &loss, true)
      .status()
      .note(fmt::format("in the last batch of an epoch, which has {} of the {} samples at train.batch_size {}; set "
                        "train.drop_last to leave it out, or another train.batch_size",
                        rest, train->size(), size));
}

Status Trainer::Fit::compile_first() {
  const int64_t window = std::min(options().accumulate, batches);
  DS_ASSIGN(const std::string reason, self.resolve_precision(loss, first_type, first_batch));
  first_batch.clear();
  if (!reason.empty()) say(reason);
  progress.precision = to_string(*self.precision_);
  // State must have all its tensors before a checkpoint is loaded into it.
  const StepKind kind = window == 1 ? StepKind::kUpdate : StepKind::kLast;
  DS_ASSIGN(const auto program, self.program(first_type, loss, kind));
  say(fmt::format("{} parameters, {} training samples, {} updates; a step takes {} of memory",
                  self.model_->num_parameters(), train->size(), total, format_bytes(program->memory_bytes())));
  for (const std::string& note : program->notes()) say(note);
  return {};
}

// What the run was begun with must be what it goes on with; the optimizer and the schedule may change, which is told.
Status Trainer::Fit::read_checkpoint(std::map<std::string, Tensor>& tensors) {
  DS_TRY(folder.resume());
  const Settings now = std::move(progress.settings);
  DS_TRY(load_checkpoint(folder.file("last.safetensors"), tensors, progress));
  const SettingChanges changes = compare_settings(progress.settings, now);
  if (!changes.refused.empty())
    return invalid("the run in '{}' cannot be resumed with other settings:\n  {}\nset them back, or train anew",
                   folder.path(), join(changes.refused, "\n  "));
  for (const std::string& text : changes.allowed) say("changed since the run began: " + text);
  progress.settings = now;
  if (options().precision == "auto") {  // measured when the run began
    DS_ASSIGN(self.precision_, parse_dtype(progress.precision));
  }
  return {};
}

// "device cpu", and a line for each of its properties.
std::string environment(const runtime::Backend& backend) {
  std::string text = fmt::format("device {}\n", backend.name());
  for (const auto& [name, value] : backend.properties()) text += fmt::format("{} {}\n", name, value);
  return text;
}

Status Trainer::Fit::start(bool resume) {
  DS_ASSIGN(first_batch, self.first_batch(train, first_type));
  DS_ASSIGN(forward, self.traces_.get(*self.model_, first_type, &loss, true));
  DS_TRY(check_classes());
  DS_TRY(check_last_batch());
  DS_ASSIGN(self.trained_on_, summarise(*train));
  DS_TRY(new_epoch());
  const NamedValues sums = progress.term_sums;
  std::vector<std::string> judged = metrics->names();
  for (const auto& [name, sum] : sums) judged.push_back(name);
  DS_ASSIGN(monitor, self.monitor_among(judged));
  DS_ASSIGN(progress.settings, run_settings(self.options_, *train, validation.get(), metrics->names(), monitor,
                                            self.custom_loss_ != nullptr));
  std::map<std::string, Tensor> tensors;
  self.precision_.reset();
  if (resume)
    DS_TRY(read_checkpoint(tensors));
  else
    self.state_.reset();  // moments and counters anew
  DS_TRY(compile_first());
  epoch_start = seconds_now();
  first = progress.step;
  if (resume) {
    DS_TRY(self.state_->load(tensors));
    DS_TRY(metrics->set_state(progress.metrics));
    if (progress.term_sums.size() != sums.size())
      return make_error(ErrorCode::kDataCorrupt, "the checkpoint has {} terms of the loss, the run {}",
                        progress.term_sums.size(), sums.size());
    if (!progress.history.empty()) {
      DS_ASSIGN(io::TensorFile file, io::load_safetensors(folder.file("best.safetensors")));
      best = std::move(file.tensors);
    }
    // Patience may be another than it was.
    progress.stopped_early = options().patience > 0 && progress.bad_epochs >= options().patience;
    say(fmt::format("resumed at update {} of {}", progress.step, total));
    if (progress.step >= total)
      say(fmt::format("nothing is left to do: all {} epochs are done; set train.epochs higher to go on",
                      options().epochs));
    else if (progress.stopped_early)
      say(
          fmt::format("nothing is left to do: the run stopped early, {} has not been better for {} epochs; set "
                      "train.patience higher to go on, or 0",
                      monitor, progress.bad_epochs));
    return {};
  }
  // Nothing was touched while something could still be wrong.
  DS_ASSIGN(const std::string moved, folder.begin());
  if (!moved.empty()) say(moved);
  TrainerOptions resolved = self.options_;
  resolved.optimizer.resolve();
  DS_TRY(folder.write("config.yaml", self.config_.empty() ? option_table(resolved).to_yaml() : self.config_));
  return folder.write("environment.txt", environment(*self.backend_));
}

Status Trainer::Fit::check_numerics(const data::BatchType& type, StepKind kind, const data::Batch& given,
                                    int64_t batch) {
  const std::vector<CountedValue>* values = nullptr;
  DS_ASSIGN(const auto program, self.counting_program(type, loss, kind, values));
  const graph::Graph& counted = program->graph();
  DS_ASSIGN(const std::vector<Tensor> out, self.state_->run(program, given));
  const auto finite = [&](const char* name) {
    const int32_t index = counted.find_output(name);
    return index < 0 || std::isfinite(out[static_cast<size_t>(index)].at(0));
  };
  const bool scaled = self.state_->tensors().contains(kLossScale);  // whose overflows are skipped
  if (finite(kLoss) && (scaled || finite("gradient_norm"))) return {};
  const std::string text =
      fmt::format("at update {} (epoch {}, batch {}) {} not finite; it begins where {}", progress.step,
                  progress.step / updates_per_epoch + 1, batch, finite(kLoss) ? "the gradients are" : "the loss is",
                  first_not_finite(*values, counted, out));
  if (!folder.kept()) return invalid("{}", text);
  std::map<std::string, Tensor> tensors = self.state_->tensors();
  for (const data::BatchEntry& e : type) tensors["batch/" + e.name] = given.at(e.name);
  const std::string file = folder.file("not_finite.safetensors");
  DS_TRY(io::save_safetensors(file, {std::move(tensors), {{"what", text}}}));
  return invalid("{}; the batch and the state that show it are in {}", text, file);
}

Status Trainer::Fit::update(data::BatchStream& stream, int64_t window_begin) {
  const double begin = seconds_now();
  const int64_t window_end = window_begin + std::min(options().accumulate, batches - window_begin);
  const double learning_rate = rate(progress.step);
  int64_t window_samples = 0, window_counted = 0;
  double window_loss = 0, norm = 0;
  std::vector<double> window_terms(progress.term_sums.size());
  DS_ASSIGN(const double scale_before, self.state_->scalar(kLossScale));  // 0 without loss scaling
  bool skipped = false;
  for (int64_t i = window_begin; i < window_end; ++i) {
    const double asked = seconds_now();
    DS_ASSIGN(const std::optional<data::Batch> batch, stream.next());
    waiting += seconds_now() - asked;
    if (!batch) return internal_error("the loader ended before batch {} of {}", i, batches);
    const bool last = i + 1 == window_end;
    const StepKind kind = window_end - window_begin == 1 ? StepKind::kUpdate
                          : last                         ? StepKind::kLast
                                                         : StepKind::kAccumulate;
    const int64_t n = train->counted(*batch);
    window_samples += batch->begin()->second.dims()[0];
    window_counted += n;
    if (last && window_counted == 0) break;  // there is nothing to learn from
    DS_ASSIGN(const data::BatchType type, train->type_of(*batch));
    DS_ASSIGN(const auto program, self.program(type, loss, kind));
    const auto scalar = [](auto v) { return Tensor::scalar(DType::kF32, static_cast<double>(v)); };
    data::Batch given = *batch;
    given[kWeight] = scalar(n);
    given[kTotalWeight] = scalar(window_counted);
    given[kLearningRate] = scalar(learning_rate);
    given[kStepNumber] = scalar(progress.step + 1);
    if (options().check_numerics) DS_TRY(check_numerics(type, kind, given, i));
    DS_ASSIGN(const std::vector<Tensor> out, self.state_->run(program, given));
    const auto result = [&](const char* name) -> const Tensor& {
      return out[static_cast<size_t>(program->graph().find_output(name))];
    };
    const double value = n > 0 ? result(kLoss).at(0) : 0;
    window_loss += value * static_cast<double>(n);
    if (last && program->graph().find_output("skipped") >= 0) skipped = result("skipped").at(0) != 0;
    // An overflow at the least scale is none that scaling could cure.
    if (const bool curable = scale_before > kLeastLossScale && (skipped || !last);
        !std::isfinite(window_loss) ? !curable : skipped && !curable)
      return invalid(
          "{} at update {}; lower optimizer.learning_rate or set optimizer.clip_norm; train.check_numerics tells "
          "where it comes from{}",
          std::isfinite(window_loss) ? "the gradients are not finite"
                                     : fmt::format("the loss is {}", window_loss / static_cast<double>(n)),
          progress.step, folder.kept() ? " (the last good state is in " + folder.path() + ")" : "");
    if (last) norm = result("gradient_norm").at(0);
    if (n == 0 || !std::isfinite(value)) continue;
    DS_TRY(metrics->add(named_outputs(program->graph(), out), *batch));
    size_t term = 0;
    for (const auto& [name, index] : outputs_after(program->graph(), kLossTerms)) {
      const double of_term = out[index].at(0) * static_cast<double>(n);
      window_terms[term] += of_term;
      progress.term_sums[term++].second += of_term;
    }
  }
  ++progress.step;
  samples += window_samples;
  DS_ASSIGN(const double scale, self.state_->scalar(kLossScale));
  if (skipped) {
    ++progress.skipped;
    say(fmt::format("update {} skipped: its gradients overflow at loss scale {}; now {}", progress.step, scale_before,
                    scale));
  }
  if (std::isfinite(window_loss)) {
    progress.loss_sum += window_loss;
    progress.seen += window_counted;
  }
  if (io::EventFile* events = folder.events(); events && progress.step % kLogEvery == 0) {
    if (std::isfinite(window_loss) && window_counted > 0) {
      DS_TRY(events->scalar("train/loss", progress.step, window_loss / static_cast<double>(window_counted)));
      for (size_t i = 0; i < window_terms.size(); ++i)
        DS_TRY(events->scalar("train/" + progress.term_sums[i].first, progress.step,
                              window_terms[i] / static_cast<double>(window_counted)));
    }
    DS_TRY(events->scalar("train/learning_rate", progress.step, learning_rate));
    if (!skipped) DS_TRY(events->scalar("train/gradient_norm", progress.step, norm));
    if (scale_before > 0) {
      DS_TRY(events->scalar("train/loss_scale", progress.step, scale));
      DS_ASSIGN(const double skips, self.state_->scalar(kSkippedUpdates));
      DS_TRY(events->scalar("train/skipped_updates", progress.step, skips));
    }
  }
  stepping += seconds_now() - begin;
  return {};
}

std::string Trainer::Fit::text() const {
  const int64_t epoch = (progress.step - 1) / updates_per_epoch + 1;
  NamedValues values = training();
  if (progress.seen == 0) values[0].second = 0;
  return fmt::format("epoch {}/{}{}", epoch, options().epochs, values_text(values));
}

Status Trainer::Fit::keep_best() {
  best.clear();
  DS_TRY(self.state_->download());
  const auto& tensors = self.state_->tensors();
  for (const nn::State& s : self.model_->named_state()) {
    const auto average = tensors.find("ema/" + s.name);
    best[s.name] = (average == tensors.end() ? s.value : average->second).clone();
  }
  if (!folder.kept()) return {};
  return io::save_safetensors(folder.file("best.safetensors"), {best, {}});
}

Status Trainer::Fit::end_epoch() {
  EpochRecord record;
  record.epoch = progress.step / updates_per_epoch;
  record.learning_rate = rate(progress.step - 1);
  record.training = training();
  if (self.state_->tensors().contains(kLossScale))
    record.training.emplace_back("skipped_updates", static_cast<double>(progress.skipped));
  if (validation != nullptr) {
    DS_ASSIGN(const Evaluation e,
              self.evaluator_.evaluate(*self.backend_, validation, Trainer::kEvaluationBatch, loss,
                                       self.make_metrics(*validation), *self.state_, Evaluator::Weights::kAveraged));
    record.validation = {{kLoss, e.loss}};
    record.validation.insert(record.validation.end(), e.terms.begin(), e.terms.end());
    record.validation.insert(record.validation.end(), e.metrics.begin(), e.metrics.end());
  }
  record.seconds = progress.epoch_seconds + seconds_now() - epoch_start;
  epoch_start = seconds_now();
  const NamedValues& judged = record.validation.empty() ? record.training : record.validation;
  const double value = monitored = find(judged, monitor);
  const double gain = higher_is_better(monitor) ? value - progress.best : progress.best - value;
  // NaN is worse than anything; until there is a number, the latest weights are kept.
  const bool better = !std::isnan(value) && (!progress.has_best || gain > options().min_delta);
  const bool keep = better || !progress.has_best;
  progress.plateau.epoch(self.options_.schedule, better);
  progress.bad_epochs = better ? 0 : progress.bad_epochs + 1;
  DS_TRY(new_epoch());
  progress.history.push_back(record);
  if (better) {
    progress.best = value;
    progress.has_best = true;
  }
  if (keep) DS_TRY(keep_best());
  progress.stopped_early = options().patience > 0 && progress.bad_epochs >= options().patience;
  const double wait = stepping > 0 ? 100 * waiting / stepping : 0;
  stepping = waiting = 0;
  say(fmt::format("epoch {}/{}  {:.1f} s ({:.1f} % of the steps waiting for data){}{}", record.epoch, options().epochs,
                  record.seconds, wait, values_text(record.training),
                  record.validation.empty() ? "" : "  | validation" + values_text(record.validation)));
  if (progress.stopped_early)
    say(progress.has_best
            ? fmt::format("stopped early: {} has not been better than {:.4f} for {} epochs", monitor, progress.best,
                          progress.bad_epochs)
            : fmt::format("stopped early: {} has not been a number for {} epochs", monitor, progress.bad_epochs));
  if (io::EventFile* events = folder.events()) {
    DS_TRY(events->scalar("train/data_wait_percent", progress.step, wait));
    for (const auto& [name, v] : record.training)
      if (name != "loss") DS_TRY(events->scalar("train/" + name, progress.step, v));
    for (const auto& [name, v] : record.validation) DS_TRY(events->scalar("validation/" + name, progress.step, v));
    DS_TRY(events->flush());
    DS_TRY(folder.write("history.csv", history_csv(progress.history)));
  }
  return save();
}

Result<FitResult> Trainer::fit(const data::DatasetPtr& training, const data::DatasetPtr& held_out, bool resume,
                               const Hooks& hooks) {
  if (options_.train.threads > 0) DS_TRY(set_num_threads(options_.train.threads));
  DS_ASSIGN(const data::DatasetPtr train, with_ignored(training));
  data::DatasetPtr validation;
  if (held_out != nullptr) {
    DS_ASSIGN(validation, with_ignored(held_out));
  }
  DS_ASSIGN(data::LoaderOptions loading, loader_options());
  DS_ASSIGN(const data::DataLoader loader, data::DataLoader::create(train, std::move(loading)));
  if (validation != nullptr) DS_TRY(validation->validate());
  DS_ASSIGN(const LossFunction loss, loss_for(*train));
  DS_ASSIGN(RunFolder folder, RunFolder::at(options_.train.output));
  Fit fit{*this, train, validation, hooks, loss, std::move(folder)};
  fit.batches = loader.num_batches();
  fit.updates_per_epoch = (fit.batches - 1) / options_.train.accumulate + 1;
  if (options_.train.epochs > kMostUpdates / fit.updates_per_epoch)
    return invalid("train.epochs: {} epochs of {} updates are more than {} updates", options_.train.epochs,
                   fit.updates_per_epoch, kMostUpdates);
  fit.total = fit.updates_per_epoch * options_.train.epochs;
  DS_TRY(fit.start(resume));
  Progress& progress = fit.progress;
  std::unique_ptr<data::BatchStream> stream;
  FitResult result;
  while (progress.step < fit.total && !progress.stopped_early && !result.interrupted) {
    const int64_t epoch = progress.step / fit.updates_per_epoch;
    const int64_t begin = progress.step % fit.updates_per_epoch * options_.train.accumulate;
    if (!stream) stream = std::make_unique<data::BatchStream>(loader, epoch, begin, 2, options_.train.epochs);
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
  if (io::EventFile* events = fit.folder.events()) DS_TRY(events->flush());
  result.interrupted = result.interrupted && progress.step < fit.total && !progress.stopped_early;
  if (result.interrupted)
    fit.say(fit.folder.kept() ? fmt::format("interrupted at update {}, saved to {}; continue with --resume",
                                            progress.step, fit.folder.file("last.safetensors"))
                              : fmt::format("interrupted at update {}", progress.step));
  result.history = progress.history;
  result.stopped_early = progress.stopped_early;
  if (!result.interrupted && !fit.best.empty()) {
    DS_TRY(model_->load_state(fit.best));
  }
  if (fit.folder.kept() && !fit.best.empty())
    if (const Status saved = save(fit.folder.file("model.dsk"), fit.best); !saved.ok())
      fit.say("model.dsk was not written: " + saved.message());
  return result;
}

}  // namespace deepseek::train
