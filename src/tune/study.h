// A search: asks a sampler for points, keeps what came out, and knows when it is over. Many processes may work on one
// study through a store. Test: tests/tune/study_test.cc
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tune/pruner.h"
#include "tune/samplers/sampler.h"
#include "tune/stores/store.h"

namespace deepseek::tune {

struct StudyOptions {
  Space space;
  std::vector<Direction> directions = {Direction::kMinimize};
  std::string sampler = "hybrid";
  std::string pruner = "none";
  uint64_t seed = 0;
  // When the search is over, 0: never. Trials count from the moment they are asked for.
  int64_t max_trials = 0;
  double max_seconds = 0;  // since this process first asked
  int64_t patience = 0;    // complete trials without a better one; of several objectives, none new on the Pareto front
  // A worker that was not heard of for this long is dead, and its trial is given to another; 0: never.
  double grace = 120;
  int64_t max_attempts = 3;  // of a trial whose workers die

  std::string to_json() const;
  static Result<StudyOptions> parse(std::string_view json);
};

class Study {
 public:
  // `allowed`: known constraints, see Setting. Its sampler's and pruner's names are checked here.
  static Result<std::unique_ptr<Study>> create(StudyOptions options, std::shared_ptr<Store> store,
                                               std::function<bool(const Point&)> allowed = {});
  // The study of this name in a database (see sql_store.h), made where there is none. One that is there must have the
  // same space and directions; sampler, pruner and budgets are those given here. `cancelled`: see open_sql_store().
  static Result<std::unique_ptr<Study>> open(StudyOptions options, const std::string& url, const std::string& name,
                                             std::function<bool(const Point&)> allowed = {},
                                             std::function<bool()> cancelled = {});
  ~Study();

  // The next trial, running now: one whose worker died, one that was enqueued, a paused one that its pruner wants to go
  // on with, or a new one. None where the search is over (over() says why).
  Result<std::optional<Trial>> ask();
  // Ends a trial, or lays it down (paused: until its pruner wants it; waiting: until somebody asks). Values that aren't
  // finite make it failed. False where it had ended before: the first end stays; or where this study has asked for the
  // trial and another worker has it by now: only a value counts then.
  Result<bool> tell(int64_t number, TrialState state, std::vector<double> values, std::vector<double> constraints = {},
                    std::string error = {});
  // An intermediate value of a running trial (one objective); true where its pruner would stop it here, or where
  // another worker has it by now, whose it stays.
  Result<bool> report(int64_t number, int64_t step, double value);
  // A point to be tried next (JSON; {} or a part: the sampler does the rest).
  Status enqueue(const Point& point);
  Status set_note(int64_t number, std::string json);
  // A trial that ended elsewhere.
  Status add(Trial trial);

  // As they are now, by number.
  Result<std::vector<Trial>> trials();
  Result<Trial> trial(int64_t number);
  // The best of them, see best_trials().
  Result<std::vector<Trial>> best();
  // Why ask() gives nothing any more; empty while it does.
  const std::string& over() const { return over_; }
  // Whether trials of other workers were running at the last ask(): should one die, its trial can be had by asking on.
  bool others_run() const { return others_run_; }
  // Whether a trial that its pruner stops should be told as paused rather than pruned, if it can be taken up again.
  bool pauses() const { return pruner_->pauses(); }
  const StudyOptions& options() const { return options_; }
  const Setting& setting() const { return setting_; }

 private:
  Study(StudyOptions options, std::shared_ptr<Store> store);
  Result<std::string> budget_spent(const Transaction& t);
  Point filled(Point point, const Point& given) const;
  Result<Point> completed(const std::vector<Trial>& trials, const Trial& trial);
  void start_heartbeats();

  StudyOptions options_;
  Setting setting_;
  std::shared_ptr<Store> store_;
  std::shared_ptr<Sampler> sampler_;
  std::shared_ptr<Pruner> pruner_;
  std::mutex mutex_;                    // of the store and the sampler
  bool lost(const Trial& trial) const;  // given here, and then to another

  std::string worker_, over_;
  std::map<int64_t, std::string> given_;  // the token of each trial that runs here
  int64_t asked_ = 0;
  double started_ = 0;  // the first ask()
  bool others_run_ = false;
  struct Heart;
  std::unique_ptr<Heart> heart_;
};

// Positions of the best trials: of one objective that with the least loss (none, or one), of several the Pareto front.
// Complete and feasible ones count.
std::vector<size_t> best_trials(const Setting& setting, const std::vector<Trial>& trials);

}  // namespace deepseek::tune
