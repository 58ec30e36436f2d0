#include "tune/run_tuning.h"

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/strings.h"
#include "io/atomic_file.h"
#include "train/metrics.h"

namespace deepseek::tune {
namespace {

// Failed runs at the beginning that no good one is among: it is the config that is wrong.
constexpr int64_t kHopeless = 5;

// The options of a trial's run, without `tune`.
Result<train::RunOptions> run_of(const TuneRunOptions& base, const Space& space, const Point& point,
                                 const std::string& output) {
  train::RunOptions run = base;
  OptionTable table = train::option_table(run);
  for (size_t i = 0; i < space.size(); ++i)
    if (!std::isnan(point[i])) DS_TRY(table.set(space[i].name + "=" + space[i].text(point[i]), "tune.parameters"));
  run.train.output = output;
  return run;
}

// Keys and values that the config doesn't take.
Status check_parameters(const TuneRunOptions& base, const Space& space) {
  std::vector<std::string> mistakes;
  for (const Parameter& p : space.parameters()) {
    if (p.name == "train.output" || p.name.starts_with("tune.")) {
      mistakes.push_back("tune.parameters: '" + p.name + "' can't be tuned");
      continue;
    }
    std::vector<double> values = {p.low, p.high};
    if (p.kind == Kind::kChoice)
      for (double k = 1; k + 1 < p.cardinality(); ++k) values.push_back(k);
    for (const double v : values) {
      train::RunOptions run = base;
      if (Status s = train::option_table(run).set(p.name + "=" + p.text(v), "tune.parameters"); !s.ok()) {
        if (std::find(mistakes.begin(), mistakes.end(), s.message()) == mistakes.end()) mistakes.push_back(s.message());
      }
    }
  }
  return mistakes.empty() ? Status() : Status(ErrorCode::kInvalidArgument, join(mistakes, "\n"));
}

std::string folder_of(const TuneOptions& options, int64_t number) {
  return (std::filesystem::path(options.output) / fmt::format("trial-{:04}", number)).string();
}

Status write_best(const TuneRunOptions& options, const Space& space, const Trial& best, const std::string& path) {
  DS_ASSIGN(train::RunOptions run,
            run_of(options, space, best.point, (std::filesystem::path(options.tune.output) / "best").string()));
  const std::string text =
      fmt::format("# Trial {}, value {}. Train it with: deepseek train {}\n", best.number, best.values[0], path) +
      train::option_table(run).to_yaml();
  return io::write_file_atomic(path, std::as_bytes(std::span(text.data(), text.size())));
}

std::string storage_of(const TuneOptions& o) {
  return o.storage.empty() ? (std::filesystem::path(o.output) / "study.db").string() : o.storage;
}
std::string name_of(const TuneOptions& o) {
  if (!o.name.empty()) return o.name;
  const std::filesystem::path folder = std::filesystem::path(o.output).lexically_normal();
  return (folder.has_filename() ? folder.filename() : folder.parent_path().filename()).string();
}

// The study of a config; made where there is none. Everything that a trial may do wrong is told here, all at once.
Result<std::unique_ptr<Study>> open_study(const TuneRunOptions& options, std::string& monitor) {
  const TuneOptions& o = options.tune;
  Result<Space> space = Space::parse(o.parameters.text);
  if (!space.ok()) return std::move(space).status().note("in tune.parameters");
  DS_TRY(check_parameters(options, *space));
  // Also that the model and the data are there, before a study is made.
  DS_ASSIGN(monitor, train::monitored_value(options));
  StudyOptions study;
  study.space = *space;
  study.directions = {train::Metrics::higher_is_better(monitor) ? Direction::kMaximize : Direction::kMinimize};
  study.sampler = o.sampler;
  study.pruner = o.pruner;
  study.seed = static_cast<uint64_t>(o.seed);
  study.max_trials = o.trials;
  study.max_seconds = o.seconds;
  study.patience = o.patience;
  study.grace = o.grace;
  std::error_code error;
  std::filesystem::create_directories(o.output, error);
  if (error) return make_error(ErrorCode::kIo, "tune.output: {}: {}", o.output, error.message());
  return Study::open(std::move(study), storage_of(o), name_of(o));
}

}  // namespace

Result<TuneResult> tune_runs(const TuneRunOptions& options, const TuneHooks& hooks) {
  TuneResult result;
  DS_ASSIGN(const std::unique_ptr<Study> study, open_study(options, result.monitor));
  const Space& space = study->options().space;
  const bool maximize = study->options().directions[0] == Direction::kMaximize;
  result.best_config = (std::filesystem::path(options.tune.output) / "best.yaml").string();
  while (!hooks.interrupted()) {
    DS_ASSIGN(const std::optional<Trial> trial, study->ask());
    if (!trial) {
      // The last runs are somebody else's, who may die with one.
      if (!study->others_run() || options.tune.grace <= 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      continue;
    }
    const int64_t number = trial->number;
    const std::string folder = folder_of(options.tune, number);
    DS_ASSIGN(train::RunOptions run, run_of(options, space, trial->point, folder));
    // What was begun, by a worker that died or before a pause, goes on.
    const bool begun = trial->attempts > 0 || !trial->reports.empty() || trial->note == "\"begun\"";
    const bool resume = begun && std::filesystem::exists(std::filesystem::path(folder) / "last.safetensors");
    if (!begun) DS_TRY(study->set_note(number, "\"begun\""));
    std::optional<double> best;
    for (const Report& r : trial->reports)
      if (!best || (maximize ? r.value > *best : r.value < *best)) best = r.value;
    bool stopped = false;
    train::Hooks inner;
    inner.progress = [&](const train::StepReport&) { return !hooks.interrupted(); };
    inner.epoch = [&](const train::EpochRecord& record, double value) -> Result<bool> {
      if (!best || (maximize ? value > *best : value < *best)) best = value;
      DS_ASSIGN(stopped, study->report(number, record.epoch, value));
      return !stopped;
    };
    const Result<train::RunResult> outcome = train::run_training(run, resume, inner);
    std::string end, error;
    TrialState state = TrialState::kComplete;
    std::vector<double> values;
    if (!outcome.ok()) {
      const ErrorCode code = outcome.status().code();
      state = code == ErrorCode::kIo || code == ErrorCode::kInternal ? TrialState::kWaiting : TrialState::kFailed;
      if (state == TrialState::kFailed) error = outcome.status().message();
      end = "failed: " + error;
    } else if (outcome->fit.interrupted && !stopped) {
      state = TrialState::kWaiting;
      end = "interrupted, goes on next time";
    } else if (outcome->fit.interrupted) {
      state = study->pauses() ? TrialState::kPaused : TrialState::kPruned;
      end = fmt::format("{} {:.5g} so far, {}", result.monitor, *best, study->pauses() ? "paused" : "stopped");
    } else {
      values = {best ? *best : std::numeric_limits<double>::quiet_NaN()};
      end = fmt::format("{} {:.5g}", result.monitor, values[0]);
    }
    DS_ASSIGN(const bool first, study->tell(number, state, values, {}, error));
    if (!outcome.ok() && state == TrialState::kWaiting) return Status(outcome.status()).note("in " + folder);
    if (!first) end = "another worker has done it";
    DS_ASSIGN(const std::vector<Trial> trials, study->trials());
    const std::vector<size_t> winner = best_trials(study->setting(), trials);
    if (!winner.empty()) {
      result.best = trials[winner[0]];
      DS_TRY(write_best(options, space, *result.best, result.best_config));
    }
    hooks.message(fmt::format(
        "trial {}  {}  {}{}", number, end, space.text(trial->point),
        result.best ? fmt::format("  | best {:.5g} of trial {}", result.best->values[0], result.best->number) : ""));
    int64_t failed = 0;
    for (const Trial& t : trials) failed += t.state == TrialState::kFailed;
    if (failed >= kHopeless && failed == static_cast<int64_t>(trials.size()))
      return invalid("the first {} trials all failed; the last: {}", failed, end);
  }
  result.interrupted = hooks.interrupted();
  result.over = study->over();
  return result;
}

}  // namespace deepseek::tune
