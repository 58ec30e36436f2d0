// Tunes training runs by their config: `tune.parameters` names keys and ranges, each trial is a run folder, and what
// came out best is a config to train with. Test: tests/python/test_tune.py
#pragma once

#include "train/run.h"
#include "tune/study.h"

namespace deepseek::tune {

struct TuneOptions {
  JsonValue parameters;
  std::string sampler = "hybrid", pruner = "none";
  int64_t trials = 50;
  double seconds = 0;
  int64_t patience = 0;
  int64_t seed = 0;
  double grace = 120;
  std::string storage, name, output = "runs/tune";
  void describe(OptionTable& t) {
    t.field("parameters", parameters,
            {.doc = "keys of this config with what to try: optimizer.learning_rate: {low: 1e-4, high: 1e-1}, "
                    "train.batch_size: [32, 64, 128]; also step, log, ordered and when: {optimizer.name: sgd}"});
    t.field("sampler", sampler, {.doc = "how points are chosen", .choices = sampler_names()});
    t.field("pruner", pruner,
            {.doc = "stops runs that do badly: none, median, percentile, asha, hyperband, patience, threshold, with "
                    "parameters as "
                    "in asha(min_step=1, factor=3), whose steps are epochs; asha and hyperband pause runs and take "
                    "them up again"});
    t.field("trials", trials, {.doc = "runs at most, 0: no limit", .min = 0});
    t.field("seconds", seconds, {.doc = "of a worker, after which it begins no run, 0: no limit", .min = 0});
    t.field("patience", patience, {.doc = "runs without a better one after which to stop, 0: off", .min = 0});
    t.field("seed", seed, {.doc = "of the sampler", .min = 0});
    t.field("grace", grace,
            {.doc = "seconds without a sign of life after which another worker takes over a run", .min = 0});
    t.field(
        "storage", storage,
        {.doc =
             "the study's database, which workers share: a file, or postgresql://host/database for many machines; by "
             "default study.db in the output folder"});
    t.field("name", name, {.doc = "of the study; by default that of the output folder"});
    t.field("output", output, {.doc = "folder of the runs' folders, of best.yaml and of the report"});
  }
};

struct TuneRunOptions : train::RunOptions {
  TuneOptions tune;
  void describe(OptionTable& t) {
    train::RunOptions::describe(t);
    t.group("tune", tune, "what to try");
  }
};

struct TuneHooks {
  std::function<void(const std::string&)> message = [](const std::string&) {};
  std::function<bool()> interrupted = [] { return false; };
};

struct TuneResult {
  bool interrupted = false;
  std::string over;           // why the search ended; empty where it was interrupted
  std::vector<Trial> trials;  // of all workers, as they were at the end; by number
  std::optional<Trial> best;  // none while no run is complete
  std::string monitor;        // what its value is
  std::string best_config;    // the file
};

// One worker: runs trials until the search is over, or somebody interrupts it; a run that is under way is saved then,
// and goes on when somebody asks for it.
Result<TuneResult> tune_runs(const TuneRunOptions& options, const TuneHooks& hooks);
// What has come out so far; nothing is run.
Result<TuneResult> tune_result(const TuneRunOptions& options, const std::function<bool()>& interrupted);

}  // namespace deepseek::tune
