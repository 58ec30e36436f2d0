#include "tune/study.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "base/json.h"
#include "tune/pareto.h"
#include "tune/stores/sql_store.h"

namespace deepseek::tune {
namespace {

using Json = nlohmann::ordered_json;

std::string host_and_process() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  // Processes in containers may have the same number and name.
  return fmt::format("{}:{}:{:08x}", host, getpid(), std::random_device()());
}

}  // namespace

std::string StudyOptions::to_json() const {
  Json json;
  json["space"] = parse_json<Json>(space.to_json());
  for (const Direction d : directions)
    json["directions"].push_back(d == Direction::kMaximize ? "maximize" : "minimize");
  json["sampler"] = sampler;
  json["pruner"] = pruner;
  json["seed"] = seed;
  json["max_trials"] = max_trials;
  json["max_seconds"] = max_seconds;
  json["patience"] = patience;
  json["grace"] = grace;
  json["max_attempts"] = max_attempts;
  return dump_json(json);
}

Result<StudyOptions> StudyOptions::parse(std::string_view text) {
  const Json json = parse_json<Json>(text, false);
  if (json.is_discarded() || !json.is_object() || !json.contains("space"))
    return make_error(ErrorCode::kDataCorrupt, "settings of a study: expected an object with a space");
  StudyOptions o;
  DS_ASSIGN(o.space, Space::parse(dump_json(json["space"])));
  try {
    o.directions.clear();
    for (const auto& d : json.at("directions"))
      o.directions.push_back(d == "maximize" ? Direction::kMaximize : Direction::kMinimize);
    o.sampler = json.at("sampler");
    o.pruner = json.at("pruner");
    o.seed = json.at("seed");
    o.max_trials = json.at("max_trials");
    o.max_seconds = json.at("max_seconds");
    o.patience = json.at("patience");
    o.grace = json.at("grace");
    o.max_attempts = json.at("max_attempts");
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kDataCorrupt, "settings of a study: {}", e.what());
  }
  return o;
}

// Beats for the trials that run here, from a thread and a connection of its own.
struct Study::Heart {
  Heart(std::shared_ptr<Store> store, double interval)
      : store(std::move(store)), thread([this, interval] { beat(interval); }) {}
  ~Heart() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    wake.notify_all();
    thread.join();
  }
  void beat(double interval) {
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, std::chrono::duration<double>(interval), [this] { return stop; })) {
      const std::vector<int64_t> numbers(running.begin(), running.end());
      if (numbers.empty()) continue;
      lock.unlock();
      // Where it fails the next one may succeed; if none does, another worker takes over, as it should.
      (void)store->beat(numbers).ok();
      lock.lock();
    }
  }
  std::shared_ptr<Store> store;
  std::mutex mutex;
  std::condition_variable wake;
  bool stop = false;
  std::set<int64_t> running;
  std::thread thread;
};

Study::Study(StudyOptions options, std::shared_ptr<Store> store)
    : options_(std::move(options)), store_(std::move(store)), worker_(host_and_process()) {}
Study::~Study() = default;

Result<std::unique_ptr<Study>> Study::create(StudyOptions options, std::shared_ptr<Store> store,
                                             std::function<bool(const Point&)> allowed) {
  if (options.space.size() == 0) return invalid("study: expected a space of at least one parameter");
  if (options.directions.empty()) return invalid("study: expected at least one objective");
  if (options.max_trials < 0 || options.max_seconds < 0 || options.patience < 0 || options.grace < 0)
    return invalid("study: expected budgets of 0 (none) or more");
  std::unique_ptr<Study> study(new Study(std::move(options), std::move(store)));
  const StudyOptions& o = study->options_;
  DS_ASSIGN(study->sampler_, make_sampler(o.sampler));
  DS_ASSIGN(study->pruner_, make_pruner(o.pruner));
  if (o.pruner != "none" && o.directions.size() > 1)
    return invalid("study: pruners need one objective, got {}", o.directions.size());
  study->setting_ = {o.space, o.directions, o.seed, std::move(allowed)};
  if (o.grace > 0) {
    DS_ASSIGN(std::shared_ptr<Store> own, study->store_->again());
    study->heart_ = std::make_unique<Heart>(std::move(own), o.grace / 6);
  }
  return study;
}

// Its values such that less is better.
static std::vector<double> losses_of(const Setting& setting, const Trial& trial) {
  std::vector<double> losses = trial.values;
  for (size_t k = 0; k < losses.size(); ++k)
    if (setting.directions[k] == Direction::kMaximize) losses[k] = -losses[k];
  return losses;
}
static bool feasible(const Trial& trial) {
  return std::all_of(trial.constraints.begin(), trial.constraints.end(), [](double c) { return c <= 0; });
}

