#include "tune/run_tuning.h"

#include <algorithm>
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
Result<std::unique_ptr<Study>> open_study(const TuneRunOptions& options, const std::function<bool()>& interrupted,
                                          std::string& monitor) {
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
  return Study::open(std::move(study), storage_of(o), name_of(o), {}, interrupted);
}

std::string best_config_of(const TuneOptions& o) { return (std::filesystem::path(o.output) / "best.yaml").string(); }

// The trials as they are now, and the best of them.
Status read_trials(Study& study, TuneResult& result) {
  DS_ASSIGN(result.trials, study.trials());
  const std::vector<size_t> winner = best_trials(study.setting(), result.trials);
  if (!winner.empty()) result.best = result.trials[winner[0]];
  return {};
}

class Worker {
 public:
  Worker(const TuneRunOptions& options, const TuneHooks& hooks, Study& study, TuneResult& result)
      : options_(options), hooks_(hooks), study_(study), result_(result) {}

  Status run_until_over() {
    while (!hooks_.interrupted()) {
      DS_ASSIGN(const std::optional<Trial> trial, study_.ask());
      if (trial) {
        DS_TRY(run(*trial));
        continue;
      }
      // The last runs are somebody else's, who may die with one.
      if (!study_.others_run() || options_.tune.grace <= 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    return {};
  }

 private:
  Status run(const Trial& trial) {
    const Space& space = study_.options().space;
    const bool maximize = study_.options().directions[0] == Direction::kMaximize;
    const std::string folder = folder_of(options_.tune, trial.number);
    DS_ASSIGN(const train::RunOptions run, run_of(options_, space, trial.point, folder));
    // What was begun, by a worker that died or before a pause, goes on.
    const bool begun = trial.attempts > 0 || !trial.reports.empty() || trial.note == "\"begun\"";
    const bool resume = begun && std::filesystem::exists(std::filesystem::path(folder) / "last.safetensors");
    if (!begun) DS_TRY(study_.set_note(trial.number, "\"begun\""));
    std::optional<double> best;
    const auto reported = [&](double value) {
      if (!best || (maximize ? value > *best : value < *best)) best = value;
    };
    for (const Report& r : trial.reports) reported(r.value);
    bool stopped = false;
    train::Hooks inner;
    inner.progress = [&](const train::StepReport&) { return !hooks_.interrupted(); };
    inner.epoch = [&](const train::EpochRecord& record, double value) -> Result<bool> {
      reported(value);
      DS_ASSIGN(stopped, study_.report(trial.number, record.epoch, value));
      return !stopped;
    };
    const Result<train::RunResult> outcome = train::run_training(run, resume, inner);
    std::string end, error;
    TrialState state = TrialState::kComplete;
    std::vector<double> values;
    if (!outcome.ok()) {
      const ErrorCode code = outcome.status().code();
      // Interrupted while the database was away: it can't be told; the trial is taken over once nobody is heard of.
      if (code == ErrorCode::kInterrupted) return outcome.status();
      state = code == ErrorCode::kIo || code == ErrorCode::kInternal ? TrialState::kWaiting : TrialState::kFailed;
      if (state == TrialState::kFailed) error = outcome.status().message();
      end = "failed: " + error;
    } else if (outcome->fit.interrupted && !stopped) {
      state = TrialState::kWaiting;
      end = "interrupted, goes on next time";
    } else if (outcome->fit.interrupted) {
      state = study_.pauses() ? TrialState::kPaused : TrialState::kPruned;
      end = fmt::format("{} {:.5g} so far, {}", result_.monitor, *best, study_.pauses() ? "paused" : "stopped");
    } else {
      values = {best ? *best : std::numeric_limits<double>::quiet_NaN()};
      end = fmt::format("{} {:.5g}", result_.monitor, values[0]);
    }
    DS_ASSIGN(const bool first, study_.tell(trial.number, state, values, {}, error));
    if (!outcome.ok() && state == TrialState::kWaiting) return Status(outcome.status()).note("in " + folder);
    if (!first) end = "another worker has it";
    DS_TRY(read_trials(study_, result_));
    std::string so_far;
    if (result_.best) {
      DS_TRY(write_best(options_, space, *result_.best, result_.best_config));
      so_far = fmt::format("  | best {:.5g} of trial {}", result_.best->values[0], result_.best->number);
    }
    hooks_.message(fmt::format("trial {}  {}  {}{}", trial.number, end, space.text(trial.point), so_far));
    const auto failed = std::count_if(result_.trials.begin(), result_.trials.end(),
                                      [](const Trial& t) { return t.state == TrialState::kFailed; });
    if (failed >= kHopeless && static_cast<size_t>(failed) == result_.trials.size())
      return invalid("the first {} trials all failed; the last: {}", failed, end);
    return {};
  }

  const TuneRunOptions& options_;
  const TuneHooks& hooks_;
  Study& study_;
  TuneResult& result_;
};

}  // namespace

Result<TuneResult> tune_runs(const TuneRunOptions& options, const TuneHooks& hooks) {
  TuneResult result;
  result.best_config = best_config_of(options.tune);
  std::unique_ptr<Study> study;
  const auto work = [&]() -> Status {
    DS_ASSIGN(study, open_study(options, hooks.interrupted, result.monitor));
    DS_TRY(Worker(options, hooks, *study, result).run_until_over());
    return read_trials(*study, result);
  };
  // Also one that came while a database was waited for, which then can't tell of its trials.
  if (Status s = work(); !s.ok() && s.code() != ErrorCode::kInterrupted) return s;
  result.interrupted = hooks.interrupted();
  if (study) result.over = study->over();
  return result;
}

Result<TuneResult> tune_result(const TuneRunOptions& options, const std::function<bool()>& interrupted) {
  TuneResult result;
  result.best_config = best_config_of(options.tune);
  DS_ASSIGN(const std::unique_ptr<Study> study, open_study(options, interrupted, result.monitor));
  DS_TRY(read_trials(*study, result));
  return result;
}

}  // namespace deepseek::tune
