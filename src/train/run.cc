#include "train/run.h"

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "io/atomic_file.h"
#include "io/plot.h"
#include "models/zoo.h"

namespace deepseek::train {

namespace {

constexpr int64_t kMostClassesDrawn = 100;

// The zoo's models take one input, and predict classes, or the numbers of one target.
Result<nn::ModulePtr> make_model(const RunOptions& o, const data::Dataset& d) {
  const std::vector<const data::Field*> inputs = d.inputs(), targets = d.targets();
  if (inputs.size() != 1 || targets.size() != 1)
    return invalid(
        "a model by name takes one input and one target, data '{}' have {} and {}; train one target at a "
        "time, or write the model in Python",
        o.data.name, inputs.size(), targets.size());
  nn::manual_seed(static_cast<uint64_t>(o.train.seed));
  const data::Field& target = *targets[0];
  const int64_t outputs = target.is_classes() ? target.num_classes() : target.sample.num_elements();
  return models::create(o.model.name, {inputs[0]->sample.dims, outputs}, o.model.params);
}

Status write_text(const std::filesystem::path& path, const std::string& text) {
  return io::write_file_atomic(path.string(), std::as_bytes(std::span(text.data(), text.size())));
}

// One chart per value of the history: loss.png, accuracy.png, ...
Status draw_history(const std::filesystem::path& folder, const std::vector<EpochRecord>& history) {
  if (history.empty()) return {};
  for (size_t i = 0; i < history[0].training.size(); ++i) {
    const std::string& name = history[0].training[i].first;
    io::Series training{"training", {}, {}}, validation{"validation", {}, {}};
    for (const EpochRecord& r : history) {
      training.xs.push_back(static_cast<double>(r.epoch));
      training.ys.push_back(r.training[i].second);
      if (i >= r.validation.size()) continue;
      validation.xs.push_back(static_cast<double>(r.epoch));
      validation.ys.push_back(r.validation[i].second);
    }
    std::vector<io::Series> series{training};
    if (!validation.xs.empty()) series.push_back(validation);
    std::string title = name, file = name;
    std::replace(file.begin(), file.end(), '/', '-');
    title[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(title[0])));
    DS_TRY(io::line_chart((folder / (file + ".png")).string(), title, "epoch", name, series));
  }
  return {};
}

}  // namespace

Result<RunResult> run_training(const RunOptions& options, bool resume, const Hooks& hooks) {
  DS_ASSIGN(const data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  DS_ASSIGN(nn::ModulePtr model, make_model(options, *splits.train));
  const std::filesystem::path folder = options.train.output;
  if (folder.empty()) return invalid("train.output: expected a run folder, got ''");
  Trainer trainer(model, options);
  hooks.message(fmt::format("model {} on {}", options.model.name, options.data.name));
  RunOptions resolved = options;
  resolved.optimizer.resolve();
  trainer.set_config(option_table(resolved).to_yaml());
  RunResult result;
  DS_ASSIGN(result.fit, trainer.fit(splits.train, splits.validation, resume, hooks));
  if (result.fit.interrupted) return result;
  DS_TRY(draw_history(folder, result.fit.history));
  if (splits.test == nullptr) return result;
  DS_ASSIGN(result.test, trainer.evaluate(splits.test));
  std::string text = fmt::format("loss {}\n", result.test->loss);
  for (const auto* part : {&result.test->terms, &result.test->metrics})
    for (const auto& [name, value] : *part) text += fmt::format("{} {}\n", name, value);
  DS_TRY(write_text(folder / "test.txt", text));
  for (const MetricSet::Confusion& c : result.test->confusions) {
    const std::string name = result.test->confusions.size() == 1 ? "confusion.png" : "confusion-" + c.target + ".png";
    const std::vector<std::string>& classes = splits.test->find(c.target)->class_names;
    if (c.classes <= kMostClassesDrawn && c.classes == static_cast<int64_t>(classes.size()))
      DS_TRY(io::confusion_matrix_chart((folder / name).string(), "Test set: true class by predicted class", classes,
                                        c.counts));
  }
  return result;
}

Result<std::string> monitored_value(const RunOptions& options) {
  DS_ASSIGN(const data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  DS_ASSIGN(nn::ModulePtr model, make_model(options, *splits.train));
  return Trainer(model, options).monitor_for(splits.train);
}

Result<std::shared_ptr<const runtime::Program>> training_program(const RunOptions& options,
                                                                 passes::PassObserver observe) {
  DS_ASSIGN(const data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  DS_ASSIGN(nn::ModulePtr model, make_model(options, *splits.train));
  Trainer trainer(model, options);
  trainer.observe_passes(std::move(observe));
  return trainer.step_program(splits.train);
}

Result<explain::StepProfile> profile_training(const RunOptions& options, const explain::ProfileOptions& how) {
  DS_ASSIGN(const data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  DS_ASSIGN(nn::ModulePtr model, make_model(options, *splits.train));
  DS_ASSIGN(explain::StepProfile profile, Trainer(model, options).profile(splits.train, how));
  profile.subject = fmt::format("{} on {}, {}", options.model.name, options.data.name, profile.subject);
  return profile;
}

Result<TrainedRun> load_run(const std::string& folder) {
  TrainedRun run;
  const std::string config = folder + "/config.yaml";
  const Result<std::string> text = read_text(config);
  if (!text.ok()) return Status(text.status()).note("is '" + folder + "' a run folder?");
  if (!text->starts_with("model:") && text->find("\nmodel:") == std::string::npos)
    return invalid(
        "'{}' was trained from Python: its config names neither a model of the zoo nor data. Evaluate it there, by "
        "Trainer.evaluate() of a model that loads '{}/best.safetensors'; `deepseek predict {} DATA` runs its model",
        folder, folder, folder);
  OptionTable table = option_table(run.options);
  table.ignore("train.augment");  // of older runs; it says nothing of a model that is trained
  DS_TRY(table.load_yaml(*text, config));
  DS_ASSIGN(run.data, data::open_dataset(run.options.data.name, run.options.data.params));
  DS_ASSIGN(run.model, make_model(run.options, *run.data.train));
  DS_ASSIGN(const io::TensorFile weights, io::load_safetensors(folder + "/best.safetensors"));
  DS_TRY(run.model->load_state(weights.tensors).note("while loading '" + folder + "/best.safetensors'"));
  return run;
}

}  // namespace deepseek::train