Result<std::unique_ptr<Study>> Study::open(StudyOptions options, const std::string& url, const std::string& name,
                                           std::function<bool(const Point&)> allowed, std::function<bool()> cancelled) {
  // Mistakes are told before anything is made.
  DS_TRY(create(options, make_memory_store(""), allowed).status());
  DS_ASSIGN(std::shared_ptr<Store> store,
            open_sql_store(url, name, options.to_json(), kPatience, std::move(cancelled)));
  DS_ASSIGN(const StudyOptions kept, StudyOptions::parse(store->config()));
  if (kept.space.to_json() != options.space.to_json())
    return invalid("{}: the study '{}' has another space: {}, got {}; give another name, or take this space", url, name,
                   kept.space.to_json(), options.space.to_json());
  if (kept.directions != options.directions)
    return invalid("{}: the study '{}' has other directions; give another name, or take those", url, name);
  return create(std::move(options), std::move(store), std::move(allowed));
}

Result<std::string> Study::budget_spent(const Transaction& t) {
  if (options_.max_seconds > 0) {
    if (started_ == 0) started_ = t.now();
    if (t.now() - started_ >= options_.max_seconds) return fmt::format("{} seconds are over", options_.max_seconds);
  }
  if (options_.patience > 0) {
    // Complete trials in the order in which they ended; one is better that keeps the constraints and than which none
    // before is as good in every objective.
    std::vector<const Trial*> complete;
    for (const Trial& trial : t.trials())
      if (trial.state == TrialState::kComplete) complete.push_back(&trial);
    std::stable_sort(complete.begin(), complete.end(),
                     [](const Trial* a, const Trial* b) { return a->ended < b->ended; });
    std::vector<std::vector<double>> front;
    const auto as_good = [](const std::vector<double>& a, const std::vector<double>& b) {
      return std::equal(a.begin(), a.end(), b.begin(), std::less_equal<>());
    };
    int64_t since = 0;
    for (const Trial* trial : complete) {
      ++since;
      if (!feasible(*trial)) continue;
      const std::vector<double> losses = losses_of(setting_, *trial);
      if (std::any_of(front.begin(), front.end(), [&](const auto& f) { return as_good(f, losses); })) continue;
      std::erase_if(front, [&](const auto& f) { return as_good(losses, f); });
      front.push_back(losses);
      since = 0;
    }
    if (since >= options_.patience) return fmt::format("the last {} trials brought nothing better", since);
  }
  return std::string();
}

Point Study::filled(Point point, const Point& given) const {
  for (size_t i = 0; i < given.size(); ++i)
    if (!std::isnan(given[i])) point[i] = given[i];
  return options_.space.repaired(std::move(point));
}

// What was left open is the sampler's; where that makes a point that is there, another that has what was given.
Result<Point> Study::completed(const std::vector<Trial>& trials, const Trial& trial) {
  DS_ASSIGN(const Point suggested, sampler_->suggest(setting_, trials, trial.number));
  Setting given = setting_;
  given.allowed = [&](const Point& p) {
    return PointEqual()(p, filled(p, trial.point)) && (!setting_.allowed || setting_.allowed(p));
  };
  Result<Point> point = first_new(given, Seen(setting_, trials), [&](int64_t k) {
    if (k == 0) return filled(suggested, trial.point);
    const std::vector<double> unit = random_unit(options_.space.size(), options_.seed,
                                                 static_cast<uint64_t>(trial.number), static_cast<uint64_t>(k));
    return filled(options_.space.from_unit(unit), trial.point);
  });
  if (point.ok() || point.status().code() == ErrorCode::kInternal) return point;
  return make_error(ErrorCode::kNotFound, "every point with what was given has been tried or isn't allowed");
}

Result<std::optional<Trial>> Study::ask() {
  const std::lock_guard lock(mutex_);
  const std::string token = fmt::format("{}/{}", worker_, asked_++);
  std::optional<Trial> given;
  over_.clear();
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    given.reset();
    others_run_ = false;
    DS_ASSIGN(over_, budget_spent(t));
    if (!over_.empty()) return {};
    const auto give = [&](Trial trial) {
      trial.state = TrialState::kRunning;
      trial.worker = token;
      if (trial.started == 0) trial.started = t.now();
      given = trial;
      return t.put(std::move(trial));
    };
    const std::vector<Trial>& trials = t.trials();
    for (const Trial& trial : trials) {
      if (trial.state != TrialState::kRunning) continue;
      if (trial.worker == token) {  // given before the connection was lost
        given = trial;
        return {};
      }
      if (options_.grace <= 0) continue;
      DS_ASSIGN(const double beat, t.last_beat(trial.number));
      if (t.now() - beat < options_.grace) continue;
      Trial again = trial;
      if (++again.attempts < options_.max_attempts) return give(std::move(again));
      again.state = TrialState::kFailed;
      again.ended = t.now();
      again.error =
          fmt::format("its worker died or was not heard of for {} s, {} times", options_.grace, again.attempts);
      DS_TRY(t.put(std::move(again)));
    }
    for (const Trial& trial : trials)
      if (trial.state == TrialState::kWaiting) {
        Trial next = trial;
        if (!next.point.empty() && options_.space.check(next.point).ok()) return give(std::move(next));
        Result<Point> point = completed(trials, trial);
        if (point.ok()) {
          next.point = std::move(*point);
          return give(std::move(next));
        }
        if (point.status().code() != ErrorCode::kNotFound) return point.status();
        next.state = TrialState::kFailed;
        next.point = filled(options_.space.from_unit(std::vector<double>(options_.space.size(), 0.5)), trial.point);
        next.error = point.status().message();
        next.started = next.ended = t.now();
        DS_TRY(t.put(std::move(next)));
      }
    if (const auto number = pruner_->resumes(trials, options_.directions[0]))
      return give(trials[static_cast<size_t>(*number)]);
    others_run_ = std::any_of(trials.begin(), trials.end(), [&](const Trial& trial) {
      return trial.state == TrialState::kRunning && !trial.worker.starts_with(worker_ + "/");
    });
    if (options_.max_trials > 0 && static_cast<int64_t>(trials.size()) >= options_.max_trials) {
      over_ = fmt::format("all {} trials have been made", options_.max_trials);
      return {};
    }
    Trial trial;
    trial.number = static_cast<int64_t>(trials.size());
    Result<Point> point = sampler_->suggest(setting_, trials, trial.number);
    if (!point.ok()) {
      if (point.status().code() != ErrorCode::kNotFound) return point.status();
      over_ = point.status().message();
      return {};
    }
    trial.point = std::move(*point);
    return give(std::move(trial));
  }));
  if (given) given_[given->number] = token;
  if (given && heart_) {
    const std::lock_guard beating(heart_->mutex);
    heart_->running.insert(given->number);
  }
  return given;
}

static Status check_number(const Transaction& t, int64_t number) {
  if (number >= 0 && number < static_cast<int64_t>(t.trials().size())) return {};
  return invalid("trial {}: the study has {} trials", number, t.trials().size());
}

// What to say of values that are no result; empty where all are one.
static std::string not_finite(const std::vector<double>& values) {
  for (const double v : values)
    if (!std::isfinite(v)) return fmt::format("the objective was {}", v);
  return {};
}

Result<bool> Study::tell(int64_t number, TrialState state, std::vector<double> values, std::vector<double> constraints,
                         std::string error) {
  if (state == TrialState::kComplete) {
    if (values.size() != options_.directions.size())
      return invalid("trial {}: expected {} value{}, got {}", number, options_.directions.size(),
                     options_.directions.size() == 1 ? "" : "s", values.size());
    if (const std::string what = not_finite(values); !what.empty()) {
      state = TrialState::kFailed;
      if (error.empty()) error = what;
    }
  }
  const std::lock_guard lock(mutex_);
  bool first = false;
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    first = false;
    DS_TRY(check_number(t, number));
    const std::vector<Trial>& trials = t.trials();
    Trial trial = trials[static_cast<size_t>(number)];
    if (is_finished(trial.state)) return {};
    // A worker that was stopped for long must not lay down, or fail, what another goes on with.
    if (lost(trial) && state != TrialState::kComplete) return {};
    first = true;
    trial.state = state;
    if (state != TrialState::kFailed) trial.values = values;
    trial.constraints = constraints;
    trial.error = error;
    trial.ended = is_finished(state) ? t.now() : 0;
    return t.put(std::move(trial));
  }));
  given_.erase(number);
  if (heart_) {
    const std::lock_guard beating(heart_->mutex);
    heart_->running.erase(number);
  }
  return first;
}

bool Study::lost(const Trial& trial) const {
  const auto own = given_.find(trial.number);
  return own != given_.end() && (trial.state != TrialState::kRunning || trial.worker != own->second);
}

Result<bool> Study::report(int64_t number, int64_t step, double value) {
  const std::lock_guard lock(mutex_);
  bool stops = false;
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    DS_TRY(check_number(t, number));
    const std::vector<Trial>& trials = t.trials();
    Trial trial = trials[static_cast<size_t>(number)];
    stops = lost(trial);
    if (stops) return {};
    if (trial.state != TrialState::kRunning)
      return invalid("trial {}: expected a running one to report on, it is {}", number, to_string(trial.state));
    // A step that comes again, after a restart, replaces what it was.
    auto at = std::lower_bound(trial.reports.begin(), trial.reports.end(), step,
                               [](const Report& r, int64_t s) { return r.step < s; });
    if (at != trial.reports.end() && at->step == step)
      at->value = value;
    else
      at = trial.reports.insert(at, {step, value});
    stops = at + 1 == trial.reports.end() && pruner_->stops(trial, trials, options_.directions[0]);
    return t.put(std::move(trial));
  }));
  return stops;
}

Status Study::enqueue(const Point& point) {
  for (size_t i = 0; i < point.size(); ++i) {
    const Parameter& p = options_.space[i];
    if (!std::isnan(point[i]) && !(point[i] >= p.low && point[i] <= p.high))
      return invalid("parameter '{}': expected a value from {} to {}, got {}", p.name, p.low, p.high, point[i]);
  }
  const std::lock_guard lock(mutex_);
  return store_->transact([&](Transaction& t) -> Status {
    Trial trial;
    trial.number = static_cast<int64_t>(t.trials().size());
    trial.state = TrialState::kWaiting;
    trial.point = point;
    return t.put(std::move(trial));
  });
}

Status Study::set_note(int64_t number, std::string json) {
  const std::lock_guard lock(mutex_);
  return store_->transact([&](Transaction& t) -> Status {
    DS_TRY(check_number(t, number));
    Trial trial = t.trials()[static_cast<size_t>(number)];
    trial.note = json;
    return t.put(std::move(trial));
  });
}

Status Study::add(Trial trial) {
  if (!is_finished(trial.state)) return invalid("expected a finished trial to add, it is {}", to_string(trial.state));
  DS_TRY(options_.space.check(trial.point));
  if (trial.state == TrialState::kComplete && trial.values.size() != options_.directions.size())
    return invalid("expected {} values, got {}", options_.directions.size(), trial.values.size());
  if (const std::string what = not_finite(trial.values); !what.empty()) {
    trial.state = TrialState::kFailed;
    trial.values.clear();
    if (trial.error.empty()) trial.error = what;
  }
  const std::lock_guard lock(mutex_);
  return store_->transact([&](Transaction& t) -> Status {
    Trial added = trial;
    added.number = static_cast<int64_t>(t.trials().size());
    if (added.started == 0) added.started = t.now();
    if (added.ended == 0) added.ended = t.now();
    return t.put(std::move(added));
  });
}

Result<std::vector<Trial>> Study::trials() {
  const std::lock_guard lock(mutex_);
  std::vector<Trial> all;
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    all = t.trials();
    return {};
  }));
  return all;
}

Result<Trial> Study::trial(int64_t number) {
  const std::lock_guard lock(mutex_);
  Trial trial;
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    DS_TRY(check_number(t, number));
    trial = t.trials()[static_cast<size_t>(number)];
    return {};
  }));
  return trial;
}

Result<std::vector<Trial>> Study::best() {
  const std::lock_guard lock(mutex_);
  std::vector<Trial> best;
  DS_TRY(store_->transact([&](Transaction& t) -> Status {
    best.clear();
    for (const size_t i : best_trials(setting_, t.trials())) best.push_back(t.trials()[i]);
    return {};
  }));
  return best;
}

std::vector<size_t> best_trials(const Setting& setting, const std::vector<Trial>& trials) {
  std::vector<size_t> candidates;
  std::vector<std::vector<double>> losses;
  for (size_t i = 0; i < trials.size(); ++i) {
    const Trial& t = trials[i];
    if (t.state != TrialState::kComplete) continue;
    if (!feasible(t)) continue;
    candidates.push_back(i);
    losses.push_back(losses_of(setting, t));
  }
  if (candidates.empty()) return {};
  if (setting.objectives() == 1) {
    const auto best = std::min_element(losses.begin(), losses.end());  // the earliest of equals
    return {candidates[static_cast<size_t>(best - losses.begin())]};
  }
  std::vector<size_t> front;
  for (const size_t i : pareto_front(losses)) front.push_back(candidates[i]);
  return front;
}

}  // namespace deepseek::tune
